"""The compiled passes against the naive twin: layouts, dtypes, sizes around a tile's width; also without a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reference
from fastgmm import kernels
from fastgmm.covariance import get_model
from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.layouts import passes
from fastgmm.kernels.matrices import triangles
from fastgmm.kernels.tiles import rows, tiles
from helpers import (
    COVARIANCE_TYPES,
    DTYPES,
    JIT,
    assert_close,
    full_covariances,
    random_parameters,
    random_rows,
)

# Rows of a tile. Without the compiler every number is a Python object: small shapes only.
T = 512 if JIT else 64
SIZES = [1, 2, 63, 64, 65, T - 1, T, T + 1, 2 * T + 3] if JIT else [1, 63, 65]
SHAPES = [(1, 1), (1, 4), (2, 3), (3, 2), (4, 5), (5, 4), (3, 7), (2, 8), (3, 13)] if JIT else [(1, 1), (3, 2), (2, 7)]


def expected(parameters, X, sample_weight=None):
    """Return the naive twin's weight sums, moments, log-likelihood, responsibilities and log-densities."""
    arguments = (parameters.weights, parameters.means, full_covariances(parameters))
    resp, log_prob_norm = reference.responsibilities(X, *arguments)
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    return *reference.moments(X, resp, parameters.means, weight), (weight * log_prob_norm).sum(), resp, log_prob_norm


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


@pytest.mark.skipif(not JIT, reason="too many rows without the compiler")
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
    for keyword, r in (({"labels": labels}, one_hot), ({"resp": resp}, resp)):
        sums, first, scatter, log_likelihood = kernels.accumulate(layout, X, operands, sample_weight=weights, **keyword)
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
def test_overflowed_row_gets_its_nearest_component(layout, dtype):
    """The squares of all its distances overflow; scaled down, they can be compared."""
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


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("shape", [(5, 3), (1, 700_001), (37, 3, 100, 101)])
def test_sums_of_chunks_are_those_of_numpy_to_the_bit(shape, n_jobs):
    """NumPy adds few numbers, a kernel adds many: both in the same order."""
    partial = np.random.default_rng(0).normal(size=shape) * np.geomspace(1e-8, 1e8, shape[-1])
    with kernels.thread_limit(n_jobs):
        total = kernels.sum_of_chunks(partial)
    in_order = partial[0].copy()
    for one in partial[1:]:
        in_order += one
    np.testing.assert_array_equal(total, in_order)


def count_chunk(c, memory, sums):
    for i in range(sums.shape[1]):
        sums[c, i] += 1


@pytest.mark.parametrize("n_chunks", [1, 2, 3, 64, 257])
def test_every_chunk_is_run_once(n_chunks):
    """Idle threads take chunks of others: none may be run twice or left out."""
    kernel = runtime.Kernel(count_chunk)
    for n_jobs in (1, 2):
        sums = np.zeros((n_chunks, 300))
        with kernels.thread_limit(n_jobs):
            kernel(n_chunks, sums, multiply_adds=1e9)
        np.testing.assert_array_equal(sums, np.ones(sums.shape))


def one_hot(labels, n_clusters):
    return (labels[:, np.newaxis] == np.arange(n_clusters)).astype(float)


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
        labels, gap, nearest = (
            np.full(n_samples, -1, np.int32),
            np.zeros(n_samples, np.float32),
            np.zeros(n_samples, dtype),
        )
        zeros = np.zeros(n_clusters, np.float32)
        sums, first, inertia = kernels.lloyd_step(X, weights, origin, points, zeros, labels, gap, distances=nearest)
        assert_close(nearest, distances.min(axis=1), dtype)
        np.testing.assert_array_equal(labels, distances.argmin(axis=1))
        assert_close(sums, one_hot(labels, n_clusters).T @ weights, dtype)
        assert_close(first, (one_hot(labels, n_clusters) * weights[:, np.newaxis]).T @ (X - origin), dtype, n_samples)
        assert_close(inertia, (weights * distances.min(axis=1)).sum(), dtype, n_samples)
        ordered = np.sort(np.sqrt(distances), axis=1)
        if n_clusters > 1:
            np.testing.assert_allclose(gap, ordered[:, 1] - ordered[:, 0], atol=1e-4 * ordered.max())
            assert (gap < ordered[:, 1] - ordered[:, 0] + 1e-7).all()

        # The centres move. Rows that may have changed get new labels and move between sums; the others keep a bound.
        move = rng.normal(size=n_features).astype(dtype) / 20
        moved = points + move * (np.arange(n_clusters) % 2)[:, np.newaxis].astype(dtype)
        decrease = np.full(n_clusters, 2.001 * np.sqrt((move.astype(float) ** 2).sum()), np.float32)
        spared, before = gap > decrease[labels], labels.copy()
        more_sums, more_first, _ = kernels.lloyd_step(
            X, weights, origin, moved, decrease, labels, gap, distances=nearest
        )
        distances_moved = reference.squared_distances(X.astype(float) - origin, moved)
        np.testing.assert_array_equal(labels, distances_moved.argmin(axis=1))
        recomputed = np.where(spared, distances.min(axis=1), distances_moved.min(axis=1))  # kept if spared
        assert_close(nearest, recomputed, dtype)
        assert_close(sums + more_sums, one_hot(labels, n_clusters).T @ weights, dtype)
        expected = (one_hot(labels, n_clusters) * weights[:, np.newaxis]).T @ (X - origin)
        assert_close(first + more_first, expected, dtype, n_samples)
        np.testing.assert_array_equal(labels[spared], before[spared])
        if n_clusters > 1:
            ordered = np.sort(np.sqrt(distances_moved), axis=1)
            assert (gap < ordered[:, 1] - ordered[:, 0] + 1e-7).all()

        closest = distances[:, 0].astype(dtype)
        latest, candidates = points[:1] + dtype(0.5), points[1:]
        potential, width = kernels.seed_step(X, weights, origin, candidates, latest, closest)
        updated = np.minimum(distances[:, 0], reference.squared_distances(X.astype(float) - origin, latest)[:, 0])
        assert_close(closest, updated, dtype)
        with_candidates = np.minimum(updated[:, np.newaxis], np.column_stack([updated, distances[:, 1:]]))
        assert_close(potential.sum(axis=0), weights @ with_candidates, dtype, n_samples)
        for t, tile in enumerate(potential):
            part = slice(t * width, (t + 1) * width)
            assert_close(tile[0], weights[part] @ updated[part], dtype, n_samples)


def test_random_responsibilities_depend_on_contents_only():
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
    # Uniform numbers divided by their sum have mean 1/K.
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


def test_invalid_rows_and_weights_are_rejected():
    operands = random_parameters("full", 2, 2).operands(np.float64)
    for bad in (np.zeros(4), np.zeros((4, 2), int), np.zeros((2, 2, 2))):
        with pytest.raises(TypeError, match="two-dimensional array of float64 or float32"):
            kernels.accumulate("full", bad, operands)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(4,\), got \(3,\)"):
        kernels.accumulate("full", np.zeros((4, 2)), operands, sample_weight=np.ones(3))


def test_tiling_depends_on_the_shape_only_and_covers_all_rows():
    for n_samples in (1, 64, 1000, 123_457, 10_000_000):
        for scratch_rows, partial_bytes in ((10, 100), (500, 5_000_000)):
            plan = rows.tiling(n_samples, scratch_rows, np.dtype(np.float64), partial_bytes)
            assert (plan.n_chunks - 1) * plan.rows_per_chunk < n_samples <= plan.n_chunks * plan.rows_per_chunk
            assert plan.width <= plan.rows_per_chunk
            assert plan.rows_per_chunk % tiles.COLUMN_MULTIPLE == 0
            assert plan.width % tiles.COLUMN_MULTIPLE == 0
            assert plan.n_chunks <= rows.MAX_CHUNKS
    counts = [rows.tiling(10_000_000, 10, np.dtype(float), 2**26 // n).n_chunks for n in (1, 9, 20, 31, 32, 97, 300)]
    assert counts == [8, 8, 16, 16, 32, 96, 256]


@pytest.mark.parametrize("dtype", DTYPES)
def test_scratch_of_threads_is_separated_and_on_cache_lines(dtype):
    """A core prefetches beyond its rows; in its neighbour's memory that costs a seventh of the speed."""
    for n_rows, n_columns in ((0, 0), (3, 5), (14, 456), (200, 72)):
        scratch = runtime.Scratch(n_rows, n_columns, np.dtype(dtype))
        memory = scratch.allocate(3)
        assert memory.dtype == dtype
        assert memory.shape[0] == 3
        assert memory.shape[2] >= n_columns
        for t in range(3):
            own = memory[t, :n_rows]
            assert own.flags.c_contiguous
            assert own.shape[0] == n_rows
            assert memory[t].ctypes.data % runtime.CACHE_LINE == 0
        ends = [memory[t].ctypes.data + n_rows * memory.strides[1] for t in range(3)]
        assert all(memory[t + 1].ctypes.data - ends[t] >= runtime.SCRATCH_GAP_BYTES for t in range(2))


@pytest.mark.skipif(not JIT, reason="this test starts the tests without the compiler")
def test_kernels_without_a_compiler():
    """Run this file with NUMBA_DISABLE_JIT=1: kernels are valid Python, tile operations have a naive twin."""
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
    done = subprocess.run(
        command, env=environment, cwd=here.parent.parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("n_features", [1, 7, 8, 9, 64, 65, 130, 200])
def test_factors_of_many_features(n_features):
    root = np.random.default_rng(n_features).normal(size=(2, n_features, 2 * n_features))
    covariances = root @ root.swapaxes(1, 2)
    factor, well_defined = kernels.factor_covariances(covariances)
    assert well_defined.all()
    assert not np.triu(factor, 1).any()
    expected = np.linalg.inv(np.linalg.cholesky(covariances))
    np.testing.assert_allclose(factor, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    covariances[1, -1] = covariances[1, :, -1] = covariances[1, 0]  # equal features
    covariances[1, -1, -1] = covariances[1, 0, 0]
    if n_features > 1:
        factor, well_defined = kernels.factor_covariances(covariances)
        assert well_defined.tolist() == [True, False]
        assert not factor[1].any()


def test_triangles_in_blocks():
    matrices = np.random.default_rng(0).normal(size=(2, 150, 150))
    np.testing.assert_array_equal(kernels.lower_triangle(matrices), np.tril(matrices))
    mirrored = matrices.copy()
    triangles.mirror_lower(mirrored)
    np.testing.assert_array_equal(mirrored, np.tril(matrices) + np.tril(matrices, -1).swapaxes(1, 2))
