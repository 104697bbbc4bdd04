"""k-means against the plain algorithm and scikit-learn; the frozen random stream."""

import numba
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import fastgmm.initialization.kmeans
import reference
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.kmeans import (
    Clusters,
    _draw_by_distance,
    best_start,
    farthest_rows,
    kmeans,
    kmeans_plusplus,
    lloyd,
)
from fastgmm.kernels.tiles.rows import tiling
from helpers import blobs, start_of

DTYPES = (np.float64, np.float32)


def test_random_stream_is_frozen():
    """Written down so that it never changes: seeded fits of today are seeded fits of tomorrow."""
    stream = RandomStream(42)
    assert [stream.word() for _ in range(3)] == [13679457532755275413, 2949826092126892291, 5139283748462763858]
    assert RandomStream(0).uniform() == 0.8833108082136426
    draws = [stream.uniform() for _ in range(10_000)]
    assert 0 <= min(draws) < max(draws) < 1
    assert abs(np.mean(draws) - 0.5) < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_kmeans_is_a_fixed_point_of_lloyd(dtype):
    X, _ = blobs(n_components=4)
    X = X.astype(dtype)
    centres, labels = kmeans(ArraySource(X), 4, RandomStream(0))
    distances = reference.squared_distances(X, centres)
    assert (distances.argmin(axis=1) == labels).mean() > 0.999
    means = np.array([X[labels == k].astype(float).mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(means, centres, atol=0.05)


def test_kmeans_is_as_good_as_scikit_learns():
    for seed in range(5):
        X, _ = blobs(seed, n_components=5, n_samples=1000)
        centres, labels = kmeans(ArraySource(X), 5, RandomStream(seed))
        ours = ((X - centres[labels]) ** 2).sum()
        theirs = min(KMeans(5, n_init=1, random_state=s).fit(X).inertia_ for s in range(5))
        assert ours < 1.3 * theirs


def test_kmeans_finds_well_separated_clusters():
    X, truth = blobs(n_components=6, separation=30)
    _, labels = kmeans(ArraySource(X), 6, RandomStream(1))
    assert adjusted_rand_score(truth, labels) == 1


def test_the_best_of_several_starts_finds_clusters_that_one_start_misses():
    X, truth = blobs(n_components=12, n_features=8, n_samples=5000, separation=4)
    source, found = ArraySource(X), []
    for find in (kmeans_plusplus, best_start):
        centres = [lloyd(source, find(source, 12, RandomStream(seed)))[1] for seed in range(12)]
        found.append(sum(adjusted_rand_score(truth, labels) > 0.95 for labels in centres))
    assert found[0] < found[1]
    assert found[1] >= 8
    single = kmeans_plusplus(source, 3, RandomStream(0))
    np.testing.assert_array_equal(best_start(source, 3, RandomStream(0)), single)  # few clusters: one start


def test_kmeans_with_fewer_distinct_rows_than_clusters():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    centres, labels = kmeans(ArraySource(X), 4, RandomStream(0))
    assert np.isfinite(centres).all()
    assert len(np.unique(labels)) == 2
    np.testing.assert_array_equal(centres[labels], X)
    _, n_distinct = start_of(ArraySource(X), 4)
    assert n_distinct == 2


def test_kmeans_moves_empty_clusters_to_the_farthest_rows():
    """Two identical centres in a heavy clump: the second one has nothing, and a far row is left to it."""
    X = np.vstack([np.zeros((50, 1)), [[100.0]]])
    moved = farthest_rows(ArraySource(X), np.zeros(1), np.zeros((2, 1)), 1, np.zeros((1, 1)))
    np.testing.assert_array_equal(moved, [[100.0]])
    weights = np.append(np.ones(50), 0.0)
    moved = farthest_rows(ArraySource(X, weights), np.zeros(1), np.zeros((2, 1)), 1, np.full((1, 1), 7.0))
    np.testing.assert_array_equal(moved, [[7.0]])  # a row of weight 0 is not there


def test_kmeans_plusplus_spreads():
    X, _ = blobs(n_components=8, separation=50, n_samples=2000)
    for seed in range(5):
        points = kmeans_plusplus(ArraySource(X), 8, RandomStream(seed))
        nearest = reference.squared_distances(X, points).min(axis=1)
        assert np.sqrt(nearest.max()) < 25  # one point in every cluster
        assert all((X == point).all(axis=1).any() for point in points)


@pytest.mark.parametrize("weighted", [False, True])
def test_few_rows_are_drawn_as_many_are(weighted, monkeypatch):
    X, _ = blobs(n_components=5, n_samples=3000)
    weights = np.random.default_rng(0).integers(0, 3, len(X)).astype(float) if weighted else None
    at_once = kmeans_plusplus(ArraySource(X, weights), 12, RandomStream(1))
    monkeypatch.setattr(fastgmm.initialization.kmeans, "FEW_ENOUGH", 0)
    np.testing.assert_array_equal(kmeans_plusplus(ArraySource(X, weights), 12, RandomStream(1)), at_once)


def test_draws_use_the_width_of_the_tiles_of_the_potential(monkeypatch):
    """With many features a step with more candidates has narrower tiles."""
    widths = [{tiling(3000, 4 + d + n, np.dtype(float), multiply_adds=0).width for n in (1, 5)} for d in range(250)]
    n_features = next(d for d in range(100, 250) if len(widths[d]) > 1)
    X, seen = np.random.default_rng(0).normal(size=(3000, n_features)), set()

    def draw(source, origin, latest, closest, potential, width, uniforms):
        assert len(potential) == -(-len(X) // width)
        seen.add(width)
        return _draw_by_distance(source, origin, latest, closest, potential, width, uniforms)

    monkeypatch.setattr(fastgmm.initialization.kmeans, "FEW_ENOUGH", 0)
    monkeypatch.setattr(fastgmm.initialization.kmeans, "_draw_by_distance", draw)
    kmeans_plusplus(ArraySource(X), 8, RandomStream(0))
    assert seen == widths[n_features]


@pytest.fixture
def single_precision_seeds(monkeypatch):
    """Whether the seeds drawn from a copy in single precision were kept, call for call."""
    kept = []
    draw = fastgmm.initialization.kmeans._seeds_in_single_precision

    def watched(*arguments):
        rows = draw(*arguments)
        kept.append(rows is not None)
        return rows

    monkeypatch.setattr(fastgmm.initialization.kmeans, "_seeds_in_single_precision", watched)
    return kept


@pytest.mark.parametrize("weighted", [False, True])
def test_of_many_rows_seeds_are_drawn_in_single_precision(single_precision_seeds, weighted, monkeypatch):
    """The same seeds but where a draw or a choice is within rounding: rows of X, in double precision."""
    X, _ = blobs(n_components=16, n_features=5, n_samples=20_000, separation=6)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=len(X)) if weighted else None
    source = ArraySource(X + 1e6, weights)
    points = [kmeans_plusplus(source, 16, RandomStream(seed)) for seed in range(5)]
    assert single_precision_seeds == [True] * 5
    monkeypatch.setattr(fastgmm.initialization.kmeans, "SINGLE_CLUSTERS", 17)
    precisely = [kmeans_plusplus(source, 16, RandomStream(seed)) for seed in range(5)]
    assert len(single_precision_seeds) == 5
    rows = set(map(tuple, source.X))
    assert all(tuple(point) in rows for found in points for point in found)
    assert np.mean([a == b for a, b in zip(points, precisely, strict=True)]) > 0.7


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e100])
def test_seeds_that_single_precision_cannot_tell_apart(single_precision_seeds, scale):
    """Eight clusters far from each other but for a ninth row, beside which they are one point; or too large."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, size=20_000)
    X = (3 * labels[:, np.newaxis] + rng.normal(size=(20_000, 2)) * 0.01) * scale
    X[777] = 1e9 * scale
    points = kmeans_plusplus(ArraySource(X), 9, RandomStream(0))
    assert single_precision_seeds == [False]
    found = np.sort(np.round(points[:, 0] / scale / 3))
    np.testing.assert_array_equal(found[:8], np.arange(8))
    assert points.max() == X.max()


def test_kmeans_plusplus_draws_by_squared_distance():
    """From 0, rows at 1 and 3 are drawn in proportion 1 : 9 (one draw each: greedy choice would prefer the better)."""
    X = np.array([[0.0], [1.0], [3.0]])
    latest = np.array([[0.0]])
    for closest in (np.array([0.0, 1.0, 9.0]), np.full(3, 20.0)):  # the latest is among them, or not yet

        def draw(source, potential, u, closest=closest):
            arguments = np.zeros(1), latest, closest, np.array([potential]), 3, np.array([u])
            return _draw_by_distance(source, *arguments)[0]

        assert [draw(ArraySource(X), 10.0, u) for u in (0.0, 0.09, 0.11, 0.999999)] == [1, 1, 2, 2]
        weighted = ArraySource(X, np.array([1.0, 9.0, 1.0]))
        assert [draw(weighted, 18.0, u) for u in (0.0, 0.49, 0.51)] == [1, 1, 2]


def test_a_row_far_away_is_drawn_as_a_centre():
    X = np.vstack([np.random.default_rng(0).normal(size=(100, 2)), [[1e30, 1e30]]]).astype(np.float32)
    for seed in range(5):
        points = kmeans_plusplus(ArraySource(X), 3, RandomStream(seed))
        assert (points == np.float32(1e30)).all(axis=1).any()


def plain_lloyd(X, centres, weights, n_steps):
    """Lloyd's algorithm as it is written down, the labels of every step."""
    X, centres, history = X.astype(np.float64), centres.copy(), []
    for _ in range(n_steps):
        history.append(reference.squared_distances(X, centres).argmin(axis=1))
        for k in range(len(centres)):
            own = weights * (history[-1] == k)
            if own.sum() > 0:
                centres[k] = own @ X / own.sum()
    return centres, history


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sparing_distances_changes_no_label(dtype, weighted, order):
    """Overlapping clusters, of which many rows change theirs, in every step."""
    rng = np.random.default_rng(0)
    for n_features, n_clusters in ((1, 2), (2, 7), (5, 3), (16, 12)):
        X, _ = blobs(n_components=n_clusters, n_features=n_features, n_samples=3000, separation=1.5)
        X = np.asarray(X, dtype, order=order)
        weights = rng.integers(0, 4, size=len(X)).astype(float) if weighted else np.ones(len(X))
        start = X[rng.choice(len(X), n_clusters, replace=False)].astype(float)
        source = ArraySource(X, weights if weighted else None)
        expected, history = plain_lloyd(X, start, weights, 12)
        centres, _ = lloyd(source, start, max_steps=12, tolerance=0.0)
        np.testing.assert_allclose(centres, expected, atol=1e-10 if dtype is np.float64 else 1e-4)
        clusters, centres, looked_at = Clusters(source, np.zeros(n_features, dtype), n_clusters), start, []
        for step in history:
            distances = np.full(len(X), -1, dtype)
            clusters.assign(centres, distances)
            looked_at.append((distances >= 0).mean())
            assert (clusters.labels != step).mean() < (1e-12 if dtype is np.float64 else 1e-3)
            centres = clusters.means()
        assert looked_at[0] == 1
        assert looked_at[-1] < 0.5  # the point of it


def test_sums_that_have_lost_their_digits_are_formed_anew():
    """A row of 1e20 leaves a cluster of ordinary ones: the difference of the sums says nothing about these."""
    X = np.vstack([np.random.default_rng(0).normal(size=(200, 2)), [[1e20, 1e20]]])
    clusters = Clusters(ArraySource(X), np.zeros(2), 2)
    clusters.assign(np.array([[0.0, 0.0], [0.0, -1e30]]))
    assert clusters.labels[-1] == 0
    clusters.assign(np.array([[0.0, 0.0], [1e20, 1e20]]))
    np.testing.assert_array_equal(clusters.labels, [0] * 200 + [1])
    np.testing.assert_allclose(clusters.means(), [X[:200].mean(axis=0), X[200]], rtol=1e-12)


def test_a_cluster_that_loses_all_its_rows_is_empty():
    """Of weights that are no whole numbers differences leave a rest, not zero."""
    X, weights = np.linspace(0, 1, 100)[:, np.newaxis], np.random.default_rng(0).uniform(size=100)
    clusters = Clusters(ArraySource(X, weights), np.zeros(1), 2)
    clusters.assign(np.array([[0.0], [1.0]]))
    assert (clusters.weight_sums > 0).all()
    clusters.assign(np.array([[0.5], [9.0]]))
    assert clusters.weight_sums[1] == 0
    np.testing.assert_allclose(clusters.weight_sums[0], weights.sum())
    assert clusters.means()[1] in (X[0], X[-1])  # the row farthest from its centre


def test_one_bound_covers_what_single_precision_rounds():
    """Many small moves, none of which a gap in float32 can feel, do not add up to a wrong label."""
    X = np.linspace(-1, 1, 4001)[:, np.newaxis]
    clusters, centres = Clusters(ArraySource(X), np.zeros(1), 2), np.array([[-1.0], [1.0]])
    for _ in range(300):
        clusters.assign(centres)
        centres = centres + 3e-8
    clusters.assign(centres)
    plain = reference.squared_distances(X, centres).argmin(axis=1)
    np.testing.assert_array_equal(clusters.labels, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_so_far_away_that_squares_overflow(dtype):
    far = np.finfo(dtype).max / 4
    X = np.vstack([np.random.default_rng(0).normal(size=(50, 2)), [[far, 0]]]).astype(dtype)
    clusters = Clusters(ArraySource(X), np.zeros(2, dtype), 2)
    for centres in ([[0, 0], [5, 5]], [[0, 1], [far, 0]], [[1, 0], [far, 1]], [[9, 9], [0, 0]]):
        clusters.assign(np.array(centres, dtype=float))
        assert (clusters.labels[:50] == (centres[0][0] == 9)).mean() > 0.8
        if centres[1][0] == far:
            assert clusters.labels[-1] == 1


def test_the_same_labels_with_and_without_threads():
    X = np.random.default_rng(0).normal(size=(200_000, 4))
    results = []
    for n_threads in (1, numba.config.NUMBA_NUM_THREADS):
        before = numba.get_num_threads()
        numba.set_num_threads(n_threads)
        results.append(kmeans(ArraySource(X), 20, RandomStream(0)))
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
