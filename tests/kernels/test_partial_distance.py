"""Partial-distance search computes the log-probabilities of all components that may be the nearest, correctly."""

import numpy as np
import pytest

from fastgmm import engine, kernels
from fastgmm.engine import MixtureParameters
from fastgmm.kernels.labels import partial_distance, single_precision
from fastgmm.kernels.layouts import full
from helpers import DTYPES, JIT, TOLERANCE, compiled, random_parameters, random_rows

pytestmark = pytest.mark.skipif(not JIT, reason="emitted code")
N, WIDTH = 192, 208


def results_of_both(dtype, n_components, n_features, spread, *, sort=False, change=lambda *_: None):
    """Return the results of the operation and of its naive twin for one tile, and all log-probabilities."""
    rng = np.random.default_rng(n_features)
    means = spread * rng.normal(size=(n_components, n_features)) + 0.5
    labels = rng.integers(0, n_components, WIDTH)
    x = means[np.sort(labels) if sort else labels] + rng.normal(size=(WIDTH, n_features))
    x = np.ascontiguousarray(x.T, dtype)
    factor = np.tril(rng.normal(size=(n_components, n_features, n_features)) / n_features + np.eye(n_features))
    means, factor = means.astype(dtype), factor.astype(dtype)
    log_coef = rng.normal(size=n_components).astype(dtype)
    change(x, log_coef)
    results = []
    for call in (
        compiled(partial_distance.emit_highest_log_prob_tile, partial_distance.highest_log_prob_tile),
        partial_distance.highest_log_prob_tile,
    ):
        work = np.full((partial_distance.work_rows(n_features), WIDTH), np.nan, dtype)
        top, log_prob = np.zeros(WIDTH, dtype), np.zeros((n_components, WIDTH), dtype)
        count = np.zeros(2, np.int64)
        call(x, N, means, factor, log_coef, work, x.reshape(-1), 0, n_features, top, log_prob, count)
        np.testing.assert_array_equal(log_prob[:, N:], 0)
        results.append((top, log_prob, count[0]))
    top, log_prob = np.zeros(WIDTH, dtype), np.zeros((n_components, WIDTH), dtype)
    full.log_prob_tile(x, N, means, factor, log_coef, None, None, 0, n_features, top, log_prob)
    return *results, (top[:N], log_prob[:, :N])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 4.0])
def test_components_that_may_be_the_nearest(spread, sort, dtype):
    """Nearly all components are completed, or few, or whole tiles belong to one component."""
    for n_components, n_features in ((1, 9), (2, 20), (3, 5), (6, 8), (9, 13), (7, 22), (5, 33)):
        (top, log_prob, count), expected, (highest, whole) = results_of_both(
            dtype, n_components, n_features, spread, sort=sort
        )
        log_prob, scale = log_prob[:, :N], TOLERANCE[dtype] * (1 + np.abs(whole).max())
        right = np.abs(log_prob - whole) <= scale
        np.testing.assert_allclose(top[:N], highest, rtol=0, atol=scale)
        np.testing.assert_allclose(log_prob.max(axis=0), highest, rtol=0, atol=scale)
        assert (right | (log_prob < highest + scale)).all()
        assert (log_prob >= whole - scale).all()
        # The twin compares bounds with the component that is nearest by half of the features, the operation with the
        # nearest so far: it completes no more components, and no others except by rounding.
        theirs = np.abs(expected[1][:, :N] - whole) <= scale
        assert (theirs | ~right | (log_prob >= highest - scale)).all()
        assert right.sum() >= count >= N
        assert count <= expected[2] + 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", [3, 20])
def test_rows_with_nan_and_components_of_weight_zero(feature, dtype):
    def change(x, log_coef):
        log_coef[1] = -np.inf
        x[feature, 7] = np.nan

    (_, log_prob, _), _, (highest, whole) = results_of_both(dtype, 6, 21, 1.0, change=change)
    assert (log_prob[1, :7] == -np.inf).all()
    assert np.isnan(log_prob[:, 7]).all()
    ordinary = np.arange(N) != 7
    scale = TOLERANCE[dtype] * np.abs(whole[0, ordinary]).max()
    np.testing.assert_allclose(log_prob[:, :N].max(axis=0)[ordinary], highest[ordinary], rtol=0, atol=scale)


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n_features", [20, 27, 40])
def test_labels(n_features, spread, monkeypatch):
    """The labels equal those of double precision, also where most tiles are not searched."""
    monkeypatch.setattr(single_precision, "pays", lambda *_: True)
    used, bound = [], single_precision._kernel
    monkeypatch.setattr(single_precision, "_kernel", lambda *key: used.append(key[2]) or bound(*key))
    parameters = random_parameters("full", 9, n_features, spread=spread)
    for n_rows in (1, 700, 20_000):
        X = random_rows(parameters, n_rows)
        labels, norm = np.empty(n_rows, np.int64), np.empty(n_rows)
        kernels.score("full", X, parameters.operands(X.dtype), labels=labels, log_prob_norm=norm)
        for rows in (X, np.asfortranarray(X)):
            np.testing.assert_array_equal(engine.predict(parameters, rows), labels)
    assert used
    assert all(used)


@pytest.mark.parametrize("feature", [3, 13, 23])
def test_a_row_of_nan_has_the_label_0(feature):
    """The NaN may be in any feature; the row's partial distances are finite up to it."""
    parameters = random_parameters("full", 8, 24)
    X = random_rows(parameters, 30_000)
    expected = engine.predict(parameters, X)
    X[::7, feature] = np.nan
    expected[::7] = 0
    np.testing.assert_array_equal(engine.predict(parameters, X), expected)


def test_ties_go_to_the_first():
    means = np.zeros((7, 24))
    means[:, -1] = [0, 3, 0, 3, 0, 3, 0]  # in the second half; all are equally near by the first half
    parameters = MixtureParameters.create(np.full(7, 1 / 7), means, np.tile(np.eye(24), (7, 1, 1)), "full")
    X = np.random.default_rng(0).normal(size=(30_000, 24)) + means[np.arange(30_000) % 7]
    labels = engine.predict(parameters, X)
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal(labels == 1, X[:, -1] > 1.5)
