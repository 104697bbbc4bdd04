"""The compiled passes against the naive twin: layouts, dtypes, shapes around tile edges. Also without a compiler."""

import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import reference
from fastgmm import kernels
from fastgmm.covariance import get_model
from fastgmm.kernels import kmeans, numerics, passes, responsibilities, rows, simd, tied, tiles, transposition
from helpers import COVARIANCE_TYPES, full_covariances, random_parameters, random_rows

DTYPES = [np.float64, np.float32]
TOLERANCE = {np.float64: 1e-12, np.float32: 2e-4}
JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") != "1"
# Without the compiler every number is a Python object: small shapes only.
T = 512 if JIT else 64
SIZES = [1, 2, 63, 64, 65, T - 1, T, T + 1, 2 * T + 3] if JIT else [1, 63, 65]
SHAPES = [(1, 1), (1, 4), (2, 3), (3, 2), (4, 5), (5, 4), (3, 7), (2, 8), (3, 13)] if JIT else [(1, 1), (3, 2), (2, 7)]


def expected(parameters, X, sample_weight=None):
    """Weight sums, first moments, scatter about the means and log-likelihood by the naive twin."""
    arguments = (parameters.weights, parameters.means, full_covariances(parameters))
    resp, log_prob_norm = reference.responsibilities(X, *arguments)
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    return *reference.moments(X, resp, parameters.means, weight), (weight * log_prob_norm).sum(), resp, log_prob_norm


def assert_close(actual, desired, dtype, scale=None):
    """Equal up to rounding that grows with the size of what was added up."""
    scale = max(1.0, np.abs(desired).max()) if scale is None else scale
    np.testing.assert_allclose(actual, desired, rtol=0, atol=TOLERANCE[dtype] * scale)


def compare(covariance_type, parameters, X, dtype, sample_weight=None):
    layout = get_model(covariance_type).layout
    operands = parameters.operands(dtype)
    X = X.astype(dtype)
    sums, first, scatter, log_likelihood = kernels.accumulate(layout, X, operands, sample_weight=sample_weight)
    n_k, f_k, S_k, total, _, _ = expected(parameters, X, sample_weight)
    size = len(X) if sample_weight is None else sample_weight.sum()
    assert_close(sums, n_k, dtype, size)
    if layout == "tied":  # about the origin
        origin = np.tile(operands.origin.astype(float), (len(n_k), 1))
        resp = expected(parameters, X)[4]
        _, f_k, S_k = reference.moments(X, resp, origin, sample_weight)
        S_k = S_k.sum(axis=0, keepdims=True)
    spread = 1 + np.abs(X - operands.origin).max()
    assert_close(first, f_k, dtype, size * spread)
    S_k = np.diagonal(S_k, axis1=1, axis2=2)[:, np.newaxis] if layout == "diagonal" else S_k
    assert_close(scatter, S_k, dtype, size * spread**2)
    assert_close(log_likelihood, total, dtype, size * (1 + abs(total) / size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("n_components", "n_features"), SHAPES)
def test_accumulate_around_tile_edges(covariance_type, n_components, n_features, dtype):
    parameters = random_parameters(covariance_type, n_components, n_features)
    for n_samples in SIZES:
        compare(covariance_type, parameters, random_rows(parameters, n_samples), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_accumulate_with_weights(covariance_type, dtype):
    parameters = random_parameters(covariance_type, 3, 4)
    X = random_rows(parameters, SIZES[-1])
    weights = np.random.default_rng(1).integers(0, 4, size=len(X)).astype(float)
    compare(covariance_type, parameters, X, dtype, weights)


@pytest.mark.skipif(not JIT, reason="many rows")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_accumulate_over_many_chunks(covariance_type, dtype):
    parameters = random_parameters(covariance_type, 4, 3)
    compare(covariance_type, parameters, random_rows(parameters, 50_001), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_given_labels_and_responsibilities(covariance_type, dtype):
    layout, n_features = get_model(covariance_type).layout, 5
    rng = np.random.default_rng(0)
    X = rng.normal(size=(SIZES[-1], n_features)).astype(dtype)
    labels = rng.integers(-1, 3, size=len(X))
    resp = rng.dirichlet(np.ones(3), size=len(X)).astype(dtype)
    weights = rng.integers(0, 3, size=len(X)).astype(float)
    points = rng.normal(size=(3, n_features)).astype(dtype)
    operands = kernels.Operands(np.zeros(n_features, dtype), points, np.zeros((1, 1, 1), dtype), np.zeros(3, dtype))
    one_hot = (labels[:, np.newaxis] == np.arange(3)).astype(float)
    for given, r in (({"labels": labels}, one_hot), ({"resp": resp}, resp)):
        sums, first, scatter, log_likelihood = kernels.accumulate(layout, X, operands, sample_weight=weights, **given)
        about = np.zeros_like(points) if layout == "tied" else points
        n_k, f_k, S_k = reference.moments(X, r, about, weights)
        S_k = {"full": S_k, "diagonal": np.diagonal(S_k, axis1=1, axis2=2)[:, np.newaxis], "tied": S_k.sum(0)[None]}
        assert_close(sums, n_k, dtype)
        assert_close(first, f_k, dtype, len(X))
        assert_close(scatter, S_k[layout], dtype, 5 * len(X))
        assert log_likelihood == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("n_components", "n_features"), SHAPES)
def test_score_around_tile_edges(covariance_type, n_components, n_features, dtype):
    parameters = random_parameters(covariance_type, n_components, n_features, seed=1)
    layout, operands = get_model(covariance_type).layout, parameters.operands(dtype)
    for n_samples in SIZES:
        X = random_rows(parameters, n_samples, seed=2).astype(dtype)
        resp, log_prob_norm = expected(parameters, X)[-2:]
        out = {
            "log_prob_norm": np.empty(n_samples, dtype),
            "max_log_resp": np.empty(n_samples, dtype),
            "labels": np.empty(n_samples, np.int64),
            "resp": np.empty((n_samples, n_components), dtype),
        }
        kernels.score(layout, X, operands, **out)
        assert_close(out["log_prob_norm"], log_prob_norm, dtype)
        assert_close(out["resp"], resp, dtype)
        assert_close(np.exp(out["max_log_resp"]), resp.max(axis=1), dtype)
        np.testing.assert_array_equal(out["labels"], out["resp"].argmax(axis=1))
        for name in out:  # each alone
            alone = np.empty_like(out[name])
            kernels.score(layout, X, operands, **{name: alone})
            np.testing.assert_array_equal(alone, out[name])


def test_labels_take_the_first_of_equal_components():
    operands = kernels.Operands(np.zeros(1), np.zeros((3, 1)), np.ones((3, 1, 1)), np.array([-1.0, 0.0, 0.0]))
    labels = np.empty(70, np.int64)
    kernels.score("full", np.zeros((70, 1)), operands, labels=labels)
    assert (labels == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["full", "diagonal", "tied"])
def test_row_far_from_everything_gets_its_nearest_component(layout, dtype):
    """Squares of its distances overflow; its Mahalanobis distances, scaled down, still have an order."""
    factor = {
        "full": np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.1, 0.0], [0.0, 10.0]]]),
        "diagonal": np.array([[[1.0, 1.0]], [[0.1, 10.0]]]),
        "tied": np.array([[[1.0, 0.0], [0.0, 1.0]]]),
    }[layout].astype(dtype)
    means = np.array([[-3.0, 0.0], [3.0, 0.0]], dtype)
    operands = kernels.Operands(np.zeros(2, dtype), means, factor, np.log(np.array([0.5, 0.5], dtype)))
    far = dtype(1e300 if dtype is np.float64 else 1e30)
    X = np.zeros((130, 2), dtype)
    X[0], X[65], X[129] = [far, 0], [0, far], [-far, 0]
    log_prob_norm, resp = np.empty(130, dtype), np.empty((130, 2), dtype)
    labels, max_log_resp = np.empty(130, np.int64), np.empty(130, dtype)
    kernels.score(layout, X, operands, log_prob_norm=log_prob_norm, resp=resp, labels=labels, max_log_resp=max_log_resp)
    # Along the first axis component 1 is ten times as wide, along the second ten times as narrow. With one factor for
    # both, means 6 apart are equally near to such rows, and the first is taken.
    nearest = {"tied": [0, 0, 0]}.get(layout, [1, 0, 1])
    rows = [0, 65, 129]
    np.testing.assert_array_equal(labels[rows], nearest)
    np.testing.assert_array_equal(resp[rows], np.eye(2)[nearest])
    np.testing.assert_array_equal(max_log_resp[rows], 0)
    assert np.isneginf(log_prob_norm[rows]).all()
    others = np.setdiff1d(np.arange(130), rows)
    assert np.isfinite(log_prob_norm[others]).all()
    np.testing.assert_array_equal(resp[others], np.tile(resp[1], (127, 1)))


@pytest.mark.parametrize("layout", ["full", "diagonal", "tied"])
def test_nan_is_not_hidden(layout):
    shape = {"full": (2, 2, 2), "diagonal": (2, 1, 2), "tied": (1, 2, 2)}[layout]
    factor = np.ones(shape) if layout == "diagonal" else np.broadcast_to(np.eye(2), shape).copy()
    operands = kernels.Operands(np.zeros(2), np.eye(2), factor, np.zeros(2))
    X = np.zeros((10, 2))
    X[3, 1] = np.nan
    log_prob_norm = np.empty(10)
    kernels.score(layout, X, operands, log_prob_norm=log_prob_norm)
    assert np.isnan(log_prob_norm[3])
    assert np.isfinite(np.delete(log_prob_norm, 3)).all()
    assert np.isnan(kernels.accumulate(layout, X, operands)[3])


def test_row_of_weight_0_adds_nothing_however_far_it_is():
    operands = kernels.Operands(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1, 1)), np.zeros(1))
    X = np.array([[1.0], [1e300], [2.0]])
    without = kernels.accumulate("diagonal", X[[0, 2]], operands, sample_weight=np.array([1.0, 1.0]))
    with_far = kernels.accumulate("diagonal", X, operands, sample_weight=np.array([1.0, 0.0, 1.0]))
    for a, b in zip(with_far, without, strict=True):
        np.testing.assert_array_equal(a, b)


def operation(emit):
    """A tile operation that applies an emitting function of one vector to every entry of a tile."""

    def naive(x, n, y_out):
        pass

    def emit_all(e, x, n, y_out):
        for i in e.each(0, n, e.width):
            y_out[i] = emit(e, x[i])

    applied = simd.tile_operation(naive)(emit_all)
    return numba.njit(lambda x, n, y_out: applied(x, n, y_out))


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_exp(dtype):
    low = -679 if dtype is np.float64 else -74
    special = [0.0, -1e30, -np.inf, np.nan, -1e-300, -1e-20]
    x = np.concatenate([np.linspace(low, 0, 4096 - 64), np.resize(special, 64)]).astype(dtype)
    result = np.empty_like(x)
    operation(numerics.exp)(x, len(x), result)
    truth = np.exp(x.astype(np.longdouble))
    regular = slice(0, 4096 - 64)
    assert np.abs(result[regular] / truth[regular] - 1).max() < (3e-16 if dtype is np.float64 else 2e-7)
    np.testing.assert_array_equal(result[-64:][:6], [1, 0, 0, np.nan, 1, 1])


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_log(dtype):
    x = np.concatenate([1 + np.geomspace(1e-6, 1, 512), np.geomspace(1e-30, 1e30, 3582), [1, np.nan]]).astype(dtype)
    result = np.empty_like(x)
    operation(numerics.log)(x, len(x), result)
    truth = np.log(x[:-2].astype(np.longdouble))
    error = np.abs(result[:-2] - truth) / np.maximum(np.abs(truth), np.finfo(dtype).tiny)
    assert error[truth != 0].max() < (5e-16 if dtype is np.float64 else 3e-7)
    assert result[-2] == 0
    assert np.isnan(result[-1])


def compiled(operation, naive):
    """An operation as a kernel calls it."""
    names = ", ".join(inspect.signature(naive).parameters)
    namespace = {"operation": operation}
    exec(f"def call({names}):\n    operation({names})", namespace)
    return numba.njit(namespace["call"])


LAYOUT_SHAPES = [(k, d) for k in (1, 2, 3, 5, 6, 7) for d in (1, 4, 7)] + [(2, d) for d in range(1, 19)]


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["full", "diagonal", "tied"])
def test_operations_of_a_layout_against_their_naive_twins(layout, dtype):
    """For every rest of K and D by the sizes of blocks, unrolled or not."""
    module = passes.LAYOUTS[layout]
    n, width = 128, 136
    for n_components, n_features in LAYOUT_SHAPES:
        rng = np.random.default_rng(n_features)
        shape = {"full": (n_components, n_features), "diagonal": (n_components, 1), "tied": (1, n_features)}[layout]
        x = rng.normal(size=(n_features, width)).astype(dtype)
        means, factor = rng.normal(size=(n_components, n_features)), rng.normal(size=(*shape, n_features))
        factor = factor if layout == "diagonal" else np.tril(factor)
        means, factor = means.astype(dtype), factor.astype(dtype)
        log_coef = rng.normal(size=n_components).astype(dtype)
        resp = rng.uniform(size=(n_components, width)).astype(dtype)
        work = np.full((module.work_rows(n_components, n_features), width), np.nan, dtype)
        operations = module.operations(n_features)
        results = []
        for log_prob_tile in (compiled(operations["log_prob_tile"], module.log_prob_tile), module.log_prob_tile):
            top, log_prob = np.zeros(width, dtype), np.zeros((n_components, width), dtype)
            log_prob_tile(x, n, means, factor, log_coef, work, top, log_prob)
            results.append((top, log_prob))
        for a, b in zip(*results, strict=True):
            assert_close(a[..., :n], b[..., :n], dtype)
            np.testing.assert_array_equal(a[..., n:], 0)  # nothing beyond the columns in use
        add_moments, naive = (
            (numba.njit(operations["add_moments"].py_func), _naive_tied_moments)
            if layout == "tied"
            else (compiled(operations["add_moments"], module.add_moments), module.add_moments)
        )
        results = []
        for add in (add_moments, naive):
            sums, first = np.ones(n_components), np.ones((n_components, n_features))
            scatter = np.ones((*shape, n_features))
            add(x, n, resp.copy(), means, work, sums, first, scatter)
            results.append((sums, first, scatter if layout == "diagonal" else np.tril(scatter)))
        for a, b in zip(*results, strict=True):
            assert_close(a, b, dtype, n)


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "n_features"), [("full", 7), ("full", 18), ("diagonal", 34)])
def test_rows_that_do_not_matter_are_left_out_of_nothing_that_shows(layout, n_features, dtype):
    """Components with no row, one, a few, many and all; tiny responsibilities beside large ones, and alone."""
    module, n_components, n, width = passes.LAYOUTS[layout], 35, 192, 200
    rng = np.random.default_rng(0)
    x, means = rng.normal(size=(n_features, width)).astype(dtype), rng.normal(size=(n_components, n_features))
    resp = np.zeros((n_components, width))
    for k in range(n_components):
        here = rng.permutation(n)[: [0, 1, 2, 5, 17, 30, n][k % 7]]
        resp[k, here] = rng.uniform(size=len(here)) * 10.0 ** -(k % 3)
    resp[5] += 1e-30
    resp[6, :n] = 1e-14
    assert module.work_rows(n_components, n_features) > n_features  # packing is what runs
    work = np.full((module.work_rows(n_components, n_features), width), np.nan, dtype)
    given = (np.sqrt(resp) if module.ROOT else resp).astype(dtype)
    results = []
    for add in (compiled(module.operations(n_features)["add_moments"], module.add_moments), module.add_moments):
        shape = (n_components, n_features if layout == "full" else 1, n_features)
        results.append((np.zeros(n_components), np.zeros((n_components, n_features)), np.zeros(shape)))
        add(x, n, given.copy(), means.astype(dtype), work, *results[-1])
    for a, b in zip(*results, strict=True):
        a, b = (np.tril(array) if array.ndim == 3 and layout == "full" else array for array in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())
        for k in (1, 6):  # relative to themselves
            np.testing.assert_allclose(a[k], b[k], rtol=0, atol=10 * TOLERANCE[dtype] * np.abs(b[k]).max())


def _naive_tied_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    tied.add_first_moments(x, n, resp, weight_sums_out, first_out)
    scatter_out[0] += np.tril((resp[:, :n].sum(axis=0) * x[:, :n]) @ x[:, :n].T)


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_components", [1, 2, 3, 10])
def test_responsibilities_against_their_naive_twins(n_components, dtype):
    rng = np.random.default_rng(0)
    n, width = 192, 200
    weight = rng.uniform(size=width).astype(dtype)
    weight[5] = 0
    log_prob = (20 * rng.normal(size=(n_components, width)) - 500).astype(dtype)
    log_prob[0, 7] = -np.inf if n_components > 1 else -3
    top = log_prob.max(axis=0)
    for name, operation in responsibilities.operations().items():
        naive = getattr(responsibilities, name)
        results = []
        for call in (compiled(operation, naive), naive):
            resp, norm = log_prob.copy(), np.zeros(width, dtype)
            call(resp, n, top, weight, norm)
            results.append((resp, norm))
        (resp, norm), (expected, expected_norm) = results
        np.testing.assert_allclose(norm, expected_norm, rtol=4 * np.finfo(dtype).eps)
        np.testing.assert_allclose(resp[:, :n], expected[:, :n], rtol=100 * TOLERANCE[dtype], atol=1e-18)
        np.testing.assert_array_equal(resp[:, n:], log_prob[:, n:])


def test_factors_of_covariances():
    rng = np.random.default_rng(0)
    for n_features in (1, 2, 5, 12):
        root = rng.normal(size=(6, n_features, n_features)) + 2 * np.eye(n_features)
        covariances = root @ root.swapaxes(1, 2)
        covariances[2] = np.ones((n_features, n_features)) if n_features > 1 else 0  # singular
        covariances[4, -1, -1] = np.nan
        factor, well_defined = kernels.factor_covariances(covariances)
        np.testing.assert_array_equal(well_defined, [True, True, False, True, False, True])
        for k in np.flatnonzero(well_defined):
            np.testing.assert_allclose(factor[k], np.tril(factor[k]))
            np.testing.assert_allclose(factor[k] @ covariances[k] @ factor[k].T, np.eye(n_features), atol=1e-10)
            inverse = np.linalg.inv(np.linalg.cholesky(covariances[k]))
            np.testing.assert_allclose(factor[k], inverse, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_of_kmeans_against_their_naive_twins(dtype):
    n, width = 128, 136
    distances_tile, nearest_tile, add_to_centres, add_rows_to_centres = (
        compiled(getattr(kmeans, f"emit_{naive.__name__}"), naive)
        for naive in (kmeans.distances_tile, kmeans.nearest_tile, kmeans.add_to_centres, kmeans.add_rows_to_centres)
    )
    for n_centres, n_features in [(0, 2), *itertools.product((1, 2, 3, 5, 8, 15), (1, 3, 4, 23))]:
        rng = np.random.default_rng(n_centres)
        x, centres = rng.normal(size=(n_features, width)).astype(dtype), rng.normal(size=(n_centres, n_features))
        centres = centres.astype(dtype)
        label, weight = (
            rng.integers(0, max(1, n_centres), size=width).astype(dtype),
            rng.uniform(size=width).astype(dtype),
        )
        weight[:: 5 if n_centres else 1] = 0
        x[:, 5] = np.finfo(dtype).max  # far, and of weight 0
        results = []
        for one in (distances_tile, kmeans.distances_tile):
            results.append(np.zeros((n_centres, width), dtype))
            with np.errstate(over="ignore"):
                one(x, n, centres, results[-1])
        assert_close(results[0][:, :5], results[1][:, :5], dtype, scale=20)
        assert_close(results[0][:, 6:], results[1][:, 6:], dtype, scale=20)
        results = []
        for one in (nearest_tile, kmeans.nearest_tile):
            results.append(np.zeros((2, width), dtype))
            with np.errstate(over="ignore"):
                one(x, n, centres, *results[-1])
        np.testing.assert_allclose(*results, rtol=TOLERANCE[dtype])
        results = []
        for one, rows_or_tile in (
            (add_to_centres, x), (kmeans.add_to_centres, x), (add_rows_to_centres, x.T.copy()),
        ):  # fmt: skip
            results.append((np.ones(n_centres), np.ones((n_centres, n_features))))
            one(rows_or_tile, n, label, weight, centres, *results[-1])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert_close(a, b, dtype, scale=n)


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("dtype", DTYPES)
def test_transposition_against_its_naive_twins(dtype):
    load_rows = compiled(transposition.emit_load_rows, transposition.load_rows)
    store_rows = compiled(transposition.emit_store_rows, transposition.store_rows)
    rng = np.random.default_rng(0)
    for n_features in (*range(1, 19), 33):
        for n in (16, 48):
            X, origin = rng.normal(size=(n + 3, n_features)).astype(dtype), rng.normal(size=n_features).astype(dtype)
            tiles_loaded = [np.zeros((n_features, n + 8), dtype) for _ in range(2)]
            for one, tile in zip((load_rows, transposition.load_rows), tiles_loaded, strict=True):
                one(X.reshape(-1), 2 * n_features, n_features, n, origin, tile)
            np.testing.assert_array_equal(*tiles_loaded)
            np.testing.assert_array_equal(tiles_loaded[0][:, :n], (X[2 : n + 2] - origin).T)
            stored = [np.zeros((n + 1, n_features), dtype) for _ in range(2)]
            for one, out in zip((store_rows, transposition.store_rows), stored, strict=True):
                one(tiles_loaded[0], n, out)
            np.testing.assert_array_equal(*stored)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_clusters", "n_features"), [(1, 1), (2, 3), (5, 4), (4, 6)])
def test_kmeans_steps(n_clusters, n_features, dtype):
    rng = np.random.default_rng(0)
    origin = rng.normal(size=n_features).astype(dtype)
    points = rng.normal(size=(n_clusters, n_features)).astype(dtype)
    for n_samples in SIZES:
        X = rng.normal(size=(n_samples, n_features)).astype(dtype)
        weights = rng.integers(0, 3, size=n_samples).astype(float)
        distances = reference.squared_distances(X.astype(float) - origin, points)
        labels, nearest = np.empty(n_samples, np.int32), np.empty(n_samples, dtype)
        sums, first, inertia = kernels.lloyd_step(X, weights, origin, points, labels=labels, distances=nearest)
        assert_close(nearest, distances.min(axis=1), dtype)
        np.testing.assert_array_equal(labels, distances.argmin(axis=1))
        one_hot = (labels[:, np.newaxis] == np.arange(n_clusters)).astype(float)
        expected_sums, expected_first, _ = reference.moments(X - origin, one_hot, points, weights)
        assert_close(sums, expected_sums, dtype)
        assert_close(first, expected_first, dtype, n_samples)
        assert_close(inertia, (weights * distances.min(axis=1)).sum(), dtype, n_samples)

        closest = distances[:, 0].astype(dtype)
        latest, candidates = points[:1] + dtype(0.5), points[1:]
        potential, rows_a_chunk = kernels.seed_step(X, weights, origin, candidates, latest, closest)
        updated = np.minimum(distances[:, 0], reference.squared_distances(X.astype(float) - origin, latest)[:, 0])
        assert_close(closest, updated, dtype)
        with_candidates = np.minimum(updated[:, np.newaxis], np.column_stack([updated, distances[:, 1:]]))
        assert_close(potential.sum(axis=0), weights @ with_candidates, dtype, n_samples)
        for c, chunk in enumerate(potential):
            part = slice(c * rows_a_chunk, (c + 1) * rows_a_chunk)
            assert_close(chunk[0], weights[part] @ updated[part], dtype, n_samples)


def test_random_responsibilities_depend_on_contents_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    X[7], X[200] = X[3], X[3]
    resp = kernels.random_resp(X, 4, 11, 0, 300)
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-6)
    assert (resp > 0).all()
    np.testing.assert_array_equal(resp[7], resp[3])
    np.testing.assert_array_equal(resp[200], resp[3])
    order = rng.permutation(300)
    np.testing.assert_array_equal(kernels.random_resp(X[order], 4, 11, 0, 300), resp[order])
    np.testing.assert_array_equal(kernels.random_resp(X, 4, 11, 100, 170), resp[100:170])
    np.testing.assert_array_equal(kernels.random_resp(X.astype(float), 4, 11, 0, 300).astype(np.float32), resp)
    assert (kernels.random_resp(X, 4, 12, 0, 300) != resp).any(axis=1).all()
    # Uniform numbers divided by their sum have mean 1/K, and here every pair of rows is about as different as any.
    assert np.abs(resp.mean(axis=0) - 0.25).max() < 0.03


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_memory_layout_of_rows_gives_the_same_bits(dtype, tmp_path):
    parameters = random_parameters("full", 3, 5)
    X = random_rows(parameters, SIZES[-1]).astype(dtype)
    operands = parameters.operands(dtype)
    result = kernels.accumulate("full", X, operands)
    wide = np.zeros((len(X), 10), dtype)
    wide[:, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    swapped = X.astype(X.dtype.newbyteorder())
    unaligned = np.frombuffer(b"\0" + X.tobytes(), dtype=np.uint8)[1:].view(dtype).reshape(X.shape)
    for view in (np.asfortranarray(X), wide[:, ::2], X[::-1][::-1], read_only, mapped, swapped, unaligned):
        for a, b in zip(kernels.accumulate("full", view, operands), result, strict=True):
            np.testing.assert_array_equal(a, b)
    if JIT:
        assert len(passes.kernel("accumulate", "full", np.dtype(dtype), 5).signatures) == 1


def test_rows_of_the_wrong_kind_are_refused():
    operands = random_parameters("full", 2, 2).operands(np.float64)
    for bad in (np.zeros(4), np.zeros((4, 2), int), np.zeros((2, 2, 2))):
        with pytest.raises(TypeError, match="two-dimensional array of float64 or float32"):
            kernels.accumulate("full", bad, operands)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        kernels.accumulate("full", np.zeros((4, 2)), operands, sample_weight=np.ones(3))


def test_tiling_depends_on_the_shape_alone_and_covers_all_rows():
    for n_samples in (1, 64, 1000, 123_457, 10_000_000):
        for scratch_rows, partial_bytes in ((10, 100), (500, 5_000_000)):
            cut = rows.tiling(n_samples, scratch_rows, 8, partial_bytes)
            assert (cut.n_chunks - 1) * cut.rows_a_chunk < n_samples <= cut.n_chunks * cut.rows_a_chunk
            assert cut.width <= cut.rows_a_chunk
            assert cut.rows_a_chunk % tiles.COLUMN_MULTIPLE == 0
            assert cut.width % tiles.COLUMN_MULTIPLE == 0
            assert cut.n_chunks <= rows.MAX_CHUNKS


@pytest.mark.skipif(not JIT, reason="is what this test runs")
def test_kernels_without_a_compiler():
    """The same tests with NUMBA_DISABLE_JIT=1: kernels are legal Python, register tiles have a twin."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"}
    here = Path(__file__)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::RuntimeWarning",
        str(here),
    ]
    done = subprocess.run(command, env=environment, cwd=here.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
