"""`MixtureSearch`: what it tries, keeps and says; its picture; the hierarchy it starts from."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import PredefinedSplit, cross_val_score

from fastgmm import BayesianGaussianMixture, ConjugatePrior, CriterionDisplay, GaussianMixture, MixtureSearch
from fastgmm.analysis import search_cells
from fastgmm.covariance import MCLUST_MODELS
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.hierarchy import Hierarchy, cut_tree, hierarchy_of_clusters
from fastgmm.initialization.micro_clusters import micro_clusters
from helpers import blobs

CRITERIA = ("bic", "icl", "aic", "cv")


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


@pytest.fixture(scope="module")
def search(iris):
    return MixtureSearch(range(1, 5), random_state=0, estimator=GaussianMixture(tol=1e-6, max_iter=1000)).fit(iris)


def test_iris_agrees_with_mclust(search):
    """Published: VEV with 2 components, BIC -561.7285 in mclust's sign, log-likelihood -215.726, 26 parameters."""
    assert search.best_params_ == {"covariance_type": "VEV", "n_components": 2}
    assert search.best_score_ == pytest.approx(561.7285, abs=2e-3)
    table = pd.DataFrame(search.results_)
    best = table.loc[table.bic.idxmin()]
    assert best.log_likelihood == pytest.approx(-215.726, abs=1e-3)
    assert best.n_parameters == 26
    assert best.icl == pytest.approx(561.7289, abs=2e-3)


def test_every_cell_has_a_row_that_agrees_with_its_estimator(search, iris):
    table = pd.DataFrame(search.results_)
    assert len(table) == 14 * 4
    assert list(dict.fromkeys(table.covariance_type)) == list(MCLUST_MODELS)
    assert (table.problem[table.n_components < 3] == "").all()
    assert table.problem.str.contains("collapsed").sum() == table.bic.isna().sum() < 4  # some measures are equal
    best = search.best_estimator_
    assert search.best_score_ == pytest.approx(best.bic(iris))
    line = table[(table.covariance_type == "VEV") & (table.n_components == 2)].iloc[0]
    assert line.aic == pytest.approx(best.aic(iris))
    assert line.icl == pytest.approx(best.icl(iris))
    assert line.n_iter == best.n_iter_
    single = table[table.n_components == 1].set_index("covariance_type").log_likelihood
    # one component: spheres, axes, or anything, however it is called (reg_covar is 1e-6)
    np.testing.assert_allclose(single[["EII", "VII"]], -889.516130708, atol=1e-3)
    np.testing.assert_allclose(single[["EEI", "VEI", "EVI", "VVI"]], -741.017535185, atol=1e-3)
    np.testing.assert_allclose(single[["EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"]], -379.914630122,
                               atol=1e-2)  # fmt: skip


def test_predictions_are_those_of_the_best_estimator(search, iris):
    np.testing.assert_array_equal(search.predict(iris), search.best_estimator_.predict(iris))
    np.testing.assert_array_equal(search.predict_proba(iris), search.best_estimator_.predict_proba(iris))
    np.testing.assert_array_equal(search.score_samples(iris), search.best_estimator_.score_samples(iris))
    assert search.score(iris) == search.best_estimator_.score(iris)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_three_clear_clusters_are_found_by_every_criterion(criterion):
    X, _ = blobs(3, n_samples=900, n_features=3, separation=8.0)
    search = MixtureSearch(range(1, 6), covariance_types=["EII", "VVV"], criterion=criterion, cv=3, random_state=0)
    search.fit(X)
    table = pd.DataFrame(search.results_)
    best = table[criterion].idxmax() if criterion == "cv" else table[criterion].idxmin()
    assert search.best_score_ == table[criterion][best]
    if criterion in {"bic", "icl"}:
        assert search.best_params_ == {"covariance_type": "VVV", "n_components": 3}
    else:  # these two do not mind a component too many
        assert search.best_params_["covariance_type"] == "VVV"
        assert search.best_params_["n_components"] >= 3
    assert table.cv.isna().all() == (criterion != "cv")


def test_held_out_rows_are_not_fitted():
    """With many components the likelihood of rows that were left out is low, that of the others high."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    search = MixtureSearch([1, 5], covariance_types=["VVV"], criterion="cv", random_state=0).fit(X)
    assert search.best_params_["n_components"] == 1
    assert search.results_["log_likelihood"][1] > search.results_["log_likelihood"][0]


def test_weights_are_copies():
    X, _ = blobs(0, n_samples=200, n_features=2)
    copies = np.random.default_rng(0).integers(1, 3, len(X))
    options = {"covariance_types": ["EEE", "VVI"], "random_state": 0}
    weighted = MixtureSearch([1, 2], **options).fit(X, sample_weight=copies)
    repeated = MixtureSearch([1, 2], **options).fit(np.repeat(X, copies, axis=0))
    one = weighted.results_["n_components"] == 1
    np.testing.assert_allclose(weighted.results_["bic"][one], repeated.results_["bic"][one])


def test_a_failed_cell_has_a_reason_and_does_not_stop_the_search():
    X = np.vstack([np.zeros((30, 2)), np.random.default_rng(0).normal(size=(30, 2)) + 9])
    search = MixtureSearch([1, 2, 50], covariance_types=["EEE", "VVV"], random_state=0,
                           estimator=GaussianMixture(reg_covar=0)).fit(X)  # fmt: skip
    table = pd.DataFrame(search.results_).set_index(["covariance_type", "n_components"])
    assert "not positive definite" in table.problem["VVV", 2]
    assert "only 31 different rows or clusters" in table.problem["EEE", 50]
    assert math.isnan(table.bic["VVV", 2])
    assert search.best_params_["covariance_type"] in {"EEE", "VVV"}
    with pytest.raises(ValueError, match=r"None of 1 mixtures could be fitted. VVV with 50 components: There are only"):
        MixtureSearch(50, covariance_types="VVV").fit(X)


def test_processes_give_the_same_results(iris):
    options = {"covariance_types": ["EEE", "VEI"], "random_state": 0}
    one, two = (MixtureSearch([1, 2], n_processes=n, **options).fit(iris) for n in (None, 2))
    np.testing.assert_array_equal(one.results_["bic"], two.results_["bic"])
    np.testing.assert_array_equal(one.predict(iris), two.predict(iris))


def test_patience_stops_a_model_that_gets_worse():
    X, _ = blobs(0, n_samples=500, n_features=2, n_components=2, separation=8.0)
    options = {"covariance_types": ["VVV"], "random_state": 0}
    patient = MixtureSearch(range(1, 10), **options).fit(X)
    hasty = MixtureSearch(range(1, 10), patience=2, **options).fit(X)
    assert len(patient.results_["bic"]) == 9
    assert hasty.best_params_ == patient.best_params_
    assert len(hasty.results_["bic"]) == hasty.best_params_["n_components"] + 2


def test_one_feature_and_one_number():
    X = np.random.default_rng(0).normal(size=(100, 1))
    search = MixtureSearch(2).fit(X)
    assert search.results_["covariance_type"].tolist() == ["E", "V"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": []}, "n_components must be an integer above 0, or"),
        ({"n_components": [0, 1]}, "n_components must be an integer above 0, or"),
        ({"covariance_types": ["round"]}, "covariance_types must be among"),
        ({"covariance_types": []}, "covariance_types must be among"),
        ({"criterion": "dic"}, "criterion"),
        ({"patience": 0}, "patience"),
    ],
)
def test_invalid_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureSearch(**options).fit(np.eye(4))


def test_results_depend_on_the_seed_and_verbose_prints_cells(capsys, iris):
    search = MixtureSearch([2, 3], covariance_types=["EEV"], random_state=3, verbose=1)
    first = search.fit(iris).results_["bic"]
    np.testing.assert_array_equal(first, clone(search).fit(iris).results_["bic"])
    assert "  EEV 3: " in capsys.readouterr().out


def test_criterion_display_has_a_line_per_model_and_a_ring(search):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    display = CriterionDisplay.from_search(search)
    assert sorted(display.lines_) == sorted(MCLUST_MODELS)
    x, y = display.lines_["VEV"].get_data()
    of_model = search.results_["covariance_type"] == "VEV"
    np.testing.assert_array_equal(x, [1, 2, 3, 4])
    np.testing.assert_array_equal(y, search.results_["bic"][of_model])
    ring = display.ax_.lines[-1]
    assert ring.get_data()[1] == search.best_score_
    assert "VEV, 2" in ring.get_label()
    assert len(display.left_out_.get_offsets()) == 0
    again = CriterionDisplay.from_search(search, criterion="icl", ax=display.ax_)
    assert again.figure_ is display.figure_
    with pytest.raises(ValueError, match="criterion must be one of"):
        CriterionDisplay.from_search(search, criterion="x")


def test_groups_of_a_hierarchy_have_the_moments_of_their_rows():
    X, _ = blobs(0, n_samples=300, n_features=3)
    weights = np.random.default_rng(0).uniform(0, 2, 300)
    joined = micro_clusters(ArraySource(X, weights), 5, RandomStream(0), 1e-6)
    assert isinstance(joined, Hierarchy)
    for n_groups in (1, 2, 5):
        sums, means, scatter = joined.moments(n_groups)
        assert sums.sum() == pytest.approx(weights.sum())
        np.testing.assert_allclose(sums @ means, weights @ X)
        total = scatter.sum(axis=0) + (sums[:, None] * means).T @ means
        np.testing.assert_allclose(total, (weights[:, None] * X).T @ X)
        assert len(np.unique(cut_tree(joined.merges, n_groups))) == n_groups


def test_more_groups_than_clusters_give_empty_groups():
    joined = hierarchy_of_clusters(np.ones(2), np.eye(2), np.zeros((2, 2, 2)), n_rows=2, n_components=2, floor=1e-6)
    sums, means, scatter = joined.moments(4)
    assert sums.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(means[2:], [[0.5, 0.5], [0.5, 0.5]])
    assert not scatter[2:].any()


def test_a_splitter_is_used_unchanged():
    X = np.vstack([np.zeros((50, 1)), np.full((50, 1), 100.0)]) + np.random.default_rng(0).normal(size=(100, 1))
    halves = PredefinedSplit(np.repeat([0, 1], 50))
    search = MixtureSearch(1, covariance_types="V", criterion="cv", cv=halves).fit(X)
    expected = cross_val_score(GaussianMixture(1, covariance_type="V"), X, cv=halves).mean()
    assert search.best_score_ == pytest.approx(expected, rel=1e-3)


def test_names_of_features_are_kept(iris):
    frame = pd.DataFrame(iris, columns=list("abcd"))
    search = MixtureSearch(2, covariance_types="VVV", random_state=0).fit(frame)
    search.predict(frame)  # without a warning
    with pytest.raises(ValueError, match="feature names should match"):
        search.predict(frame[list("dcba")])


def test_invalid_estimators_are_refused_before_any_fit(iris):
    with pytest.raises(ValueError, match="'tol' parameter of GaussianMixture"):
        MixtureSearch(estimator=GaussianMixture(tol=-1)).fit(iris)
    with pytest.raises(ValueError, match="'estimator' parameter"):
        MixtureSearch(estimator=BayesianGaussianMixture()).fit(iris)


def test_a_failed_search_changes_nothing(iris):
    new = MixtureSearch(200, covariance_types="VVV")
    with pytest.raises(ValueError, match="None of 1 mixtures"):
        new.fit(iris)
    assert not hasattr(new, "n_features_in_")
    old = MixtureSearch(2, covariance_types="VVV", random_state=0).fit(iris)
    labels = old.predict(iris)
    with pytest.raises(ValueError, match="None of 1 mixtures"):
        old.set_params(n_components=200).fit(iris[:, :2])
    assert old.n_features_in_ == 4
    np.testing.assert_array_equal(old.predict(iris), labels)


def unequal_clusters():
    """Clusters that the cut of the hierarchy misses."""
    rng = np.random.default_rng(5)
    means, deviations = 2.5 * rng.normal(size=(9, 6)), rng.uniform(0.3, 1.5, (9, 6))
    labels = rng.choice(9, 2000, p=rng.dirichlet(np.full(9, 1.5)))
    return means[labels] + rng.normal(size=(2000, 6)) * deviations[labels]


def test_warm_starts_raise_some_likelihoods_and_lower_none(iris):
    rose = 0
    for X in (iris, unequal_clusters()):
        options = {"covariance_types": ["VII", "EEE", "VVI", "VVV"], "random_state": 0}
        cold = MixtureSearch(range(1, 8), warm_starts=False, **options).fit(X).results_
        warm = MixtureSearch(range(1, 8), **options).fit(X).results_
        assert ((warm["problem"] == "") | (cold["problem"] != "")).all()
        change = (warm["log_likelihood"] - cold["log_likelihood"])[cold["problem"] == ""]
        # a step after the pass that the two were compared by
        assert (change > -1e-3 * len(X)).all()
        rose += (change > 1).sum()
    assert rose >= 10


def test_only_the_next_smaller_number_gives_a_warm_start(iris, monkeypatch):
    """Gaps and falling numbers are fitted from the hierarchy alone."""
    seen = []

    def watched(source, parameters, reg_covar):
        seen.append((len(source.X), parameters.covariance_type, parameters.n_components))
        return add_component(source, parameters, reg_covar)

    add_component = search_cells.add_component
    monkeypatch.setattr(search_cells, "add_component", watched)
    options = {"covariance_types": ["EEE", "VVI"], "random_state": 0}
    for numbers, expected in (([1, 3, 5], []), ([3, 2, 1], []), ([4, 1, 5, 2], [4, 1])):
        search = MixtureSearch(numbers, **options).fit(iris)
        assert seen == [(150, name, n) for name in options["covariance_types"] for n in expected]
        if not seen:
            cold = MixtureSearch(numbers, warm_starts=False, **options).fit(iris)
            np.testing.assert_array_equal(search.results_["bic"], cold.results_["bic"])
        seen.clear()
    MixtureSearch([1, 2], criterion="cv", cv=3, covariance_types="EEE", random_state=0).fit(iris)
    assert seen == [(150, "EEE", 1), *[(100, "EEE", 1)] * 3]


def test_a_cell_has_a_result_if_one_of_its_starts_has(iris, monkeypatch):
    def failing(self, cell, *rest):
        if cell.n_components == 2:
            raise ValueError("not this one")
        return from_hierarchy(self, cell, *rest)

    from_hierarchy = search_cells.CellFitter._from_hierarchy
    monkeypatch.setattr(search_cells.CellFitter, "_from_hierarchy", failing)
    search = MixtureSearch([1, 2], covariance_types="VVV", random_state=0).fit(iris)
    assert search.results_["problem"].tolist() == ["", ""]
    assert search.best_score_ == pytest.approx(574.018, abs=0.01)  # mclust's
    alone = MixtureSearch([2], covariance_types="VVV", random_state=0)
    with pytest.raises(ValueError, match="not this one"):
        alone.fit(iris)


def test_warm_starts_take_a_prior_and_threads(iris):
    prior = GaussianMixture(prior=ConjugatePrior(), n_jobs=1)
    search = MixtureSearch(range(1, 5), covariance_types=["VVV", "EEE"], estimator=prior, random_state=0).fit(iris)
    assert (search.results_["problem"] == "").all()
    assert search.best_estimator_.prior is not None


def test_failed_cells_have_crosses_below_the_lines():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    nan = np.nan
    results = {
        "covariance_type": np.array(["EEE", "EEE", "VVV", "VVV"]),
        "n_components": np.array([1, 2, 1, 2]),
        "bic": np.array([5.0, nan, 3.0, nan]),
    }
    display = CriterionDisplay(results).plot()
    crosses = display.left_out_.get_offsets()
    np.testing.assert_array_equal(crosses[:, 0], [2, 2])
    assert crosses[0, 1] != crosses[1, 1]
    low, high = display.ax_.get_ylim()
    assert low + (high - low) * crosses[:, 1].max() < 3.0
    assert "left out" in [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_fits_share_the_scatter_of_all_rows(monkeypatch):
    """The tied layout reads it once for all numbers of components, in every fold, and ends as without."""
    from fastgmm import kernels

    X, _ = blobs(3, n_samples=700, n_features=3, n_components=3)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=len(X))
    options = {"covariance_types": ["EEE"], "criterion": "cv", "cv": 3, "random_state": 0}
    seen, accumulate = [], kernels.accumulate

    def watched(layout, *arguments, with_scatter=True, **more):
        if layout == "tied":
            seen.append(with_scatter)
        return accumulate(layout, *arguments, with_scatter=with_scatter, **more)

    monkeypatch.setattr(kernels, "accumulate", watched)
    search = MixtureSearch(range(1, 5), **options).fit(X, sample_weight=weights)
    assert sum(seen) == 4  # all rows, and those of three folds
    assert len(seen) > 10
    shared, own = (
        GaussianMixture(3, covariance_type="EEE", random_state=0).fit(rows)
        for rows in (search._fit_rows(X, None, 4, RandomStream(0)).source, X)
    )
    np.testing.assert_allclose(shared.covariances_, own.covariances_, rtol=0, atol=1e-10)
    np.testing.assert_allclose(shared.means_, own.means_, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n_rows", "n_features"), [(20, 20), (22, 20), (20, 30)])
def test_models_with_correlations_need_more_rows_than_features(n_rows, n_features):
    X = np.random.default_rng(0).normal(size=(n_rows, n_features))
    labels = np.arange(n_rows) // (n_rows // 2)
    X[labels == 0, : max(2, n_features // 6)] += 4
    search = MixtureSearch(range(1, 4), covariance_types=["EII", "VII", "EEE", "VVV"], random_state=0)
    if n_rows > n_features:
        search.fit(X)
    else:
        with pytest.warns(UserWarning, match="Left out EEE, VVV: models with correlations need more rows"):
            search.fit(X)
        out = np.isin(search.results_["covariance_type"], ["EEE", "VVV"])
        assert ["more rows than features" in problem for problem in search.results_["problem"]] == out.tolist()
    assert search.best_params_ == {"covariance_type": "EII", "n_components": 2}
    np.testing.assert_array_equal(search.predict(X) == search.predict(X)[0], labels == labels[0])


def test_models_with_correlations_are_excluded_if_features_depend_on_each_other():
    X = np.random.default_rng(0).normal(size=(100, 2))
    X = np.c_[X, X.sum(axis=1), np.full(100, 3.0)]
    with pytest.warns(UserWarning, match="Left out VVV: features depend on each other"):
        MixtureSearch([1, 2], covariance_types=["VVI", "VVV"], random_state=0).fit(X)
    # A constant feature depends on none, and models of one kind compare with each other.
    MixtureSearch([1], covariance_types=["VVI", "VVV"], random_state=0).fit(X[:, [0, 1, 3]])
    MixtureSearch([1], covariance_types=["VVV"], random_state=0).fit(X)
