"""k-means on few rows: the kernel against a naive twin."""

import itertools

import numpy as np
import pytest

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.kmeans import best_start
from fastgmm.initialization.seeding import kmeans_plusplus
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
def test_problems_against_their_naive_twin(dtype, weighted, n_samples, n_features, n_clusters):
    """Three parts of the rows, and two starts of each part."""
    rng = np.random.default_rng(n_samples)
    X = (rng.normal(size=(n_samples, n_features)) + 8 * rng.integers(0, 4, size=(n_samples, 1))).astype(dtype)
    weights = rng.integers(1, 3, size=n_samples).astype(float) if weighted else np.ones(n_samples)
    n_trials, n_starts = 3, 2
    parts = np.array([[0, n_samples], [0, n_samples - 1], [1, n_samples]])
    uniforms = rng.uniform(size=(3, n_starts, 1 + (n_clusters - 1) * n_trials))
    limits = kernels.KMeansLimits(2, 3, 0.0, FARTHEST)
    found = kernels.kmeans_problems(X, weights if weighted else None, parts, uniforms, n_clusters, limits)
    tolerance = 1e-9 if dtype is np.float64 else 1e-3
    labels = np.split(found.labels, np.cumsum([end - begin for begin, end in parts])[:-1])
    for p, (begin, end) in enumerate(parts):
        rows, own = X[begin:end].astype(float) - X[0], weights[begin:end]
        seeds = [naive_seeds(rows, own, numbers, n_clusters) for numbers in uniforms[p]]
        if dtype is np.float64:
            np.testing.assert_array_equal(found.rows[p], seeds[-1])
            starts = [naive_steps(rows, own, rows[seed], 2) for seed in seeds]
            best = min(starts, key=lambda start: start[1])[0]
            centres, inertia = naive_steps(rows, own, best, 3)
            # With a cluster per row, both starts have an inertia of 0, and either may be the best.
            order = (np.lexsort(c.T) for c in (found.centres[p], centres))
            pair = [c[i] for c, i in zip((found.centres[p], centres + X[0]), order, strict=True)]
            np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance)
            assert found.inertia[p] == pytest.approx(inertia, rel=1e3 * tolerance, abs=tolerance)
        distances = ((rows[:, np.newaxis] + X[0] - found.centres[p]) ** 2).sum(axis=2)
        nearest = distances[np.arange(len(rows)), labels[p]]
        np.testing.assert_allclose(nearest, distances.min(axis=1), rtol=1e3 * tolerance, atol=1e2 * tolerance)
        assert found.inertia[p] == pytest.approx((own * nearest).sum(), rel=1e3 * tolerance, abs=tolerance)


def test_steps_from_given_centres_end_when_they_are_short():
    X, _ = blobs(n_components=3, n_features=2, n_samples=300)
    parts, none = np.array([[0, 300]]), np.empty((1, 1, 0))
    start = X[:3][np.newaxis].copy()

    def run(n_steps, tolerance):
        limits = kernels.KMeansLimits(0, n_steps, tolerance, FARTHEST)
        return kernels.kmeans_problems(X, None, parts, none, 3, limits, centres=start)

    np.testing.assert_allclose(run(2, 0.0).centres[0], naive_steps(X, np.ones(300), start[0], 2)[0])
    np.testing.assert_array_equal(start[0], X[:3])
    steps = [naive_steps(X, np.ones(300), start[0], n)[0] for n in range(40)]
    moves = [((b - a) ** 2).sum() / X.var(axis=0).mean() for a, b in itertools.pairwise(steps)]
    tolerance = (moves[3] + moves[2]) / 2
    last = next(n for n, move in enumerate(moves) if move <= tolerance)
    np.testing.assert_allclose(run(300, tolerance).centres[0], steps[last + 1])


def test_clusters_without_rows_get_the_farthest_rows():
    """Two seeds are equal rows: the second cluster has no rows, since the first of equal centres is the nearest."""
    X = np.array([[0.0], [0.0], [0.0], [1.0], [10.0]])
    limits = kernels.KMeansLimits(0, 2, 0.0, FARTHEST)
    found = kernels.kmeans_problems(X, None, np.array([[0, 3]]), np.zeros((1, 1, 3)), 3, limits)
    np.testing.assert_array_equal(found.centres[0], np.zeros((3, 1)))
    assert found.inertia[0] == 0
    start = np.array([[[0.0], [0.0], [0.5]]])
    found = kernels.kmeans_problems(
        X, None, np.array([[0, 5]]), np.empty((1, 1, 0)), 3, limits._replace(n_steps=1), centres=start
    )
    np.testing.assert_array_equal(found.centres.ravel(), [0.0, 10.0, 5.5])
    assert found.inertia[0] == 1.0 == naive_steps(X, np.ones(5), start[0], 1)[1]


def test_rows_of_weight_zero_are_ignored():
    X = np.vstack([np.full((5, 2), 1e9), np.random.default_rng(0).normal(size=(50, 2))])
    weights = np.r_[np.zeros(5), np.ones(50)]
    uniforms = RandomStream(3).uniforms(5 * 9).reshape(5, 1, 9)
    limits = kernels.KMeansLimits(0, 2, 0.0, FARTHEST)
    found = kernels.kmeans_problems(X, weights, np.array([[0, 55]] * 5), uniforms, 3, limits)
    assert found.rows.min() >= 5
    assert np.abs(found.centres).max() < 10


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
