"""The kernels of agglomeration as functions of plain arrays: the order in which clusters merge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.runtime import Scratch

from .agglomeration import (
    DETERMINANTS,
    DISTANCE,
    MERGES,
    N_MERGED,
    N_SLOTS,
    NEWEST,
    ROWS,
    TILES,
    TRACES,
    agglomeration_kernel,
)
from .merge_losses import (
    LANES,
    LARGEST,
    MEAN,
    RANK,
    SMALLEST,
    TERM,
    TRACE,
    WEIGHT,
    packed,
)
from .pooled_agglomeration import pooled_kernel

# Rows of the matrix of losses in a chunk.
ROWS_PER_CHUNK = 8
# Tiles of a row in a chunk.
TILES_PER_CHUNK = 2
# Added to the diagonal of the pooled covariance, as a part of each feature's variance. So the adjugate exists while
# few clusters have merged.
FLOOR = 1e-10


class MergeCriterion(NamedTuple):
    """Terms that clusters add to the criterion; a merge increases it least.

    A cluster of weight n and scatter W adds ``n log(determinant det((W + prior I) / (n + prior)) + spread (tr W +
    alone) / n)``; for kind DISTANCE it adds tr W. A common factor is irrelevant, so one of `determinant` and `spread`
    can be 1.

    kind : int
        DISTANCE, TRACES (`determinant` is 0) or DETERMINANTS.
    """

    kind: int
    prior: float = 0.0
    determinant: float = 0.0
    spread: float = 1.0
    alone: float = 0.0

    @classmethod
    def distances(cls) -> MergeCriterion:
        """Return Ward's criterion, for equal spherical covariances."""
        return cls(DISTANCE)

    @classmethod
    def traces(cls, *, alone: float) -> MergeCriterion:
        """Return the criterion for spherical covariances."""
        return cls(TRACES, alone=alone)

    @classmethod
    def determinants(cls, determinant: float, spread: float, *, alone: float) -> MergeCriterion:
        """Return the criterion for free covariances."""
        return cls(DETERMINANTS, determinant=determinant, spread=spread, alone=alone)

    @classmethod
    def shrunk(cls, prior: float) -> MergeCriterion:
        """Return the criterion for free covariances that are shrunk to the identity, as by `prior` rows."""
        return cls(DETERMINANTS, prior=prior, determinant=1.0, spread=0.0)


def merge_order(
    weights: np.ndarray, means: np.ndarray, scatter: np.ndarray | None, criterion: MergeCriterion
) -> np.ndarray:
    """Return the order in which clusters merge, until one is left.

    Each step merges the pair that increases the criterion least. Of equal pairs it takes the one whose younger cluster
    has the lowest number, and then the one whose older cluster has. Flops: about M^2 D^3 / 6 multiply-adds for
    determinants, 3 M^2 D without. Cache: see `agglomeration`. Memory: M^2 float64.

    Parameters
    ----------
    weights : (M,) float64
        Positive.
    means : (M, D) float64
        Of such a size that sums over all clusters are finite.
    scatter : (M, D, D) float64, or None
        About the means; None for rows, whose scatter is 0.
    criterion : MergeCriterion

    Returns
    -------
    merges : (M - 1, 2) int64
        The second cluster of a pair is merged into the first, which has the lower number and keeps it.
    """
    n_clusters, n_features = means.shape
    merges = np.empty((max(n_clusters - 1, 0), 2), np.int64)
    if n_clusters < 2:
        return merges
    n_tiles = -(-n_clusters // LANES)
    tiles, ranks = pack(weights, means, scatter, criterion)
    constants = np.array(criterion[1:])
    padded = n_tiles * LANES
    births = np.full(padded, np.inf)
    births[:n_clusters] = np.arange(n_clusters)
    losses = np.empty((n_clusters, padded))
    best, partner = np.full(padded, np.inf), np.zeros(padded, np.int64)
    state = np.array([n_clusters, n_clusters, 0, -1])
    numbers, slots = np.arange(n_clusters), np.empty(padded, np.int64)
    memory = scratch(n_features, tiles.shape[1])
    arrays = tiles, ranks, constants, births, numbers, losses, best, partner, slots, state, merges

    def run(task: int, first: int, stop: int, size: int, multiply_adds: float) -> None:
        agglomeration_kernel(
            -(-(stop - first * (task == ROWS)) // size) if task != MERGES else 1,
            task, criterion.kind, n_features, first, stop, size, *arrays, scratch=memory, multiply_adds=multiply_adds,
        )  # fmt: skip

    per_pair = 3 * n_features + (n_features**3 / 6 if ranks.any() else 0)
    run(ROWS, 0, n_clusters, ROWS_PER_CHUNK, n_clusters**2 / 2 * per_pair)
    per_pair = n_features**3 / 6 if criterion.kind == DETERMINANTS else 0.0
    while state[N_MERGED] < n_clusters - 1:
        multiply_adds = float(state[N_SLOTS]) * per_pair
        if multiply_adds > runtime.MIN_PARALLEL_MULTIPLY_ADDS:
            run(MERGES, 0, 0, 1, 0)
            run(TILES, int(state[NEWEST]), -(-int(state[N_SLOTS]) // LANES), TILES_PER_CHUNK, multiply_adds)
        else:
            run(MERGES, 0, 0, n_clusters - 1 - int(state[N_MERGED]), 0)
    return merges


def pack(
    weights: np.ndarray, means: np.ndarray, scatter: np.ndarray | None, criterion: MergeCriterion
) -> tuple[np.ndarray, np.ndarray]:
    """Return clusters as tiles, and the highest rank of each tile.

    With scatter, or a prior, all ranks count as full.
    """
    n_clusters, n_features = means.shape
    n_tiles = -(-n_clusters // LANES)
    rows = np.zeros((n_tiles * LANES, MEAN + n_features + (criterion.kind == DETERMINANTS) * packed(n_features)))
    rows[:, WEIGHT] = 1.0
    rows[:n_clusters, WEIGHT] = weights
    rows[:n_clusters, RANK] = 0.0 if scatter is None and criterion.prior == 0 else n_features
    rows[:n_clusters, MEAN : MEAN + n_features] = means
    if scatter is not None:
        rows[:n_clusters, TRACE] = np.trace(scatter, axis1=1, axis2=2)
        if criterion.kind == DETERMINANTS:
            lower = np.tril_indices(n_features)
            rows[:n_clusters, MEAN + n_features :] = scatter[:, *lower]
    if criterion.kind != DISTANCE:
        value = criterion.spread * (rows[:n_clusters, TRACE] + criterion.alone) / weights
        if rows[:n_clusters, RANK].any():
            matrices = np.zeros((n_clusters, n_features, n_features)) if scatter is None else scatter
            matrices = matrices + criterion.prior * np.eye(n_features)
            matrices /= (weights + criterion.prior)[:, np.newaxis, np.newaxis]
            value += criterion.determinant * np.exp(np.linalg.slogdet(matrices)[1])
        rows[:n_clusters, TERM] = weights * np.log(np.clip(value, SMALLEST, LARGEST))
    tiles = np.ascontiguousarray(rows.reshape(n_tiles, LANES, -1).swapaxes(1, 2))
    return tiles, tiles[:, RANK].max(axis=1)


def pooled_merge_order(
    weights: np.ndarray, means: np.ndarray, scatter: np.ndarray, determinant: float, spread: float
) -> np.ndarray:
    """Return the order in which clusters merge, until one is left, for equal covariances.

    Flops and cache: see `pooled_agglomeration`.

    Parameters
    ----------
    weights : (M,) float64
        Positive.
    means : (M, D) float64
        Of such a size that sums over all clusters are finite.
    scatter : (D, D) float64
        Of all clusters together, about their means.
    determinant, spread : float
        The factors DETERMINANT and SPREAD of the criterion.

    Returns
    -------
    merges : (M - 1, 2) int64
        The second cluster of a pair is merged into the first, which has the lower number and keeps it.
    """
    n_clusters, n_features = means.shape
    merges = np.empty((max(n_clusters - 1, 0), 2), np.int64)
    if n_clusters < 2:
        return merges
    tiles, _ = pack(weights, means, None, MergeCriterion.distances())
    constants = np.array([0.0, determinant, spread, 0.0])
    padded = tiles.shape[0] * LANES
    births = np.full(padded, np.inf)
    births[:n_clusters] = np.arange(n_clusters)
    weight = weights.sum()
    centred = means - weights @ means / weight
    floor = FLOOR * (weights @ centred**2 + np.diagonal(scatter)) / weight
    pooled_kernel(
        1, n_features, tiles, np.array([weight]), floor, constants, births, np.arange(n_clusters),
        np.empty(padded), np.full(padded, np.inf), np.zeros(padded, np.int64), np.full(padded, -1),
        np.empty(padded, np.int64), np.array(scatter), np.empty((n_features, n_features)),
        np.empty((n_features, n_features)), merges, scratch=Scratch(1 - (-tiles.shape[1] // LANES), LANES),
    )  # fmt: skip
    return merges


def scratch(n_features: int, n_rows: int) -> Scratch:
    """Return the scratch memory for tiles of `n_rows` rows: a tile, a vector and a cluster."""
    return Scratch(1 - (-n_rows // LANES) + n_rows + n_features, LANES)
