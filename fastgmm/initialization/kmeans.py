"""k-means: seeds drawn by their distance, Lloyd's steps; all weighted.

Lloyd's steps look only at rows whose nearest centre may have changed (G. Hamerly, "Making k-means even faster", 2010,
with one bound for each row instead of two). The labels are those of the plain algorithm but for ties within rounding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream, at_most, drawer
from fastgmm.data.sources import ArraySource

Array = NDArray[np.float64]
MAX_STEPS, TOLERANCE = 300, 1e-4  # scikit-learn's
# Starts that are tried, on how many rows, and for how many steps.
MAX_STARTS, FEW_ROWS, FEW_ROWS_PER_CLUSTER, FEW_STEPS = 5, 2_000, 64, 5
# With at most so many rows and bytes, one compiled function makes each start, on one thread: five starts of 10 clusters
# take 1.3 ms instead of 16 (1,797 x 16 rows), of 200 clusters 0.16 s instead of 0.78 (12,800 x 12 rows). A single start
# of more multiply-adds than this uses all threads instead.
FEW_ENOUGH, FEW_BYTES, SHORT_ENOUGH = 16_384, 64 * 1024 * 1024, 5e8
FARTHEST = {np.dtype(np.float64): 1e290, np.dtype(np.float32): 1e38}
# A sum that has become this much smaller than it was has lost too many digits to go on from.
LOSSY = 1e-6
# Of so many rows, within so many bytes, and for so many clusters seeds are drawn from a copy in single precision: of
# 50,000 rows of 64 features 16 took 20 ms in place of 30, of 40 features 512 0.35 s in place of 0.64. Rows are rounded
# by up to 6e-8 of their size then. Where what is left after the last seed is no more than this part of the rows' sum of
# squares, about 1e8 times as much as that rounding comes to, distances are too near to it, and all is done again.
SINGLE_ROWS, SINGLE_BYTES, SINGLE_CLUSTERS, PRECISE = FEW_ENOUGH, FEW_BYTES, 8, 4e-7


class Clusters:
    """The rows of a source, each given to the nearest of some centres, kept up to date while the centres move.

    A row has a label and a gap: how much farther the second nearest centre was when the row was last looked at, less
    what its own centre and the fastest of the others have moved since. As long as that is positive, the label is right.
    In 20 to 30 steps from a k-means++ start that spared 55 to 90 % of the distances (2 to 64 features, 8 to 512
    overlapping clusters). Two bounds, and distances to the own centre alone, would spare 68 to 93 %, for twice the
    memory.

    Attributes
    ----------
    labels : (N,) int32
    weight_sums : (K,)
        Weights of the clusters' rows.
    first : (K, D)
        Weighted sums of the clusters' rows, less the origin.
    """

    def __init__(self, source: ArraySource, origin: NDArray, n_clusters: int):
        self.source, self.origin = source, origin
        self.labels = np.full(len(source.X), -1, np.int32)
        self.weight_sums, self.first = np.zeros(n_clusters), np.zeros((n_clusters, len(origin)))
        self._gap = np.zeros(len(source.X), np.float32)
        self._centres: NDArray | None = None
        self._largest = np.zeros((2, n_clusters))

    def assign(self, centres: Array, distances: NDArray | None = None) -> float:
        """Give every row to its nearest centre, (K, D); the sum of squared distances, if that is for the first time.

        `distances` (N,) of X's dtype receives the squared distances of the rows that are looked at: of all, likewise.
        """
        shifted = np.ascontiguousarray(centres - self.origin.astype(np.float64), dtype=self.origin.dtype)
        inertia = self._step(shifted, distances)
        sizes = self._sizes()
        if (sizes < LOSSY * self._largest).any():
            self.labels.fill(-1)
            self.weight_sums[:], self.first[:], self._largest[:] = 0, 0, 0
            inertia = self._step(shifted, distances)
            sizes = self._sizes()
        np.maximum(self._largest, sizes, out=self._largest)
        return inertia

    def means(self) -> Array:
        """The clusters' means, (K, D); for clusters without rows, the rows farthest from their centres."""
        assert self._centres is not None
        origin, filled = self.origin.astype(np.float64), self.weight_sums > 0
        means = origin + self._centres
        means[filled] = origin + self.first[filled] / self.weight_sums[filled, np.newaxis]
        if not filled.all():
            centres = origin + self._centres
            means[~filled] = farthest_rows(self.source, self.origin, centres, int((~filled).sum()), means[~filled])
        return means

    def _step(self, shifted: NDArray, distances: NDArray | None) -> float:
        X, sample_weight = self.source.X, self.source.sample_weight
        weight_sums, first, inertia = kernels.lloyd_step(
            X, sample_weight, self.origin, shifted, self._lost(shifted), self.labels, self._gap, distances=distances
        )
        self.weight_sums += weight_sums
        self.first += first
        self._centres = shifted
        return inertia

    def _lost(self, shifted: NDArray) -> NDArray[np.float32]:
        """What the gaps of each centre's rows lose, rounded up: its own move, and the longest of the others'."""
        if self._centres is None:
            return np.zeros(len(shifted), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            moves = np.sqrt(((shifted.astype(np.float64) - self._centres) ** 2).sum(axis=1))
            order = np.argsort(moves)
            others = np.full(len(moves), moves[order[-1]])
            others[order[-1]] = moves[order[-2]] if len(moves) > 1 else 0.0
            return ((moves + others) * (1 + 1e-6)).astype(np.float32)

    def _sizes(self) -> Array:
        return np.array([self.weight_sums, np.abs(self.first).max(axis=1)])


def kmeans(source: ArraySource, n_clusters: int, stream: RandomStream) -> tuple[Array, NDArray[np.int32]]:
    """Lloyd's algorithm from the best of some k-means++ starts.

    Returns
    -------
    centres : (n_clusters, D)
    labels : (N,) int32
    """
    return lloyd(source, best_start(source, n_clusters, stream))


def best_start(source: ArraySource, n_clusters: int, stream: RandomStream) -> Array:
    """Centres (n_clusters, D) to start from: of some k-means++ starts the one that is best after a few steps.

    The more clusters, the more starts, since more can go wrong; all on a sample of at least 64 rows a cluster. Of 12
    seeds a single start led to all of twelve clear clusters (5,000 rows, 8 features) with 5, the best of four with 12.
    """
    n_starts = min(MAX_STARTS, 1 + n_clusters // 4)
    if n_starts == 1:
        return kmeans_plusplus(source, n_clusters, stream)
    return quick_start(few_rows(source, n_clusters, stream), n_clusters, stream, n_starts=n_starts)


def quick_start(
    source: ArraySource, n_clusters: int, stream: RandomStream, *, steps: int = FEW_STEPS, n_starts: int = 1
) -> Array:
    """Centres (n_clusters, D) after a few of Lloyd's steps from k-means++; of some starts the best."""
    origin = source.point_near().astype(source.X.dtype)
    if _is_few(source, n_clusters, n_starts):
        starts = _starts(source, origin, n_clusters, stream, steps, n_starts)
        best = int(np.argmin(np.nan_to_num(starts.inertia, nan=np.inf)))
        return starts.centres[best] + origin.astype(np.float64)
    best, lowest = None, math.inf
    for _ in range(n_starts):
        centres = _move(Clusters(source, origin, n_clusters), kmeans_plusplus(source, n_clusters, stream), steps, 0.0)
        # Of all rows: if they are looked at for the first time.
        inertia = Clusters(source, origin, n_clusters).assign(centres)
        if best is None or inertia < lowest:
            best, lowest = centres, inertia
    assert best is not None
    return best


def _is_few(source: ArraySource, n_clusters: int, n_starts: int) -> bool:
    """Whether starts are made by a kernel of their own, one thread a start."""
    short = n_starts > 1 or 2 * source.X.size * n_clusters * _n_trials(n_clusters) <= SHORT_ENOUGH
    return short and len(source.X) <= FEW_ENOUGH and source.X.nbytes <= FEW_BYTES


def _n_trials(n_clusters: int) -> int:
    """How many rows are drawn for each seed."""
    return 2 + int(math.log(n_clusters))


def _starts(
    source: ArraySource, origin: NDArray, n_clusters: int, stream: RandomStream, n_steps: int, n_starts: int
) -> kernels.KMeansStarts:
    """Starts of k-means of few rows."""
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
    """A sample large enough to try starts on, or the source if that is no larger."""
    enough = max(FEW_ROWS, FEW_ROWS_PER_CLUSTER * n_clusters)
    return at_most(source, enough, stream)


def lloyd(
    source: ArraySource, centres: Array, *, max_steps: int = MAX_STEPS, tolerance: float = TOLERANCE
) -> tuple[Array, NDArray[np.int32]]:
    """Move centres (K, D) to the means of the rows that are nearest to them, again and again.

    Until their squared moves add up to no more than `tolerance` times the variance of a feature, or for `max_steps`.

    Returns
    -------
    centres : (K, D)
    labels : (N,) int32
        The nearest of these centres.
    """
    origin = source.point_near().astype(source.X.dtype)
    least = tolerance * _variance(source, origin) if tolerance > 0 else 0.0
    clusters = Clusters(source, origin, len(centres))
    centres = _move(clusters, centres, max_steps, least)
    clusters.assign(centres)
    return centres, clusters.labels


def _move(clusters: Clusters, centres: Array, max_steps: int, least: float) -> Array:
    """Lloyd's steps: where the centres are when their squared moves add up to no more than `least`."""
    for _ in range(max_steps):
        clusters.assign(centres)
        moved = clusters.means()
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= least:
            break
    return centres


def kmeans_plusplus(source: ArraySource, n_clusters: int, stream: RandomStream) -> Array:
    """Rows drawn one after the other with probability proportional to weight times squared distance to those so far.

    Of ``2 + log(n_clusters)`` draws for each, the one that lowers the sum of squared distances most is taken (greedy
    k-means++, as in scikit-learn). If fewer than `n_clusters` different rows exist, some are drawn twice.

    The bound that spares Lloyd's steps most distances was counted here, not built: with half the distance from a row's
    centre to the nearest draw 66 to 88 % of the rows would have to be looked at all the same.

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
    """The numbers of the rows that k-means++ draws, and the weighted sum of squared distances that they leave."""
    X, sample_weight = source.X, source.sample_weight
    origin = source.point_near().astype(X.dtype)
    n_trials = _n_trials(n_clusters)
    # Squared distances to the chosen rows; the latest may not be among them yet, it joins in the next pass. No distance
    # is beyond this, so that sums of them are finite and something to draw from.
    closest = np.full(len(X), FARTHEST[X.dtype], X.dtype)
    chosen = np.empty(n_clusters, np.intp)
    draw = drawer(source, stream)
    chosen[0] = draw()
    uniforms = stream.uniforms((n_clusters - 1) * n_trials).reshape(-1, n_trials)
    first = X[chosen[:1]] - origin
    potentials, width = kernels.seed_step(X, sample_weight, origin, first[:0], first, closest)
    potential = potentials[:, 0]
    for k in range(1, n_clusters):
        if not potential.sum() > 0:  # every row is one of those chosen
            chosen[k] = draw()
            continue
        latest = X[chosen[k - 1 : k]] - origin
        rows = _draw_by_distance(source, origin, latest, closest, potential, width, uniforms[k - 1])
        potentials, width = kernels.seed_step(X, sample_weight, origin, X[rows] - origin, latest, closest)
        best = int(potentials.sum(axis=0)[1:].argmin())
        chosen[k], potential = rows[best], potentials[:, 1 + best]
    return chosen, float(potential.sum())


def _seeds_in_single_precision(source: ArraySource, n_clusters: int, stream: RandomStream) -> NDArray[np.intp] | None:
    """`_seeds` from the rows, less a point near them, in float32; None if rounding has a say in them."""
    copy = np.empty(source.X.shape, np.float32)
    with np.errstate(over="ignore"):
        np.subtract(source.X, source.point_near(), out=copy, casting="same_kind")
    single = ArraySource(copy, source.sample_weight)
    squares = _sum_of_squares(single)
    if not math.isfinite(squares):
        return None
    rows, left = _seeds(single, n_clusters, stream)
    return rows if left > PRECISE * squares else None


def _sum_of_squares(source: ArraySource) -> float:
    """The weighted sum of all squares."""
    nowhere, closest = np.zeros((1, source.X.shape[1]), source.X.dtype), np.full(len(source.X), np.inf, source.X.dtype)
    potentials, _ = kernels.seed_step(source.X, source.sample_weight, nowhere[0], nowhere, nowhere[:0], closest)
    return float(potentials[:, 1].sum())


def farthest_rows(source: ArraySource, origin: NDArray, centres: Array, n_rows: int, otherwise: Array) -> Array:
    """The rows farthest from their nearest centres, for clusters without any; `otherwise` where there are too few."""
    distances = np.empty(len(source.X), source.X.dtype)
    Clusters(source, origin, len(centres)).assign(centres, distances)
    if source.sample_weight is not None:
        distances[source.sample_weight == 0] = 0
    rows = np.argsort(-distances, kind="stable")[:n_rows]
    rows = rows[distances[rows] > 0]
    result = otherwise.copy()
    result[: len(rows)] = source.X[rows]
    return result


def _variance(source: ArraySource, origin: NDArray) -> float:
    """About the variance of the rows, averaged over features; 0 if it cannot be represented."""
    one = Clusters(source, origin, 1)
    inertia = one.assign(origin[np.newaxis].astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        variance = inertia / one.weight_sums[0] - float(((one.first[0] / one.weight_sums[0]) ** 2).sum())
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
    """The numbers of rows drawn with probability proportional to weight times squared distance, one a uniform number.

    `potential` has the sums over tiles of so many rows, to all chosen rows; `closest` has the distances, perhaps
    without the latest.
    """
    cumulative = np.cumsum(potential)
    targets = uniforms * cumulative[-1]
    tiles = [_invert(potential, cumulative, target) for target in targets]
    # All tiles that are drawn from in one step: with one for each draw seeds of 200,000 rows of 10 features and 500,000
    # of 2 took 1.4 and 1.5 times as long; with 32 features and more as long.
    wanted = sorted(set(tiles))
    rows = {tile: np.arange(tile * width, min((tile + 1) * width, len(source.X))) for tile in wanted}
    some = np.concatenate([rows[tile] for tile in wanted])
    distances = closest[some]
    kernels.seed_step(source.X[some], None, origin, latest[:0], latest, distances)
    mass = distances.astype(np.float64)
    if source.sample_weight is not None:
        mass *= source.sample_weight[some]
    ends = np.cumsum([len(rows[tile]) for tile in wanted])
    masses = {tile: (m, np.cumsum(m)) for tile, m in zip(wanted, np.split(mass, ends[:-1]), strict=True)}
    before = np.concatenate([[0.0], cumulative])
    return [
        int(rows[tile][0]) + _invert(*masses[tile], target - before[tile])
        for tile, target in zip(tiles, targets, strict=True)
    ]


def _invert(mass: Array, cumulative: Array, target: float) -> int:
    """The first index at which the cumulative sum of `mass` exceeds a target, of those with a positive mass."""
    index = int(np.searchsorted(cumulative, target, side="right"))
    if index < len(mass) and mass[index] > 0:
        return index
    positive = np.flatnonzero(mass > 0)
    return int(positive[min(int(np.searchsorted(positive, index)), len(positive) - 1)])
