"""Bootstrap errors, likelihood-ratio tests, and components joined to clusters."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import xlogy
from sklearn.metrics import adjusted_rand_score

from fastgmm import (
    EntropyDisplay,
    GaussianMixture,
    MixtureSearch,
    bootstrap_likelihood_ratio,
    bootstrap_parameters,
    combine_components,
)
from helpers import blobs, fit_quietly


@pytest.fixture(scope="module")
def two_clusters():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(100, 2)) * 2 + 20])
    return X, fit_quietly(GaussianMixture(2, random_state=0), X)


@pytest.mark.parametrize("kind", ["nonparametric", "weighted"])
def test_errors_of_clear_clusters_agree_with_theory(two_clusters, kind):
    """Weights: binomial. Means: sd / sqrt(n). Variances: about var sqrt(2 / n)."""
    X, model = two_clusters
    result = bootstrap_parameters(model, X, n_replicates=400, kind=kind, random_state=0)
    assert result.n_failed == 0
    assert result.means.shape == (400, 2, 2)
    errors, n = result.standard_errors(), 400 * model.weights_
    np.testing.assert_allclose(errors["weights"], np.sqrt(0.25 * 0.75 / 400), rtol=0.2)
    variances = np.einsum("kdd->kd", model.covariances_)
    np.testing.assert_allclose(errors["means"], np.sqrt(variances / n[:, None]), rtol=0.2)
    np.testing.assert_allclose(
        np.einsum("kdd->kd", errors["covariances"]), variances * np.sqrt(2 / n)[:, None], rtol=0.35
    )
    low, high = result.intervals(0.9)["means"]
    np.testing.assert_allclose(high - low, 2 * 1.645 * errors["means"], rtol=0.2)
    assert ((low < model.means_) & (model.means_ < high)).all()


def test_replicates_depend_on_the_seed_and_not_on_the_number_of_processes(two_clusters):
    X, model = two_clusters
    runs = [bootstrap_parameters(model, X, n_replicates=6, random_state=3, n_processes=n).means for n in (None, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_weights_are_copies_and_failures_are_counted(two_clusters):
    X, model = two_clusters
    doubled = bootstrap_parameters(model, X, np.full(len(X), 4.0), n_replicates=200, random_state=0)
    single = bootstrap_parameters(model, X, n_replicates=200, random_state=0)
    ratio = doubled.standard_errors()["means"] / single.standard_errors()["means"]
    np.testing.assert_allclose(ratio, 0.5, rtol=0.25)  # four times as many rows
    few = np.vstack([X[:20], [[50.0, 50.0], [50.0, 51.0], [51.0, 50.0]]])  # often not all of the last three are drawn
    fragile = fit_quietly(GaussianMixture(2, reg_covar=0, random_state=0), few)
    result = bootstrap_parameters(fragile, few, n_replicates=40, random_state=0)
    assert 0 < result.n_failed < 40
    assert len(result.weights) == 40 - result.n_failed


def test_invalid_kinds_and_levels_are_refused(two_clusters):
    X, model = two_clusters
    with pytest.raises(ValueError, match="kind must be"):
        bootstrap_parameters(model, X, kind="jackknife")
    result = bootstrap_parameters(model, X, n_replicates=2, random_state=0)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        result.intervals(95)


def test_the_number_of_components_is_tested(two_clusters):
    X, _ = two_clusters
    estimator = GaussianMixture(covariance_type="VVI")
    result = bootstrap_likelihood_ratio(estimator, X, n_replicates=39, random_state=0, max_components=4)
    assert result.n_components == 2
    assert result.p_values[0] == 1 / 40
    assert result.p_values[1] > 0.05
    assert [len(r) + f for r, f in zip(result.replicates, result.n_failed, strict=True)] == [39, 39]
    assert result.statistics[0] > max(result.replicates[0])
    assert estimator.n_components == 1  # as it was
    only = bootstrap_likelihood_ratio(estimator, X, n_replicates=39, random_state=0, max_components=1)
    assert only.n_components == 2


def naive_combination(resp, weights):
    """Try every pair, with all responsibilities in memory."""
    groups, merges = [[k] for k in range(resp.shape[1])], []

    def entropy(groups):
        t = np.column_stack([resp[:, group].sum(axis=1) for group in groups])
        return -(weights @ xlogy(t, t)).sum()

    entropies = [entropy(groups)]
    while len(groups) > 1:
        tried = []
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                rest = [g for c, g in enumerate(groups) if c not in (a, b)]
                tried.append((entropy([*rest, groups[a] + groups[b]]), a, b))
        lowest, a, b = min(tried)
        merges.append({frozenset(groups[a]), frozenset(groups[b])})
        groups = [g for c, g in enumerate(groups) if c not in (a, b)] + [groups[a] + groups[b]]
        entropies.append(lowest)
    return merges, entropies


@pytest.mark.parametrize("weighted", [False, True])
def test_merging_equals_the_naive_twins(weighted, monkeypatch):
    X, _ = blobs(0, n_samples=300, n_features=2, separation=2.0)
    model = fit_quietly(GaussianMixture(6, random_state=0), X)
    weights = np.random.default_rng(0).uniform(0, 2, 300) if weighted else np.ones(300)
    monkeypatch.setattr("fastgmm.analysis.component_merging.NUMBERS_PER_BLOCK", 600)  # several blocks
    combined = combine_components(model, X, weights if weighted else None)
    _, entropies = naive_combination(model.predict_proba(X), weights)
    np.testing.assert_allclose(combined.entropies, entropies, atol=1e-9)
    assert combined.n_clusters.tolist() == [6, 5, 4, 3, 2, 1]
    for n_clusters in range(1, 7):
        assert len(np.unique(combined.clusters(n_clusters))) == n_clusters
        np.testing.assert_allclose(combined.predict_proba(X, n_clusters).sum(axis=1), 1)
    with pytest.raises(ValueError, match="n_clusters must be an integer from 1 to 6"):
        combined.clusters(7)


def test_components_of_a_cluster_that_is_not_gaussian_are_merged():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 900)
    arc = 5 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.2 * rng.normal(size=(900, 2))
    X = np.vstack([arc, rng.normal(size=(300, 2)) * 0.4 + [0, -4]])
    labels = np.repeat([0, 1], [900, 300])
    model = fit_quietly(GaussianMixture(6, random_state=0), X)
    assert adjusted_rand_score(labels, model.predict(X)) < 0.6
    assert adjusted_rand_score(labels, combine_components(model, X).predict(X, 2)) == 1


def test_entropy_display():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, _ = blobs(0, n_samples=300, n_features=2)
    combined = combine_components(fit_quietly(GaussianMixture(4, random_state=0), X), X)
    display = EntropyDisplay.from_combination(combined)
    x, y = display.line_.get_data()
    np.testing.assert_array_equal(x, [4, 3, 2, 1])
    np.testing.assert_array_equal(y, combined.entropies)


def test_data_frames_and_invalid_numbers(two_clusters):
    X, _ = two_clusters
    frame = pd.DataFrame(X, columns=["a", "b"])
    model = GaussianMixture(2, random_state=0).fit(frame)
    combine_components(model, frame).predict(frame, 1)  # without a warning
    bootstrap_parameters(model, frame, n_replicates=2, random_state=0)
    with pytest.raises(ValueError, match="feature names should match"):
        bootstrap_parameters(model, frame[["a"]])
    with pytest.raises(ValueError, match="n_replicates must be an integer of at least 2"):
        bootstrap_parameters(model, frame, n_replicates=1)
    with pytest.raises(ValueError, match="max_components must be an integer of at least 1"):
        bootstrap_likelihood_ratio(model, X, max_components=0)
    with pytest.raises(ValueError, match="Give weights that count rows"):
        bootstrap_parameters(model, frame, np.full(len(X), 1 / len(X)))
    assert (
        bootstrap_parameters(model, frame, np.full(len(X), 1 / len(X)), kind="weighted", n_replicates=3).n_failed == 0
    )


def test_a_search_is_replaced_by_its_best_estimator(two_clusters):
    X, _ = two_clusters
    search = MixtureSearch([1, 2], covariance_types="VVI", random_state=0).fit(X)
    best = search.best_estimator_
    np.testing.assert_array_equal(
        bootstrap_parameters(search, X, n_replicates=3, random_state=0).means,
        bootstrap_parameters(best, X, n_replicates=3, random_state=0).means,
    )
    assert combine_components(search, X).model is best
    options = {"n_replicates": 19, "max_components": 1, "random_state": 0}
    np.testing.assert_array_equal(
        bootstrap_likelihood_ratio(search, X, **options).statistics,
        bootstrap_likelihood_ratio(best, X, **options).statistics,
    )
    for use in (bootstrap_parameters, bootstrap_likelihood_ratio, combine_components):
        with pytest.raises(TypeError, match=r"a fitted search for .*, got MixtureSearch"):
            use(MixtureSearch(), X)


def test_results_have_a_short_repr(two_clusters):
    X, model = two_clusters
    result = bootstrap_parameters(model, X, n_replicates=3, random_state=0)
    assert repr(result) == "ParameterBootstrap(3 replicates of 2 components and 2 features, 0 failed)"
    test = bootstrap_likelihood_ratio(model, X, n_replicates=19, max_components=1, random_state=0)
    assert repr(test) == "LikelihoodRatioTest(n_components=2, p_values=[0.05])"
    combined = combine_components(model, X)
    assert repr(combined).startswith("CombinedComponents(2 components of a GaussianMixture, entropies=[")
    assert len(repr(combined)) < 100


@pytest.mark.parametrize("covariance_type", ["full", "tied", "VEV"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_small_replicates_together_are_those_one_by_one(covariance_type, dtype):
    X = blobs(2, n_samples=150, n_features=2, n_components=3, separation=2.0)[0].astype(dtype)
    model = fit_quietly(GaussianMixture(2, covariance_type=covariance_type, random_state=0), X)
    for kind in ("nonparametric", "weighted"):
        together, alone = (
            bootstrap_parameters(model, X, n_replicates=20, kind=kind, random_state=1, n_processes=n) for n in (None, 1)
        )
        for name in ("weights", "means", "covariances"):
            a, b = getattr(together, name), getattr(alone, name)
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    options = {"n_replicates": 19, "max_components": 2, "random_state": 3}
    estimator = GaussianMixture(covariance_type=covariance_type)
    together, alone = (bootstrap_likelihood_ratio(estimator, X, n_processes=n, **options) for n in (None, 1))
    assert len(together.replicates) == len(alone.replicates)
    for a, b in zip(together.replicates, alone.replicates, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(together.p_values, alone.p_values)
    assert together.n_components == alone.n_components
