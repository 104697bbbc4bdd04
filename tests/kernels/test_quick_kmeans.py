"""Starts of k-means on few rows: the kernel against a naive twin."""

import numpy as np
import pytest

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.kmeans import best_start, kmeans_plusplus
from helpers import DTYPES, blobs

FARTHEST = 1e30


def naive_seeds(X, weights, uniforms, n_clusters):
    """Draw rows by greedy k-means++: a candidate is the row at which a cumulated sum exceeds a part of the total."""
    n_trials = (len(uniforms) - 1) // max(1, n_clusters - 1)

    def draw(mass, uniform):
        cumulative = np.cumsum(mass)
        return int(np.flatnonzero((cumulative > uniform * cumulative[-1]) & (mass > 0))[0])

    rows = [draw(weights, uniforms[0])]
    closest = ((X - X[rows[0]]) ** 2).sum(axis=1)
    for k in range(1, n_clusters):
        numbers = uniforms[1 + (k - 1) * n_trials :][:n_trials]
        if not (weights * closest).sum() > 0:
            rows.append(draw(weights, numbers[0]))
            continue
        tried = [draw(weights * closest, number) for number in numbers]
        left = [np.minimum(closest, ((X - X[row]) ** 2).sum(axis=1)) for row in tried]
        best = int(np.argmin([(weights * each).sum() for each in left]))
        rows.append(tried[best])
        closest = left[best]
    return rows


def naive_steps(X, weights, centres, n_steps):
    """Do Lloyd's steps; a cluster without rows gets the row farthest from its centre."""
    centres = centres.copy()
    for _ in range(n_steps):
        distances = ((X[:, np.newaxis] - centres) ** 2).sum(axis=2)
        labels, nearest = distances.argmin(axis=1), distances.min(axis=1)
        nearest[weights == 0] = 0
        for k in range(len(centres)):
            own = weights * (labels == k)
            if own.sum() > 0:
                centres[k] = own @ X / own.sum()
            elif nearest.max() > 0:
                farthest = nearest.argmax()
                centres[k], nearest[farthest] = X[farthest], 0
    distances = ((X[:, np.newaxis] - centres) ** 2).sum(axis=2)
    return centres, (weights * distances.min(axis=1)).sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n_samples", "n_features", "n_clusters"), [(1500, 3, 7), (333, 17, 2), (40, 1, 40), (9, 2, 1)]
)
def test_starts_against_their_naive_twin(dtype, weighted, n_samples, n_features, n_clusters):
    rng = np.random.default_rng(n_samples)
    X = (rng.normal(size=(n_samples, n_features)) + 8 * rng.integers(0, 4, size=(n_samples, 1))).astype(dtype)
    weights = rng.integers(0, 3, size=n_samples).astype(float) if weighted else np.ones(n_samples)
    n_trials, n_starts = 3, 4
    uniforms = rng.uniform(size=(n_starts, 1 + (n_clusters - 1) * n_trials))
    origin = X[0].copy()
    starts = kernels.kmeans_starts(
        X, weights if weighted else None, origin, uniforms, n_clusters, n_steps=3, farthest=FARTHEST
    )
    shifted = (X - origin).astype(float)
    tolerance = 1e-9 if dtype is np.float64 else 1e-3
    for c in range(n_starts):
        rows = naive_seeds(shifted, weights, uniforms[c], n_clusters)
        if dtype is np.float64:
            np.testing.assert_array_equal(starts.rows[c], rows)
        centres, inertia = naive_steps(shifted, weights, shifted[starts.rows[c]], 3)
        np.testing.assert_allclose(starts.centres[c], centres, rtol=tolerance, atol=tolerance)
        assert starts.inertia[c] == pytest.approx(inertia, rel=1e3 * tolerance, abs=tolerance)


def test_clusters_without_rows_get_the_farthest_rows():
    """Two seeds are equal rows: the second cluster has no rows, since the first of equal centres is the nearest."""
    X = np.array([[0.0], [0.0], [0.0], [1.0], [10.0]])
    uniforms = np.array([[0.0, 0.0, 0.0]])
    starts = kernels.kmeans_starts(X[:3], None, np.zeros(1), uniforms, 3, n_steps=2, farthest=FARTHEST)
    np.testing.assert_array_equal(starts.centres[0], np.zeros((3, 1)))
    assert starts.inertia[0] == 0
    centres, inertia = naive_steps(X, np.ones(5), np.array([[0.0], [0.0], [0.5]]), 1)
    np.testing.assert_array_equal(centres.ravel(), [0.0, 10.0, 5.5])
    assert inertia == 1.0


def test_rows_of_weight_zero_are_ignored():
    X = np.vstack([np.full((5, 2), 1e9), np.random.default_rng(0).normal(size=(50, 2))])
    weights = np.r_[np.zeros(5), np.ones(50)]
    uniforms = RandomStream(3).uniforms(5 * 9).reshape(5, 9)
    starts = kernels.kmeans_starts(X, weights, np.zeros(2), uniforms, 3, n_steps=2, farthest=FARTHEST)
    assert starts.rows.min() >= 5
    assert np.abs(starts.centres).max() < 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_with_any_number_of_threads(dtype):
    X, _ = blobs(n_components=30, n_features=4, n_samples=6000)
    source = ArraySource(X.astype(dtype))
    with kernels.thread_limit(1):
        desired = best_start(source, 30, RandomStream(0))
    np.testing.assert_array_equal(best_start(source, 30, RandomStream(0)), desired)


def test_memory_order_does_not_matter():
    X, _ = blobs(n_components=6, n_features=4, n_samples=900)
    for find in (kmeans_plusplus, best_start):
        desired = find(ArraySource(X), 6, RandomStream(0))
        np.testing.assert_array_equal(find(ArraySource(np.asfortranarray(X)), 6, RandomStream(0)), desired)
