"""Labels in single precision equal those in double precision for all rows: the bound on the error holds."""

import numpy as np
import pytest

from fastgmm import engine, kernels
from fastgmm.engine import MixtureParameters
from fastgmm.kernels.compiler.runtime import bind
from fastgmm.kernels.labels import error_bound, single_precision
from fastgmm.kernels.layouts import passes
from helpers import COVARIANCE_TYPES, JIT, random_parameters, random_rows

pytestmark = pytest.mark.skipif(not JIT, reason="tests compiled kernels")


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(single_precision, "pays", lambda dtype, n_samples, multiply_adds: dtype == np.float64)


def bound_errors_in_python(layout):
    return bind(
        error_bound.bound_errors,
        "plain",
        entry_sum=error_bound.ENTRY_SUMS[layout].py_func,
        in_range=error_bound.in_range.py_func,
    )


def in_double(parameters, X):
    """Return labels from the score pass, which computes in double precision if more than labels is requested."""
    labels, norm = np.empty(len(X), np.int64), np.empty(len(X))
    kernels.score(parameters.model.layout, X, parameters.operands(X.dtype), labels=labels, log_prob_norm=norm)
    return labels


@pytest.mark.parametrize("n_features", [1, 3, 6, 13, 33])
@pytest.mark.parametrize("n_components", [1, 2, 9])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_labels(covariance_type, n_components, n_features):
    parameters = random_parameters(covariance_type, n_components, n_features)
    many = [100_000] if (n_features, n_components) == (13, 9) else []  # several chunks
    for n_rows in (1, 63, 64, 1500, *many):
        X = random_rows(parameters, n_rows)
        for rows in (X, np.asfortranarray(X)):
            np.testing.assert_array_equal(engine.predict(parameters, rows), in_double(parameters, X))


def test_ties_go_to_the_first():
    means = np.zeros((5, 8))
    means[:, 0] = [0, 3, 0, 3, 0]
    parameters = MixtureParameters.create(np.full(5, 0.2), means, np.ones((5, 8)), "diag")
    X = np.random.default_rng(0).normal(size=(5000, 8)) + means[np.arange(5000) % 5]
    labels = engine.predict(parameters, X)
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal(labels, in_double(parameters, X))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_components_that_single_precision_cannot_distinguish(covariance_type):
    """Log-probabilities that differ by less than float32's rounding, also far from zero and at tiny scales."""
    rng = np.random.default_rng(0)
    base = random_parameters(covariance_type, 6, 7)
    for scale, offset in ((1.0, 0.0), (1e-9, 1.0), (1e-3, 1e5), (1e12, 0.0)):
        means = offset + scale * 1e-6 * rng.normal(size=(6, 7))
        covariances = scale**2 * np.ones_like(base.covariances[..., :1]) if covariance_type == "diag" else None
        if covariance_type == "diag":
            covariances = np.full((6, 7), scale**2)
        else:
            covariances = scale**2 * base.covariances
        parameters = MixtureParameters.create(np.full(6, 1 / 6), means, covariances, covariance_type)
        X = offset + scale * rng.normal(size=(4000, 7))
        labels = engine.predict(parameters, X)
        assert len(set(labels)) > 1
        np.testing.assert_array_equal(labels, in_double(parameters, X))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_rows_out_of_every_range(covariance_type):
    """Such rows fill a tile or stand among ordinary rows, where NaN is processed in single precision."""
    parameters = random_parameters(covariance_type, 4, 6)
    for value in (np.nan, np.inf, 1e20, 1e200, 0.0):
        X = random_rows(parameters, 2000)
        X[11, 2] = X[900] = X[1100:1102] = value
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(engine.predict(parameters, X), in_double(parameters, X))


@pytest.mark.parametrize("scales", [(2e38, 4e38), (1e-39, 1e-30), (1e-30, 1e-30), (1e38, 1e38)])
def test_parameters_out_of_the_range_of_single_precision(scales):
    """In float32 a mean of 4e38 is infinite, and so is a factor of 1e39."""
    deviations = np.ones((2, 6))
    deviations[:, 0] = scales
    means = np.zeros((2, 6))
    means[1, 0] = 2 * max(scales)
    parameters = MixtureParameters.create([0.5, 0.5], means, deviations**2, "diag")
    X = np.random.default_rng(0).normal(size=(500, 6))
    X[:, 0] = max(scales) * np.linspace(-1, 3, 500)
    labels = engine.predict(parameters, X)
    assert set(labels) == ({1} if scales[0] < 1e-30 else {0, 1})
    np.testing.assert_array_equal(labels, in_double(parameters, X))


def test_a_component_of_weight_0_has_no_rows():
    parameters = MixtureParameters.create([0.5, 0.0, 0.5], np.arange(18.0).reshape(3, 6), np.ones((3, 6)), "diag")
    X = parameters.means[np.arange(300) % 3] + 0.1
    labels = engine.predict(parameters, X)
    assert set(labels) == {0, 2}
    np.testing.assert_array_equal(labels, in_double(parameters, X))


@pytest.mark.parametrize("layout", ["full", "diagonal", "tied"])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_the_bound_holds_and_is_useful(layout, scale):
    """Compare with log-probabilities in double precision, whose own error is negligible here."""
    covariance_type = {"full": "full", "diagonal": "diag", "tied": "tied"}[layout]
    parameters = random_parameters(covariance_type, 5, 12)
    X = scale * random_rows(parameters, 512)
    operands = parameters.operands(np.float64)
    x = np.ascontiguousarray((X - operands.origin).T)
    single = [operand.astype(np.float32) for operand in operands[1:]]
    log_prob, log_prob_single = np.empty((5, 512)), np.empty((5, 512), np.float32)
    naive = passes.LAYOUTS[layout].log_prob_tile
    naive(x, 512, *operands[1:], None, None, 0, 0, np.empty(512), log_prob)
    naive(x.astype(np.float32), 512, *single, None, None, 0, 0, np.empty(512, np.float32), log_prob_single)
    slope, shift = np.empty(6, np.float32), np.empty(6, np.float32)
    bound_errors = bound_errors_in_python(layout)
    assert bound_errors(1, np.abs(x).max(axis=1), operands.means, operands.factor, operands.log_coef, slope, shift)
    bound = shift[:5, np.newaxis] - slope[:5, np.newaxis] * log_prob_single
    bound_of_any = shift[5] - slope[5] * log_prob_single
    error = np.abs(log_prob_single - log_prob)
    assert (error <= bound).all()
    assert (bound <= (1 + 1e-6) * bound_of_any).all()
    if scale == 1:
        assert (bound_of_any < 1e-3 * np.abs(log_prob) + 0.1).all()
        assert error.max() > 1e-3 * bound.max()


def test_no_bound_for_numbers_too_large_for_single_precision():
    bound_errors = bound_errors_in_python("diagonal")
    out = np.empty(2, np.float32), np.empty(2, np.float32)
    operands = np.zeros((1, 2)), np.ones((1, 1, 2)), np.zeros(1)
    assert bound_errors(1, np.array([1.0, 1e6]), *operands, *out)
    assert not bound_errors(0, np.array([1.0, 1e6]), *operands, *out)
    for magnitude in (1e16, np.inf, np.nan):
        assert not bound_errors(1, np.array([1.0, magnitude]), *operands, *out)


def test_label_operations_against_their_naive_twins():
    import numba

    rng = np.random.default_rng(0)
    log_prob = rng.normal(size=(7, 256)).astype(np.float32)
    log_prob[3, :100] = log_prob[5, :100]
    log_prob[2] = -np.inf
    slope, shift = (rng.uniform(0, 0.05, 8).astype(np.float32) for _ in range(2))
    slope[2] = shift[2] = 0
    slope[-1], shift[-1] = slope[:-1].max(), shift[:-1].max() + 0.1
    results = [np.empty((5, 256), np.float32) for _ in range(2)]
    by_component, by_one = (
        single_precision.emit_label_tile_by_component_bounds,
        single_precision.emit_label_tile_by_one_bound,
    )
    calls = numba.njit(lambda *arguments: by_component(*arguments)), numba.njit(lambda *arguments: by_one(*arguments))
    naive = single_precision.label_tile_by_component_bounds, single_precision.label_tile_by_one_bound
    for (each, one), (labels, certain, same_labels, surely, doubtful) in zip((naive, calls), results, strict=True):
        with np.errstate(invalid="ignore"):
            each(log_prob, 256, slope, shift, labels, certain)
            one(log_prob, 256, slope, shift, same_labels, surely, doubtful)
    for a, b in zip(results[0][:4], results[1][:4], strict=True):
        np.testing.assert_array_equal(a, b)
    labels, certain, same_labels, surely, doubtful = results[1]
    np.testing.assert_array_equal(labels, same_labels)
    assert 0 < surely.sum() < certain.sum() < 256
    assert (surely <= certain).all()
    assert doubtful[0] == results[0][4, 0] == 256 - surely.sum()


def test_a_useless_bound_of_one_component_does_not_spoil_those_of_the_others():
    """One component is so narrow that its bound exceeds all differences of log-probabilities."""
    rng = np.random.default_rng(0)
    means, covariances = 10 * rng.normal(size=(9, 12)), np.ones((9, 12))
    means[4], covariances[4] = 1e3, 1e-12
    parameters = MixtureParameters.create(np.full(9, 1 / 9), means, covariances, "diag")
    X = means[rng.integers(0, 9, 20_000)] + rng.normal(size=(20_000, 12))
    np.testing.assert_array_equal(engine.predict(parameters, X), in_double(parameters, X))


def test_largest_magnitudes_against_their_naive_twin():
    import numba

    x = np.random.default_rng(0).normal(size=(5, 192)) * np.geomspace(1e-8, 1e8, 5)[:, np.newaxis]
    x[1, 70], x[2, 3], x[3, 128:] = -1e9, np.nan, 1e30
    x[4] = np.nan
    operation = error_bound.emit_max_abs_tile
    compiled = numba.njit(lambda *arguments: operation(*arguments))
    results = [np.empty((1, 5)) for _ in range(2)]
    with np.errstate(invalid="ignore"):
        error_bound.max_abs_tile(x, 128, results[0])
    compiled(x, 128, results[1])
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[0][0, [1, 4]], [1e9, 0])
    assert results[0][0, 3] < 1e30


def test_single_precision_is_used_where_it_pays(monkeypatch):
    monkeypatch.undo()
    assert single_precision.pays(np.dtype(np.float64), 100_000, 1e9)
    assert not single_precision.pays(np.dtype(np.float32), 100_000, 1e9)
    assert not single_precision.pays(np.dtype(np.float64), 1_000_000, 1e9)  # few multiply-adds per row
    assert not single_precision.pays(np.dtype(np.float64), 100, 1e6)  # few multiply-adds in total
    parameters = random_parameters("full", 20, 20)
    X, calls = random_rows(parameters, 4000), []
    monkeypatch.setattr(single_precision, "label", lambda *arguments: calls.append(arguments))
    engine.predict(parameters, X)
    assert len(calls) == 1
    engine.predict(parameters, X.astype(np.float32))
    engine.predict(parameters, X[:10])
    engine.predict_proba(parameters, X)
    assert len(calls) == 1
