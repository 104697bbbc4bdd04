"""Agglomeration: clusters merge two at a time, the pair with the lowest loss first.

Each pair of clusters belongs to the younger of the two, and its loss is stored in that one's row of a matrix. Each
cluster remembers its best older partner. When a cluster dies, the rows whose best partner it was are not searched at
once: what they remember is a lower bound, since pairs only disappear from a row. A row is searched again when its bound
is the lowest of all. So a merge computes one row of losses, for all others at once (`merge_losses`), and reads few.

For equal covariances (EEE) each merge changes all losses, but none gets lower, so that old losses are bounds too. Then
no matrix is stored, and a row that is searched is computed again.

Flops: M^2 losses of pairs, half of them at the start. Cache: two tiles in L1 or L2; the matrix of losses, M^2 float64,
is in memory and most of it is never read again.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.runtime import Kernel, Scratch, bind, carve, exact_leaf

from .merge_losses import (
    LANES,
    LARGEST,
    MEAN,
    RANK,
    SMALLEST,
    TERM,
    TRACE,
    UNROLLED_FEATURES,
    WEIGHT,
    determinant_operation,
    emit_distance_losses,
    emit_lowest_of_older,
    emit_trace_losses,
    packed,
    work_rows,
)

# Numbers of the kinds of losses.
DISTANCE, TRACES, DETERMINANTS = range(3)
# Entries of a state.
N_SLOTS, N_ALIVE, N_MERGED, NEWEST = range(4)
# Part of the slots that are still alive when the clusters move together.
DENSE = 0.75
# Rows of the matrix of losses in a chunk.
ROWS_PER_CHUNK = 8


@exact_leaf
def copy_cluster(tiles, slot, cluster_out):
    """Copy the column of a cluster."""
    for r in range(tiles.shape[1]):
        cluster_out[r] = tiles[slot // LANES, r, slot % LANES]


def compute_losses(kind, n_features, tiles, ranks, cluster, constants, work, first, stop, losses_out):
    """Write the losses of merging a cluster with those of the tiles from `first` to `stop`.

    If no merged cluster of a tile can have full rank, traces suffice. A template: `losses_by_determinants` is bound.
    """
    for t in range(first, stop):
        out = losses_out[t * LANES : (t + 1) * LANES]
        if kind == DISTANCE:
            emit_distance_losses(tiles[t], cluster, n_features, out)
        elif kind == TRACES or cluster[RANK] + ranks[t] + 1 < n_features:
            emit_trace_losses(tiles[t], cluster, n_features, constants, out)
        else:
            losses_by_determinants(tiles[t], cluster, n_features, constants, work, out)  # type: ignore[name-defined]  # noqa: F821


@exact_leaf
def search_row(losses, births, own, n, lowest):
    """Return the lowest loss of a row and its first slot, among the clusters that are older than `own`."""
    lowest[1] = own
    emit_lowest_of_older(losses, births, lowest[1:], n, lowest)
    if lowest[0] < np.inf:
        for j in range(n):
            if losses[j] == lowest[0] and births[j] < own:
                return lowest[0], j
    return np.inf, 0


def rows_chunk(
    c, memory, kind, n_features, first_row, stop_row, rows_per_chunk, tiles_per_chunk, tiles, ranks, constants, births,
    losses_out, best_out, partner_out,
):  # fmt: skip
    """Compute rows of the matrix of losses.

    If `tiles_per_chunk` is 0, chunk c is some of the rows from `first_row` on, each up to its diagonal, and their best
    partners are written too. Otherwise it is some tiles of row `first_row`. Flops and cache: see the top of this file.

    Parameters
    ----------
    c : int
        The chunk.
    memory : (3 + D (D + 1), LANES) or larger, float64
        Scratch memory.
    kind, n_features : int
    first_row, stop_row, rows_per_chunk, tiles_per_chunk : int
    tiles : (n_tiles, n_rows, LANES)
        The clusters; see `merge_losses`.
    ranks : (n_tiles,)
        The highest rank of each tile.
    constants : (4,)
    births : (M,)
        When each cluster was made; infinite for none.
    losses_out : (M, M)
    best_out : (M,)
        The lowest loss of each row, or a lower bound of it.
    partner_out : (M,) int64
        Its slot.
    """
    lowest = memory[0]
    cluster = carve(memory, 1, 1, tiles.shape[1], memory)[0]
    work = memory[1 + (tiles.shape[1] + LANES - 1) // LANES :]
    if tiles_per_chunk > 0:
        copy_cluster(tiles, first_row, cluster)
        first = c * tiles_per_chunk
        stop = min(first + tiles_per_chunk, (stop_row + LANES - 1) // LANES)
        compute_losses(
            kind, n_features, tiles, ranks, cluster, constants, work, first, stop, losses_out[first_row]
        )  # fmt: skip
        return
    for i in range(first_row + c * rows_per_chunk, min(first_row + (c + 1) * rows_per_chunk, stop_row)):
        copy_cluster(tiles, i, cluster)
        stop = i // LANES + 1
        compute_losses(kind, n_features, tiles, ranks, cluster, constants, work, 0, stop, losses_out[i])
        best_out[i], partner_out[i] = search_row(losses_out[i], births, births[i], stop * LANES, lowest)


@exact_leaf
def choose_pair(n, losses, births, best, partner, lowest):
    """Return the two slots of the pair with the lowest loss, the younger cluster first.

    Of equal losses, that of the first slot is chosen. Rows whose best partner has died are searched if they could have
    the lowest loss.
    """
    while True:
        lowest[1] = np.inf
        emit_lowest_of_older(best, births, lowest[1:], n, lowest)
        i = 0
        while i < n - 1 and not (best[i] == lowest[0] and births[i] < np.inf):
            i += 1
        j = partner[i]
        if births[j] < births[i]:
            return i, j
        best[i], partner[i] = search_row(losses[i], births, births[i], n, lowest)


@exact_leaf
def join(kind, n_features, tiles, ranks, keep, lost, loss):
    """Merge the cluster of slot `lost` into that of slot `keep`."""
    a, b = tiles[keep // LANES], tiles[lost // LANES]
    i, j = keep % LANES, lost % LANES
    weight = a[WEIGHT, i] + b[WEIGHT, j]
    factor = a[WEIGHT, i] * b[WEIGHT, j] / weight
    if kind == DETERMINANTS:
        entry = MEAN + n_features
        for r in range(n_features):
            apart = factor * (b[MEAN + r, j] - a[MEAN + r, i])
            for s in range(r + 1):
                a[entry, i] += b[entry, j] + apart * (b[MEAN + s, j] - a[MEAN + s, i])
                entry += 1
    distance = 0.0
    for r in range(MEAN, MEAN + n_features):
        apart = b[r, j] - a[r, i]
        distance += apart * apart
        a[r, i] += b[WEIGHT, j] / weight * apart
    a[TRACE, i] += b[TRACE, j] + factor * distance
    if kind != DISTANCE:
        a[TERM, i] += b[TERM, j] + loss
    a[RANK, i] = min(a[RANK, i] + b[RANK, j] + 1.0, n_features * 1.0)
    a[WEIGHT, i] = weight
    ranks[keep // LANES] = max(ranks[keep // LANES], a[RANK, i])


@exact_leaf
def move_together(n, tiles, ranks, births, numbers, losses, best, partner, slots):
    """Move the clusters that are alive to the first slots, in their order; return their number."""
    n_alive = 0
    for i in range(n):
        slots[i] = n_alive
        if births[i] < np.inf:
            n_alive += 1
    for i in range(n):
        to = slots[i]
        if births[i] == np.inf:
            continue
        for j in range(n):
            if births[j] < np.inf:
                losses[to, slots[j]] = losses[i, j]
        for r in range(tiles.shape[1]):
            tiles[to // LANES, r, to % LANES] = tiles[i // LANES, r, i % LANES]
        # A partner that has died stays so: no cluster is younger than this one in its own slot.
        partner[to] = slots[partner[i]] if births[partner[i]] < births[i] else to
        best[to], numbers[to] = best[i], numbers[i]
    for i in range(n):
        if births[i] < np.inf:
            births[slots[i]] = births[i]
    for i in range(n_alive, n):
        births[i], best[i] = np.inf, np.inf
    for t in range((n_alive + LANES - 1) // LANES):
        ranks[t] = 0.0
        for i in range(LANES):
            ranks[t] = max(ranks[t], tiles[t, RANK, i])
    return n_alive


def merge_chunk(
    c, memory, kind, n_features, n_merges, only_join, tiles, ranks, constants, births, numbers, losses, best, partner,
    slots, state, merges_out,
):  # fmt: skip
    """Merge `n_merges` pairs.

    With `only_join` the losses of the last new cluster are not computed: `rows_chunk` does that, with several threads.
    Flops and cache: see the top of this file.

    Parameters
    ----------
    c : int
        Always 0.
    memory, kind, n_features, tiles, ranks, constants, births, losses, best, partner
        As for `rows_chunk`.
    n_merges, only_join : int
    numbers : (M,) int64
        The number of the cluster in each slot.
    slots : (M,) int64
        Scratch memory.
    state : (4,) int64
        The number of slots, of clusters and of merges, and the slot whose losses are new, or -1.
    merges_out : (M - 1, 2) int64
        Receives pairs of numbers, the lower first.
    """
    lowest = memory[0]
    cluster = carve(memory, 1, 1, tiles.shape[1], memory)[0]
    work = memory[1 + (tiles.shape[1] + LANES - 1) // LANES :]
    for _ in range(n_merges):
        n = (state[N_SLOTS] + LANES - 1) // LANES * LANES
        i = state[NEWEST]
        if i >= 0:
            best[i], partner[i] = search_row(losses[i], births, births[i], n, lowest)
        if n > LANES and state[N_ALIVE] <= DENSE * state[N_SLOTS]:
            state[N_SLOTS] = move_together(n, tiles, ranks, births, numbers, losses, best, partner, slots)
            n = (state[N_SLOTS] + LANES - 1) // LANES * LANES
        i, j = choose_pair(n, losses, births, best, partner, lowest)
        loss = best[i]
        keep, lost = min(i, j), max(i, j)
        step = state[N_MERGED]
        merges_out[step, 0], merges_out[step, 1] = numbers[keep], numbers[lost]
        join(kind, n_features, tiles, ranks, keep, lost, loss)
        births[keep], births[lost] = len(numbers) + step, np.inf
        best[lost] = np.inf
        state[N_MERGED], state[N_ALIVE], state[NEWEST] = step + 1, state[N_ALIVE] - 1, keep
        if only_join == 0:
            copy_cluster(tiles, keep, cluster)
            stop = n // LANES
            compute_losses(
                kind, n_features, tiles, ranks, cluster, constants, work, 0, stop, losses[keep]
            )  # fmt: skip


class Kernels(NamedTuple):
    """The two kernels, specialised for a number of features."""

    rows: Kernel
    merge: Kernel


@functools.cache
def kernels(n_features: int) -> Kernels:
    """Return the kernels specialised for few features; 0 is any number, and criteria without determinants."""
    operation = determinant_operation(n_features)
    losses = exact_leaf(bind(compute_losses, f"losses_{n_features}", losses_by_determinants=operation))
    templates = {"rows": rows_chunk, "merge": merge_chunk}
    return Kernels(
        **{name: Kernel(bind(t, f"{name}_{n_features}", compute_losses=losses)) for name, t in templates.items()}
    )


def scratch(n_features: int, n_rows: int) -> Scratch:
    """Return the scratch memory for tiles of `n_rows` rows: a tile, a vector and a cluster."""
    return Scratch(1 - (-n_rows // LANES) + work_rows(n_features), LANES)


class MergeCriterion(NamedTuple):
    """What clusters add to the criterion that merges increase least.

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
    determinants, 3 M^2 D without. Cache: see the top of this file; memory: M^2 float64.

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
    memory = scratch(n_features, tiles.shape[1])
    few = criterion.kind == DETERMINANTS and n_features <= UNROLLED_FEATURES
    compiled = kernels(n_features if few else 0)
    per_pair = 3 * n_features + (n_features**3 / 6 + n_features**2 if ranks.any() else 0)

    def fill_rows(n_chunks: int, first: int, stop: int, tiles_per_chunk: int, multiply_adds: float) -> None:
        compiled.rows(
            n_chunks, criterion.kind, n_features, first, stop, ROWS_PER_CHUNK, tiles_per_chunk, tiles, ranks, constants,
            births, losses, best, partner, scratch=memory, multiply_adds=multiply_adds,
        )  # fmt: skip

    fill_rows(-(-n_clusters // ROWS_PER_CHUNK), 0, n_clusters, 0, n_clusters**2 / 2 * per_pair)
    state = np.array([n_clusters, n_clusters, 0, -1])
    numbers, slots = np.arange(n_clusters), np.empty(padded, np.int64)
    per_pair = n_features**3 / 6 if criterion.kind == DETERMINANTS else 0.0
    while state[N_MERGED] < n_clusters - 1:
        parallel = state[N_SLOTS] * per_pair > runtime.MIN_PARALLEL_MULTIPLY_ADDS
        n_merges = 1 if parallel else n_clusters - 1 - state[N_MERGED]
        compiled.merge(
            1, criterion.kind, n_features, int(n_merges), int(parallel), tiles, ranks, constants, births, numbers,
            losses, best, partner, slots, state, merges, scratch=memory,
        )  # fmt: skip
        if parallel:
            newest, n_slots = int(state[NEWEST]), int(state[N_SLOTS])
            fill_rows(-(-n_slots // (2 * LANES)), newest, n_slots, 2, n_slots * per_pair)
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
            prior = criterion.prior * np.eye(n_features)
            matrices = (prior if scatter is None else scatter + prior) / (weights + criterion.prior)[
                :, np.newaxis, np.newaxis
            ]
            value += criterion.determinant * np.exp(np.linalg.slogdet(matrices)[1])
        rows[:n_clusters, TERM] = weights * np.log(np.clip(value, SMALLEST, LARGEST))
    tiles = np.ascontiguousarray(rows.reshape(n_tiles, LANES, -1).swapaxes(1, 2))
    return tiles, tiles[:, RANK].max(axis=1)
