"""The emitted tile operations against their naive twins, one by one."""

import functools
import itertools

import numba
import numpy as np
import pytest

from fastgmm.kernels.clustering import kmeans
from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.layouts import full, passes, tied
from fastgmm.kernels.tiles import numerics, responsibilities, transposition
from helpers import DTYPES, JIT, TOLERANCE, assert_close, compiled

pytestmark = pytest.mark.skipif(not JIT, reason="emitted code")


def operation(emit):
    """Return a tile operation that applies an emitting function of one vector to every entry of a tile."""

    def naive(x, n, y_out):
        pass

    def emit_all(e, x, n, y_out):
        for i in e.each(0, n, e.width):
            y_out[i] = emit(e, x[i])

    applied = tile_operation(naive)(emit_all)
    return numba.njit(lambda x, n, y_out: applied(x, n, y_out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp(dtype):
    low = -679 if dtype is np.float64 else -74
    special = [0.0, -1e30, -np.inf, np.nan, -1e-300, -1e-20]
    x = np.concatenate([np.linspace(low, 0, 4096 - 64), np.resize(special, 64)]).astype(dtype)
    result = np.empty_like(x)
    operation(numerics.exp)(x, len(x), result)
    truth = np.exp(x.astype(np.longdouble))
    regular = slice(0, 4096 - 64)
    eps, of_log2_e = (3e-16, 2e-17) if dtype is np.float64 else (2e-7, 2e-8)
    assert (np.abs(result[regular] / truth[regular] - 1) < eps - of_log2_e * x[regular]).all()
    np.testing.assert_array_equal(result[-64:][:6], [1, 0, 0, 0, 1, 1])
    root = np.empty_like(x)
    operation(functools.partial(numerics.exp, power=0.5))(x, len(x), root)
    regular = truth > 2 * np.finfo(dtype).tiny
    np.testing.assert_allclose(root[regular] ** 2, result[regular], rtol=4 * eps - of_log2_e * low)


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


LAYOUT_SHAPES = [(k, d) for k in (1, 2, 3, 5, 6, 7) for d in (1, 4, 7)] + [(2, d) for d in range(1, 19)] + [(7, 21)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["full", "diagonal", "single scale", "tied"])
def test_operations_of_a_layout_against_their_naive_twins(layout, dtype):
    """K and D leave every remainder by the sizes of blocks; the code is specialised for D or not."""
    single, layout = layout == "single scale", layout.replace("single scale", "diagonal")
    module = passes.LAYOUTS[layout]
    n, width = 128, 136
    for n_components, n_features in LAYOUT_SHAPES:
        rng = np.random.default_rng(n_features)
        shape = {"full": (n_components, n_features), "diagonal": (n_components, 1), "tied": (1, n_features)}[layout]
        x = rng.normal(size=(n_features, width)).astype(dtype)
        means, factor = rng.normal(size=(n_components, n_features)), rng.normal(size=(*shape, n_features))
        factor = factor[..., : 1 if single else None] if layout == "diagonal" else np.tril(factor)
        means, factor = means.astype(dtype), factor.astype(dtype)
        log_coef = rng.normal(size=n_components).astype(dtype)
        resp = rng.uniform(size=(n_components, width)).astype(dtype)
        work = np.full((module.work_rows(n_components, n_features), width), np.nan, dtype)
        operations = module.operations(n_features if layout == "full" and n_features <= full.UNROLLED_FEATURES else 0)
        results = []
        for log_prob_tile in (compiled(operations["log_prob_tile"], module.log_prob_tile), module.log_prob_tile):
            top, log_prob = np.zeros(width, dtype), np.zeros((n_components, width), dtype)
            log_prob_tile(x, n, means, factor, log_coef, work, x.reshape(-1), 0, n_features, top, log_prob)
            results.append((top, log_prob))
        for a, b in zip(*results, strict=True):
            assert_close(a[..., :n], b[..., :n], dtype)
            np.testing.assert_array_equal(a[..., n:], 0)  # nothing beyond the columns in use
        add_moments, naive = (
            (_compiled_template(operations["add_moments"].py_func), _naive_tied_moments)
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "n_features"), [("full", 7), ("full", 18), ("diagonal", 8), ("diagonal", 55)])
def test_leaving_irrelevant_rows_out_does_not_change_sums_beyond_rounding(layout, n_features, dtype):
    """Components have no, one, few, many or all rows, with tiny responsibilities beside large ones or alone."""
    module, n_components, n, width = passes.LAYOUTS[layout], 35, 192, 200
    rng = np.random.default_rng(0)
    x, means = rng.normal(size=(n_features, width)).astype(dtype), rng.normal(size=(n_components, n_features))
    resp = np.zeros((n_components, width))
    for k in range(n_components):
        here = rng.permutation(n)[: [0, 1, 2, 5, 17, 30, n][k % 7]]
        resp[k, here] = rng.uniform(size=len(here)) * 10.0 ** -(k % 3)
    resp[5] += 1e-30
    resp[6, :n] = 1e-14
    resp[12, :n] = 1e-31  # below the smallest relevant responsibility: an empty component
    assert module.work_rows(n_components, n_features) > n_features  # the code that leaves rows out is in use
    work = np.full((module.work_rows(n_components, n_features), width), np.nan, dtype)
    resp_in = (np.sqrt(resp) if module.uses_sqrt_resp(n_features) else resp).astype(dtype)
    results = []
    for add in (compiled(module.operations(n_features)["add_moments"], module.add_moments), module.add_moments):
        shape = (n_components, n_features if layout == "full" else 1, n_features)
        results.append((np.zeros(n_components), np.zeros((n_components, n_features)), np.zeros(shape)))
        add(x, n, resp_in.copy(), means.astype(dtype), work, *results[-1])
    for a, b in zip(*results, strict=True):
        a, b = (np.tril(array) if array.ndim == 3 and layout == "full" else array for array in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())
        for k in (1, 6):  # relative to themselves
            np.testing.assert_allclose(a[k], b[k], rtol=0, atol=10 * TOLERANCE[dtype] * np.abs(b[k]).max())


_compiled_template = functools.cache(numba.njit)


def _naive_tied_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    tied.add_first_moments(x, n, resp, weight_sums_out, first_out)
    scatter_out[0] += np.tril((resp[:, :n].sum(axis=0) * x[:, :n]) @ x[:, :n].T)


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
    weights = {True: weight, False: (weight > 0.2).astype(dtype)}
    for name, is_weighted in itertools.product(responsibilities.operations(), weights):
        operation, naive = responsibilities.operations()[name], getattr(responsibilities, name)
        results = []
        for call in (compiled(operation, naive), naive):
            resp, norm, total = log_prob.copy(), np.zeros(width, dtype), np.ones(1)
            if name in ("normalise", "log_norm"):
                call(resp, n, top, norm)
            else:
                call(resp, n, top, weights[is_weighted], int(is_weighted), norm, total)
            results.append((resp, np.concatenate([norm, total])))
        (resp, norm), (expected, expected_norm) = results
        np.testing.assert_allclose(norm, expected_norm, rtol=4 * np.finfo(dtype).eps, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(resp[:, :n], expected[:, :n], rtol=100 * TOLERANCE[dtype], atol=1e-18)
        np.testing.assert_array_equal(resp[:, n:], log_prob[:, n:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payload", [0, 1954])  # the second is R's mark of a missing number, in the low bits of a NaN
def test_responsibilities_of_a_row_of_nan_are_nan(payload, dtype):
    word, bits = (np.uint64, 0x7FF8000000000000) if dtype is np.float64 else (np.uint32, 0x7FC00000)
    nan = np.array([bits + payload], word).view(dtype)[0]
    for name in ("normalise_weighted", "normalise_weighted_roots", "normalise"):
        log_prob, top, weight = np.zeros((3, 64), dtype), np.zeros(64, dtype), np.ones(64, dtype)
        log_prob[:, 5], top[5] = nan, nan
        norm, total = np.zeros(64, dtype), np.zeros(1)
        rest = (norm,) if name == "normalise" else (weight, 0, norm, total)
        compiled(responsibilities.operations()[name], getattr(responsibilities, name))(log_prob, 64, top, *rest)
        np.testing.assert_array_equal(np.isnan(log_prob), np.broadcast_to(np.arange(64) == 5, (3, 64)))
        if name == "normalise":
            np.testing.assert_array_equal(np.isnan(norm), np.arange(64) == 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_of_kmeans_against_their_naive_twins(dtype):
    n, width = 128, 136
    distances_tile, nearest_tile, move_rows = (
        compiled(getattr(kmeans, f"emit_{naive.__name__}"), naive)
        for naive in (kmeans.distances_tile, kmeans.nearest_tile, kmeans.move_rows)
    )
    for n_centres, n_features in [(0, 2), *itertools.product((1, 2, 3, 5, 8, 15), (1, 3, 4, 23))]:
        rng = np.random.default_rng(n_centres)
        x, centres = rng.normal(size=(n_features, width)).astype(dtype), rng.normal(size=(n_centres, n_features))
        centres = centres.astype(dtype)
        label = rng.integers(0, max(1, n_centres), size=width).astype(dtype)
        previous = rng.integers(-1, max(1, n_centres), size=width).astype(dtype)
        weight = rng.uniform(size=width).astype(dtype)
        weight[:: 5 if n_centres else 1] = 0
        x[:, 5] = np.finfo(dtype).max  # far, and of weight 0
        results = []
        for one in (distances_tile, kmeans.distances_tile):
            results.append(np.zeros((n_centres, width), dtype))
            with np.errstate(over="ignore"):
                one(x, n, centres, results[-1])
        np.testing.assert_allclose(*results, rtol=TOLERANCE[dtype])
        results = []
        for one in (nearest_tile, kmeans.nearest_tile):
            results.append(np.zeros((3, width), dtype))
            with np.errstate(over="ignore"):
                one(x, n, centres, *results[-1])
        np.testing.assert_allclose(*results, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])
        results = []
        for one in (move_rows, kmeans.move_rows):
            results.append((np.ones(n_centres), np.ones((n_centres, n_features))))
            one(x.T.copy(), n, label, previous, weight, *results[-1])
        for a, b in zip(*results, strict=True):
            assert_close(a, b, np.float64, scale=n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposition_against_its_naive_twins(dtype):
    load_rows = compiled(transposition.emit_load_rows, transposition.load_rows)
    load_listed = compiled(transposition.emit_load_listed_rows, transposition.load_listed_rows)
    store_rows = compiled(transposition.emit_store_rows, transposition.store_rows)
    rng = np.random.default_rng(0)
    for n_features in (*range(1, 19), 33):
        for n in (16, 48):
            X, origin = rng.normal(size=(n + 3, n_features)).astype(dtype), rng.normal(size=n_features).astype(dtype)
            tiles_loaded = [np.zeros((n_features, n + 8), dtype) for _ in range(2)]
            for one, tile in zip((load_rows, transposition.load_rows), tiles_loaded, strict=True):
                one(X.reshape(-1), 2 * n_features, n_features, n, origin, tile, 1)
            np.testing.assert_array_equal(*tiles_loaded)
            np.testing.assert_array_equal(tiles_loaded[0][:, :n], (X[2 : n + 2] - origin).T)
            numbers = rng.integers(0, n + 1, size=2 * n + 16).astype(np.int32)
            for one, tile in zip((load_listed, transposition.load_listed_rows), tiles_loaded, strict=True):
                one(X.reshape(-1), 2 * n_features, n_features, numbers, n, origin, tile)
            np.testing.assert_array_equal(*tiles_loaded)
            np.testing.assert_array_equal(tiles_loaded[0][:, :n], (X[2 + numbers[:n]] - origin).T)
            stored = [np.zeros((n + 1, n_features), dtype) for _ in range(2)]
            for one, out in zip((store_rows, transposition.store_rows), stored, strict=True):
                one(tiles_loaded[0], n, out)
            np.testing.assert_array_equal(*stored)
