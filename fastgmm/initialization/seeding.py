"""k-means++: seeds of k-means, drawn by weight and distance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.data.random_stream import RandomStream, drawer
from fastgmm.data.sources import ArraySource

Array = NDArray[np.float64]
# Up to this number of rows and of bytes, a kernel makes each start on one thread: five starts of 10 clusters of
# 1,797 x 16 rows take 1.3 ms instead of 16 ms.
SERIAL_ROWS = 16_384
SERIAL_BYTES = 64 * 1024 * 1024
# A single start of more multiply-adds than this uses all threads instead.
SERIAL_OPERATIONS = 5e8
# Upper limit of squared distances, so that their sums are finite.
FARTHEST = {np.dtype(np.float64): 1e290, np.dtype(np.float32): 1e38}
# With more rows than this, at most this number of bytes and at least this number of clusters, seeds are drawn from a
# copy in float32: 16 seeds of 50,000 x 64 rows take 20 ms instead of 30 ms.
SINGLE_ROWS = SERIAL_ROWS
SINGLE_BYTES = SERIAL_BYTES
SINGLE_CLUSTERS = 8
# float32 rounds rows by up to 6e-8 of their size. If the sum of squared distances after the last seed is at most this
# part of the rows' sum of squares, rounding may have decided, and the seeds are drawn again in float64. This part is
# about 1e8 times the square of the rounding.
PRECISE = 4e-7


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
    if is_serial(source, n_clusters, 1):
        limits = kernels.KMeansLimits(0, 0, 0.0, FARTHEST[X.dtype])
        return X[quick_kmeans(source, n_clusters, stream, limits).rows[0]].astype(np.float64)
    if X.dtype == np.float64 and len(X) > SINGLE_ROWS and 4 * X.size <= SINGLE_BYTES and n_clusters >= SINGLE_CLUSTERS:
        rows = _seeds_in_single_precision(source, n_clusters, stream)
    if rows is None:
        rows, _ = _seeds(source, n_clusters, stream)
    return X[rows].astype(np.float64)


def is_serial(source: ArraySource, n_clusters: int, n_starts: int) -> bool:
    """Return whether the serial kernel makes the starts, each on one thread."""
    return is_serial_shape(source.X.shape, source.X.dtype, n_clusters, n_starts)


def is_serial_shape(shape: tuple[int, ...], dtype: np.dtype, n_clusters: int, n_starts: int) -> bool:
    """Return `is_serial` for rows of a shape, (n, D), and dtype."""
    size = shape[0] * shape[1]
    short = n_starts > 1 or 2 * size * n_clusters * n_trials_per_seed(n_clusters) <= SERIAL_OPERATIONS
    return short and shape[0] <= SERIAL_ROWS and size * dtype.itemsize <= SERIAL_BYTES


def quick_kmeans(
    source: ArraySource,
    n_clusters: int,
    stream: RandomStream,
    limits: kernels.KMeansLimits,
    *,
    n_problems: int = 1,
    n_starts: int = 1,
) -> kernels.KMeansResults:
    """Run k-means from k-means++ starts with the serial kernel.

    Parameters
    ----------
    source : ArraySource
    n_clusters : int
    stream : RandomStream
    limits : KMeansLimits
    n_problems : int
        Number of times that k-means is run, on as many threads.
    n_starts : int
        Number of starts of which each run keeps the best.
    """
    n_numbers = 1 + (n_clusters - 1) * n_trials_per_seed(n_clusters)
    uniforms = stream.uniforms(n_problems * n_starts * n_numbers).reshape(n_problems, n_starts, n_numbers)
    parts = np.array([[0, len(source.X)]] * n_problems)
    return kernels.kmeans_problems(source.X, source.sample_weight, parts, uniforms, n_clusters, limits)


def n_trials_per_seed(n_clusters: int) -> int:
    """Return the number of rows that are tried for each seed, as in scikit-learn."""
    return 2 + int(math.log(n_clusters))


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
    n_trials = n_trials_per_seed(n_clusters)
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
