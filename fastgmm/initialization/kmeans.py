"""k-means of weighted rows: k-means++ seeds and Lloyd's steps.

Lloyd's steps compute distances only for rows whose nearest centre may have changed (G. Hamerly, "Making k-means even
faster", 2010, with one bound for each row instead of two). The labels are those of the plain algorithm, except for ties
within rounding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream, at_most, drawer
from fastgmm.data.sources import ArraySource

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
# Up to this number of rows and of bytes, a kernel makes each start on one thread: five starts of 10 clusters of
# 1,797 x 16 rows take 1.3 ms instead of 16 ms.
SERIAL_ROWS = 16_384
SERIAL_BYTES = 64 * 1024 * 1024
# A single start of more multiply-adds than this uses all threads instead.
SERIAL_OPERATIONS = 5e8
# Upper limit of squared distances, so that their sums are finite.
FARTHEST = {np.dtype(np.float64): 1e290, np.dtype(np.float32): 1e38}
# A sum over a cluster's rows that shrinks to this part of its largest value has lost too many digits. All sums are then
# computed again.
LOSSY = 1e-6
# With more rows than this, at most this number of bytes and at least this number of clusters, seeds are drawn from a
# copy in float32: 16 seeds of 50,000 x 64 rows take 20 ms instead of 30 ms.
SINGLE_ROWS = SERIAL_ROWS
SINGLE_BYTES = SERIAL_BYTES
SINGLE_CLUSTERS = 8
# float32 rounds rows by up to 6e-8 of their size. If the sum of squared distances after the last seed is at most this
# part of the rows' sum of squares, rounding may have decided, and the seeds are drawn again in float64. This part is
# about 1e8 times the square of the rounding.
PRECISE = 4e-7


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
    return lloyd(source, best_start(source, n_clusters, stream))


def best_start(source: ArraySource, n_clusters: int, stream: RandomStream) -> Array:
    """Return the best of several k-means++ starts after a few steps, (n_clusters, D).

    The number of starts grows with the number of clusters, since more clusters can be missed. They are compared on a
    sample. With 12 clear clusters (5,000 rows, 8 features), one start found all clusters for 5 of 12 seeds. The best of
    four starts found them for all 12.
    """
    n_starts = min(MAX_STARTS, 1 + n_clusters // 4)
    if n_starts == 1:
        return kmeans_plusplus(source, n_clusters, stream)
    return quick_start(few_rows(source, n_clusters, stream), n_clusters, stream, n_starts=n_starts)


def quick_start(
    source: ArraySource, n_clusters: int, stream: RandomStream, *, steps: int = SHORT_STEPS, n_starts: int = 1
) -> Array:
    """Return the best k-means++ start after a few of Lloyd's steps, (n_clusters, D)."""
    origin = source.point_near().astype(source.X.dtype)
    if _is_few(source, n_clusters, n_starts):
        starts = _starts(source, origin, n_clusters, stream, steps, n_starts)
        best = int(np.argmin(np.nan_to_num(starts.inertia, nan=np.inf)))
        return starts.centres[best] + origin.astype(np.float64)
    best, lowest = None, math.inf
    for _ in range(n_starts):
        centres = _move(Clusters(source, origin, n_clusters), kmeans_plusplus(source, n_clusters, stream), steps, 0.0)
        # A new object computes the distances of all rows.
        inertia = Clusters(source, origin, n_clusters).assign(centres)
        if best is None or inertia < lowest:
            best, lowest = centres, inertia
    assert best is not None
    return best


def _is_few(source: ArraySource, n_clusters: int, n_starts: int) -> bool:
    """Return whether the serial kernel makes the starts, each on one thread."""
    short = n_starts > 1 or 2 * source.X.size * n_clusters * _n_trials(n_clusters) <= SERIAL_OPERATIONS
    return short and len(source.X) <= SERIAL_ROWS and source.X.nbytes <= SERIAL_BYTES


def _n_trials(n_clusters: int) -> int:
    """Return the number of rows that are tried for each seed, as in scikit-learn."""
    return 2 + int(math.log(n_clusters))


def _starts(
    source: ArraySource, origin: NDArray, n_clusters: int, stream: RandomStream, n_steps: int, n_starts: int
) -> kernels.KMeansStarts:
    """Make k-means++ starts, and a few of Lloyd's steps, with the serial kernel."""
    n_numbers = 1 + (n_clusters - 1) * _n_trials(n_clusters)
    uniforms = stream.uniforms(n_starts * n_numbers).reshape(n_starts, n_numbers)
    return kernels.kmeans_starts(
        source.X,
        source.sample_weight,
        origin,
        uniforms,
        n_clusters,
        n_steps=n_steps,
        farthest=FARTHEST[source.X.dtype],
    )


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


def kmeans_plusplus(source: ArraySource, n_clusters: int, stream: RandomStream) -> Array:
    """Draw rows far from each other, as k-means++ does.

    The probability of a row is proportional to its weight times its squared distance to the nearest row drawn before.
    Each seed is the best of ``2 + log(n_clusters)`` draws: the one that lowers the sum of squared distances most. This
    is greedy k-means++, as in scikit-learn. If fewer than `n_clusters` different rows exist, some are drawn twice.

    Returns
    -------
    points : (n_clusters, D)
    """
    X, rows = source.X, None
    if _is_few(source, n_clusters, 1):
        starts = _starts(source, source.point_near().astype(X.dtype), n_clusters, stream, 0, 1)
        return X[starts.rows[0]].astype(np.float64)
    if X.dtype == np.float64 and len(X) > SINGLE_ROWS and 4 * X.size <= SINGLE_BYTES and n_clusters >= SINGLE_CLUSTERS:
        rows = _seeds_in_single_precision(source, n_clusters, stream)
    if rows is None:
        rows, _ = _seeds(source, n_clusters, stream)
    return X[rows].astype(np.float64)


def _seeds(source: ArraySource, n_clusters: int, stream: RandomStream) -> tuple[NDArray[np.intp], float]:
    """Draw the seeds of k-means++.

    Returns
    -------
    rows : (n_clusters,) int
    potential : float
        The weighted sum of squared distances to the nearest of these rows.
    """
    X, sample_weight = source.X, source.sample_weight
    origin = source.point_near().astype(X.dtype)
    n_trials = _n_trials(n_clusters)
    # Squared distances to the rows chosen before the latest one, which the next pass takes into account.
    closest = np.full(len(X), FARTHEST[X.dtype], X.dtype)
    chosen = np.empty(n_clusters, np.intp)
    draw = drawer(source, stream)
    chosen[0] = draw()
    uniforms = stream.uniforms((n_clusters - 1) * n_trials).reshape(-1, n_trials)
    first = X[chosen[:1]] - origin
    potentials, width = kernels.seed_step(X, sample_weight, origin, first[:0], first, closest)
    potential = potentials[:, 0]
    for k in range(1, n_clusters):
        if not potential.sum() > 0:  # every row is equal to a chosen one
            chosen[k] = draw()
            continue
        latest = X[chosen[k - 1 : k]] - origin
        rows = _draw_by_distance(source, origin, latest, closest, potential, width, uniforms[k - 1])
        potentials, width = kernels.seed_step(X, sample_weight, origin, X[rows] - origin, latest, closest)
        best = int(potentials.sum(axis=0)[1:].argmin())
        chosen[k], potential = rows[best], potentials[:, 1 + best]
    return chosen, float(potential.sum())


def _seeds_in_single_precision(source: ArraySource, n_clusters: int, stream: RandomStream) -> NDArray[np.intp] | None:
    """Draw the seeds of k-means++ in float32, about a point near the rows.

    Return None if rounding may have decided.
    """
    copy = np.empty(source.X.shape, np.float32)
    with np.errstate(over="ignore"):
        np.subtract(source.X, source.point_near(), out=copy, casting="same_kind")
    single = ArraySource(copy, source.sample_weight)
    squares = _sum_of_squares(single)
    if not math.isfinite(squares):
        return None
    rows, potential = _seeds(single, n_clusters, stream)
    return rows if potential > PRECISE * squares else None


def _sum_of_squares(source: ArraySource) -> float:
    """Return the weighted sum of the squares of all entries."""
    zero, closest = np.zeros((1, source.X.shape[1]), source.X.dtype), np.full(len(source.X), np.inf, source.X.dtype)
    potentials, _ = kernels.seed_step(source.X, source.sample_weight, zero[0], zero, zero[:0], closest)
    return float(potentials[:, 1].sum())


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


def _draw_by_distance(
    source: ArraySource,
    origin: NDArray,
    latest: NDArray,
    closest: NDArray,
    potential: Array,
    width: int,
    uniforms: Array,
) -> list[int]:
    """Draw a row for each uniform number.

    The probability is proportional to weight times squared distance to the chosen rows.

    Parameters
    ----------
    source : ArraySource
    origin : (D,)
        Subtracted from the rows.
    latest : (1, D)
        The latest chosen row, less the origin.
    closest : (N,)
        Squared distances to the chosen rows; those to the latest row may not be included.
    potential : (n_tiles,)
        Sums over tiles of weights times squared distances to all chosen rows.
    width : int
        Number of rows of a tile.
    uniforms : (n_draws,)

    Returns
    -------
    rows : list of int
    """
    cumulative = np.cumsum(potential)
    targets = uniforms * cumulative[-1]
    tiles = [_invert(potential, cumulative, target) for target in targets]
    # One step for all tiles that are drawn from. With one step for each draw, seeds of 200,000 x 10 rows took 1.4 times
    # as long.
    drawn_tiles = sorted(set(tiles))
    rows = {tile: np.arange(tile * width, min((tile + 1) * width, len(source.X))) for tile in drawn_tiles}
    indices = np.concatenate([rows[tile] for tile in drawn_tiles])
    distances = closest[indices]
    kernels.seed_step(source.X[indices], None, origin, latest[:0], latest, distances)
    mass = distances.astype(np.float64)
    if source.sample_weight is not None:
        mass *= source.sample_weight[indices]
    ends = np.cumsum([len(rows[tile]) for tile in drawn_tiles])
    masses = {tile: (m, np.cumsum(m)) for tile, m in zip(drawn_tiles, np.split(mass, ends[:-1]), strict=True)}
    before = np.concatenate([[0.0], cumulative])
    return [
        int(rows[tile][0]) + _invert(*masses[tile], target - before[tile])
        for tile, target in zip(tiles, targets, strict=True)
    ]


def _invert(mass: Array, cumulative: Array, target: float) -> int:
    """Return the first index at which the cumulative sum exceeds a target.

    Indices without mass are skipped.
    """
    index = int(np.searchsorted(cumulative, target, side="right"))
    if index < len(mass) and mass[index] > 0:
        return index
    positive = np.flatnonzero(mass > 0)
    return int(positive[min(int(np.searchsorted(positive, index)), len(positive) - 1)])
