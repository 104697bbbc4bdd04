"""k-means of weighted rows: Lloyd's steps from the best of several starts.

Lloyd's steps compute distances only for rows whose nearest centre may have changed (G. Hamerly, "Making k-means even
faster", 2010, with one bound for each row instead of two). The labels are those of the plain algorithm, except for ties
within rounding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream, at_most
from fastgmm.data.sources import ArraySource

from .seeding import FARTHEST, is_serial, is_serial_shape, kmeans_plusplus, quick_kmeans

Array = NDArray[np.float64]
# Largest number of Lloyd's steps, and the tolerance of their convergence; both as in scikit-learn.
MAX_STEPS = 300
TOLERANCE = 1e-4
# Number of starts that are compared, and of Lloyd's steps of each.
MAX_STARTS = 5
SHORT_STEPS = 5
# Number of rows on which starts are compared, in all and per cluster.
SHORT_ROWS = 2_000
SHORT_ROWS_PER_CLUSTER = 64
# Up to this number of multiply-adds of a step, a serial kernel runs all of k-means: Python between two steps takes
# longer.
QUICK_STEP_OPERATIONS = 5e5
# A sum over a cluster's rows that shrinks to this part of its largest value has lost too many digits. All sums are then
# computed again.
LOSSY = 1e-6


class Clusters:
    """Rows assigned to the nearest of K centres, updated while the centres move.

    Each row has a label and a gap. The gap is the distance to the second nearest centre less that to the nearest, when
    these were last computed, less the distances that its own centre and the fastest other centre have moved since. As
    long as the gap is positive, the label is right and no distance is computed.

    Attributes
    ----------
    labels : (N,) int32
    weight_sums : (K,)
        Sums of the weights of the clusters' rows.
    first_moments : (K, D)
        Weighted sums of the clusters' rows less the origin.
    """

    def __init__(self, source: ArraySource, origin: NDArray, n_clusters: int):
        self.source, self.origin = source, origin
        self.labels = np.full(len(source.X), -1, np.int32)
        self.weight_sums, self.first_moments = np.zeros(n_clusters), np.zeros((n_clusters, len(origin)))
        self._gap = np.zeros(len(source.X), np.float32)
        self._centres: NDArray | None = None
        self._largest = np.zeros((2, n_clusters))

    def assign(self, centres: Array, distances: NDArray | None = None) -> float:
        """Assign every row to its nearest centre.

        Parameters
        ----------
        centres : (K, D)
        distances : (N,) of X's dtype, optional
            Receives the squared distances to the nearest centres of the rows for which they are computed.

        Returns
        -------
        inertia : float
            The weighted sum of these squared distances. In the first call, and after one that loses digits, they are
            computed for all rows.
        """
        shifted = np.ascontiguousarray(centres - self.origin.astype(np.float64), dtype=self.origin.dtype)
        inertia = self._step(shifted, distances)
        sizes = self._sizes()
        if (sizes < LOSSY * self._largest).any():
            self.labels.fill(-1)
            self.weight_sums[:], self.first_moments[:], self._largest[:] = 0, 0, 0
            inertia = self._step(shifted, distances)
            sizes = self._sizes()
        np.maximum(self._largest, sizes, out=self._largest)
        return inertia

    def means(self) -> Array:
        """Return the means of the clusters, (K, D).

        For clusters without rows, they are the rows farthest from their centres.
        """
        assert self._centres is not None
        origin, filled = self.origin.astype(np.float64), self.weight_sums > 0
        means = origin + self._centres
        means[filled] = origin + self.first_moments[filled] / self.weight_sums[filled, np.newaxis]
        if not filled.all():
            centres = origin + self._centres
            means[~filled] = farthest_rows(self.source, self.origin, centres, int((~filled).sum()), means[~filled])
        return means

    def _step(self, shifted: NDArray, distances: NDArray | None) -> float:
        """Update labels, gaps and sums; return the sum of squared distances.

        `shifted` are the centres less the origin.
        """
        X, sample_weight = self.source.X, self.source.sample_weight
        gap_losses = self._gap_losses(shifted)
        weight_sums, first_moments, inertia = kernels.lloyd_step(
            X, sample_weight, self.origin, shifted, gap_losses, self.labels, self._gap, distances=distances
        )
        self.weight_sums += weight_sums
        self.first_moments += first_moments
        self._centres = shifted
        return inertia

    def _gap_losses(self, shifted: NDArray) -> NDArray[np.float32]:
        """Return by how much the gaps of each centre's rows shrink, (K,), rounded up.

        That is the length of the centre's own move plus the longest move of another centre.
        """
        if self._centres is None:
            return np.zeros(len(shifted), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            moves = np.sqrt(((shifted.astype(np.float64) - self._centres) ** 2).sum(axis=1))
            order = np.argsort(moves)
            others = np.full(len(moves), moves[order[-1]])
            others[order[-1]] = moves[order[-2]] if len(moves) > 1 else 0.0
            return ((moves + others) * (1 + 1e-6)).astype(np.float32)

    def _sizes(self) -> Array:
        """Return the weight sums and the largest first moments of the clusters, (2, K)."""
        return np.array([self.weight_sums, np.abs(self.first_moments).max(axis=1)])


def kmeans(source: ArraySource, n_clusters: int, stream: RandomStream) -> tuple[Array, NDArray[np.int32]]:
    """Run Lloyd's algorithm from the best of several k-means++ starts.

    Returns
    -------
    centres : (n_clusters, D)
    labels : (N,) int32
    """
    n_starts = n_starts_for(n_clusters)
    if is_quick(source, n_clusters):
        limits = kernels.KMeansLimits(SHORT_STEPS, MAX_STEPS, TOLERANCE, FARTHEST[source.X.dtype])
        results = quick_kmeans(source, n_clusters, stream, limits, n_starts=n_starts)
        return results.centres[0], results.labels
    return lloyd(source, best_start(source, n_clusters, stream))


def n_starts_for(n_clusters: int) -> int:
    """Return the number of starts that are compared.

    It grows with the number of clusters, since more clusters can be missed. With 12 clear clusters (5,000 rows, 8
    features), one start found all clusters for 5 of 12 seeds. The best of four starts found them for all 12.
    """
    return min(MAX_STARTS, 1 + n_clusters // 4)


def is_quick(source: ArraySource, n_clusters: int) -> bool:
    """Return whether the serial kernel runs all of k-means: if it has few rows and its steps are short."""
    return is_quick_shape(source.X.shape, source.X.dtype, n_clusters)


def is_quick_shape(shape: tuple[int, ...], dtype: np.dtype, n_clusters: int) -> bool:
    """Return `is_quick` for rows of a shape, (n, D), and dtype."""
    (n_rows, n_features) = shape
    few = n_starts_for(n_clusters) == 1 or n_rows <= max(SHORT_ROWS, SHORT_ROWS_PER_CLUSTER * n_clusters)
    is_short = 2 * n_rows * n_features * n_clusters <= QUICK_STEP_OPERATIONS
    return few and is_short and is_serial_shape(shape, dtype, n_clusters, 1)


def best_start(source: ArraySource, n_clusters: int, stream: RandomStream) -> Array:
    """Return the best of several k-means++ starts after a few steps, (n_clusters, D).

    They are compared on a sample.
    """
    n_starts = n_starts_for(n_clusters)
    if n_starts == 1:
        return kmeans_plusplus(source, n_clusters, stream)
    return quick_start(few_rows(source, n_clusters, stream), n_clusters, stream, n_starts=n_starts)


def quick_start(
    source: ArraySource, n_clusters: int, stream: RandomStream, *, steps: int = SHORT_STEPS, n_starts: int = 1
) -> Array:
    """Return the best k-means++ start after a few of Lloyd's steps, (n_clusters, D)."""
    if is_serial(source, n_clusters, n_starts):
        limits = kernels.KMeansLimits(0, steps, 0.0, FARTHEST[source.X.dtype])
        results = quick_kmeans(source, n_clusters, stream, limits, n_problems=n_starts)
        return results.centres[int(np.argmin(np.nan_to_num(results.inertia, nan=np.inf)))]
    origin = source.point_near().astype(source.X.dtype)
    best, lowest = None, math.inf
    for _ in range(n_starts):
        centres = _move(Clusters(source, origin, n_clusters), kmeans_plusplus(source, n_clusters, stream), steps, 0.0)
        # A new object computes the distances of all rows.
        inertia = Clusters(source, origin, n_clusters).assign(centres)
        if best is None or inertia < lowest:
            best, lowest = centres, inertia
    assert best is not None
    return best


def few_rows(source: ArraySource, n_clusters: int, stream: RandomStream) -> ArraySource:
    """Return a sample on which starts are compared, or the source if it is no larger."""
    enough = max(SHORT_ROWS, SHORT_ROWS_PER_CLUSTER * n_clusters)
    return at_most(source, enough, stream)


def lloyd(
    source: ArraySource, centres: Array, *, max_steps: int = MAX_STEPS, tolerance: float = TOLERANCE
) -> tuple[Array, NDArray[np.int32]]:
    """Move centres (K, D) repeatedly to the means of the rows nearest to them.

    The steps end when the sum of the centres' squared moves is at most `tolerance` times the mean variance of the
    features, or after `max_steps`.

    Returns
    -------
    centres : (K, D)
    labels : (N,) int32
        Number of the nearest of these centres.
    """
    if is_quick(source, len(centres)):
        limits = kernels.KMeansLimits(0, max_steps, tolerance, FARTHEST[source.X.dtype])
        parts, uniforms = np.array([[0, len(source.X)]]), np.empty((1, 1, 0))
        results = kernels.kmeans_problems(
            source.X, source.sample_weight, parts, uniforms, len(centres), limits, centres=centres[np.newaxis]
        )
        return results.centres[0], results.labels
    origin = source.point_near().astype(source.X.dtype)
    max_shift = tolerance * _variance(source, origin) if tolerance > 0 else 0.0
    clusters = Clusters(source, origin, len(centres))
    centres = _move(clusters, centres, max_steps, max_shift)
    clusters.assign(centres)
    return centres, clusters.labels


def _move(clusters: Clusters, centres: Array, max_steps: int, max_shift: float) -> Array:
    """Make Lloyd's steps until the sum of squared moves is at most `max_shift`."""
    for _ in range(max_steps):
        clusters.assign(centres)
        moved = clusters.means()
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= max_shift:
            break
    return centres


def farthest_rows(source: ArraySource, origin: NDArray, centres: Array, n_rows: int, default: Array) -> Array:
    """Return the rows farthest from their nearest centres, (n_rows, D).

    If too few rows differ from their centres, the rest are those of `default`.
    """
    distances = np.empty(len(source.X), source.X.dtype)
    Clusters(source, origin, len(centres)).assign(centres, distances)
    if source.sample_weight is not None:
        distances[source.sample_weight == 0] = 0
    rows = np.argsort(-distances, kind="stable")[:n_rows]
    rows = rows[distances[rows] > 0]
    result = default.copy()
    result[: len(rows)] = source.X[rows]
    return result


def _variance(source: ArraySource, origin: NDArray) -> float:
    """Return the mean variance of the features, to rounding; 0 if it overflows."""
    one_cluster = Clusters(source, origin, 1)
    inertia = one_cluster.assign(origin[np.newaxis].astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = one_cluster.first_moments[0] / one_cluster.weight_sums[0]
        variance = inertia / one_cluster.weight_sums[0] - float((mean**2).sum())
    return max(0.0, variance) / source.X.shape[1] if np.isfinite(variance) else 0.0
