"""Warnings of fits: at most one for each, of a kind that programs for scikit-learn's mixtures e_step_tile."""

import warnings

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import fastgmm
from fastgmm import (
    BayesianGaussianMixture,
    DaskGaussianMixture,
    DegenerateComponentWarning,
    GaussianMixture,
    MixtureSearch,
    StreamingGaussianMixture,
    bootstrap_parameters,
    rows,
)
from helpers import blobs

X, _ = blobs(n_components=2)
# Thirty equal rows far away: a component of their own collapses.
COLLAPSING = np.vstack([X, np.full((30, 3), 50.0)])
# Three different rows: of five components two are empty and the others collapse.
THREE = np.repeat([[0.0, 0.0], [1.0, 0.5], [30.0, -1.0]], 40, axis=0)


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


def test_kind():
    assert issubclass(DegenerateComponentWarning, ConvergenceWarning)
    assert fastgmm.DegenerateComponentWarning is DegenerateComponentWarning


@pytest.mark.parametrize(
    "options",
    [
        {}, {"n_init": 5}, {"n_moves": 3}, {"init_params": "small_em", "n_init": 3}, {"init_params": "hc"},
        {"init_params": "random_from_data", "n_init": 4}, {"acceleration": None, "n_init": 3}, {"verbose": 1},
        {"max_iter": 1, "tol": 0.0},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rows_and_components", [(COLLAPSING, 3), (THREE, 5)], ids=["collapsing", "equal"])
def test_one_warning_for_a_fit(options, rows_and_components):
    data, n_components = rows_and_components
    caught = warnings_of(lambda: GaussianMixture(n_components, random_state=0, **options).fit(data))
    assert len(caught) == 1, [str(w.message) for w in caught]
    assert issubclass(caught[0].category, ConvergenceWarning)
    assert caught[0].filename == __file__


def test_the_warning_names_all_problems():
    (caught,) = warnings_of(lambda: GaussianMixture(5, random_state=0, max_iter=1, tol=0.0).fit(THREE))
    text = str(caught.message)
    assert text.startswith("Number of distinct clusters (3) found smaller than n_clusters (5).")  # scikit-learn's
    for part in ("did not converge", "are empty: no row belongs to them", "Consider fewer components."):
        assert text.count(part) == 1, text
    assert caught.category is DegenerateComponentWarning
    (caught,) = warnings_of(lambda: GaussianMixture(2, random_state=0, max_iter=1, tol=0.0).fit(X))
    assert caught.category is ConvergenceWarning
    assert str(caught.message).startswith("Best performing initialization did not converge.")
    (caught,) = warnings_of(lambda: BayesianGaussianMixture(n_components=5, random_state=0, max_iter=1).fit(THREE))
    assert caught.category is ConvergenceWarning
    assert "distinct clusters (3)" in str(caught.message)
    assert "did not converge" in str(caught.message)


@pytest.mark.parametrize(
    "call",
    [
        lambda: GaussianMixture(3, random_state=0).fit(COLLAPSING),
        lambda: GaussianMixture(3, random_state=0).fit_predict(COLLAPSING),
        lambda: GaussianMixture(5, random_state=0, max_iter=1).fit(rows(THREE)),
        lambda: BayesianGaussianMixture(n_components=5, random_state=0, max_iter=1).fit(THREE),
        lambda: DaskGaussianMixture(3, random_state=0).fit(COLLAPSING),
        lambda: StreamingGaussianMixture(3, random_state=0).fit(COLLAPSING),
        lambda: StreamingGaussianMixture(3, random_state=0, init_size=300, shuffle=True).fit(COLLAPSING),
        lambda: GridSearchCV(GaussianMixture(random_state=0), {"n_components": [2, 3]}, cv=2).fit(COLLAPSING),
    ],
)
def test_a_filter_of_convergence_warnings_silences_all(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        call()


def test_streams_warn_once():
    for options in ({}, {"init_size": 630}):
        stream = StreamingGaussianMixture(3, random_state=0, **options)
        caught = warnings_of(lambda stream=stream: stream.fit(COLLAPSING))
        assert [w.category for w in caught] == [DegenerateComponentWarning]
        assert caught[0].filename == __file__
    stream = StreamingGaussianMixture(3, random_state=0, init_size=len(COLLAPSING))
    caught = warnings_of(lambda: [stream.partial_fit(block) for block in np.array_split(COLLAPSING, 7)])
    assert [w.category for w in caught] == [DegenerateComponentWarning]
    waiting = StreamingGaussianMixture(3, random_state=0).partial_fit(COLLAPSING)
    assert not warnings_of(lambda: [waiting.means_, waiting.weights_, waiting.predict(COLLAPSING)])


def test_searches_and_bootstraps_report_in_their_results():
    search = MixtureSearch([1, 3], covariance_types=["VVV"], random_state=0)
    assert not warnings_of(lambda: search.fit(COLLAPSING))
    assert "Component(s)" in search.results_["problem"][1]
    model = GaussianMixture(2, random_state=0).fit(X)
    assert not warnings_of(lambda: bootstrap_parameters(model, X, n_replicates=3, random_state=0))


def test_fits_on_a_cluster_warn_once():
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        blocks = da.from_array(COLLAPSING, chunks=(200, 3))
        model = DaskGaussianMixture(3, random_state=0, client=client)
        ours = [w for w in warnings_of(lambda: model.fit(blocks)) if issubclass(w.category, ConvergenceWarning)]
    assert [w.category for w in ours] == [DegenerateComponentWarning]


def test_a_model_with_a_warning_is_fitted():
    with pytest.warns(DegenerateComponentWarning, match=r"^Component\(s\) \d collapsed"):
        model = GaussianMixture(3, random_state=0).fit(COLLAPSING)
    assert model.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(reg_covar=1.0, warm_start=True)
        with pytest.raises(DegenerateComponentWarning):
            GaussianMixture(3, random_state=0).fit(COLLAPSING)
