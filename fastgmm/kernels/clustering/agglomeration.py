"""Agglomeration: clusters merge two at a time, the pair with the lowest loss first.

Each pair of clusters belongs to the younger of the two, and its loss is stored in that one's row of a matrix. Each
cluster remembers its best older partner. When a cluster dies, the rows whose best partner it was are not searched at
once: what they remember is a lower bound, since pairs only disappear from a row. A row is searched again when its bound
is the lowest of all. So a merge computes one row of losses, for all others at once (`merge_losses`), and reads few.

Flops: M^2 losses of pairs, half of them at the start. Cache: two tiles in L1 or L2; the matrix of losses, M^2 float64,
is in memory and most of it is never read again.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, carve, exact_leaf

from .merge_losses import (
    LANES,
    MEAN,
    RANK,
    TERM,
    TRACE,
    WEIGHT,
    emit_determinant_losses,
    emit_distance_losses,
    emit_lowest_of_older,
    emit_trace_losses,
)

# Numbers of the kinds of losses.
DISTANCE, TRACES, DETERMINANTS = range(3)
# Entries of a state.
N_SLOTS, N_ALIVE, N_MERGED, NEWEST = range(4)
# Tasks of the kernel.
ROWS, TILES, MERGES = range(3)
# Part of the slots that are still alive when the clusters move together.
DENSE = 0.75


@exact_leaf
def copy_cluster(tiles, slot, cluster_out):
    """Copy the column of a cluster."""
    for r in range(tiles.shape[1]):
        cluster_out[r] = tiles[slot // LANES, r, slot % LANES]


@exact_leaf
def compute_losses(kind, n_features, tiles, ranks, cluster, constants, work, first, stop, losses_out):
    """Write the losses of merging a cluster with those of the tiles from `first` to `stop`.

    If no merged cluster of a tile can have full rank, traces suffice.
    """
    for t in range(first, stop):
        out = losses_out[t * LANES : (t + 1) * LANES]
        if kind == DISTANCE:
            emit_distance_losses(tiles[t], cluster, n_features, out)
        elif kind == TRACES or cluster[RANK] + ranks[t] + 1 < n_features:
            emit_trace_losses(tiles[t], cluster, n_features, constants, out)
        else:
            emit_determinant_losses(tiles[t], cluster, n_features, constants, work, out)


@exact_leaf
def search_row(losses, births, own, n, bound):
    """Return the lowest loss of a row and its first slot, among the clusters that are older than `own`.

    `bound` is scratch memory for one number.
    """
    bound[0] = own
    emit_lowest_of_older(losses, births, bound, n, bound)
    lowest = bound[0]
    if lowest < np.inf:
        for j in range(n):
            if losses[j] == lowest and births[j] < own:
                return lowest, j
    return np.inf, 0


@exact_leaf
def choose_pair(n, losses, births, best, partner, bound):
    """Return the two slots of the pair with the lowest loss, the younger cluster first.

    Of equal losses, that of the first slot is chosen. Rows whose best partner has died are searched if they could have
    the lowest loss.
    """
    while True:
        i = search_row(best, births, np.inf, n, bound)[1]
        j = partner[i]
        if births[j] < births[i]:
            return i, j
        best[i], partner[i] = search_row(losses[i], births, births[i], n, bound)


@exact_leaf
def join(kind, n_features, tiles, ranks, keep, lost, loss):
    """Merge the cluster of slot `lost` into that of slot `keep`."""
    t, i, u, j = keep // LANES, keep % LANES, lost // LANES, lost % LANES
    weight = tiles[t, WEIGHT, i] + tiles[u, WEIGHT, j]
    factor = tiles[t, WEIGHT, i] * tiles[u, WEIGHT, j] / weight
    share = tiles[u, WEIGHT, j] / weight
    if kind == DETERMINANTS:
        entry = MEAN + n_features
        for r in range(MEAN, MEAN + n_features):
            apart = factor * (tiles[u, r, j] - tiles[t, r, i])
            for s in range(MEAN, r + 1):
                tiles[t, entry, i] += tiles[u, entry, j] + apart * (tiles[u, s, j] - tiles[t, s, i])
                entry += 1
    distance = 0.0
    for r in range(MEAN, MEAN + n_features):
        apart = tiles[u, r, j] - tiles[t, r, i]
        distance += apart * apart
        tiles[t, r, i] += share * apart
    tiles[t, TRACE, i] += tiles[u, TRACE, j] + factor * distance
    if kind != DISTANCE:
        tiles[t, TERM, i] += tiles[u, TERM, j] + loss
    tiles[t, RANK, i] = min(tiles[t, RANK, i] + tiles[u, RANK, j] + 1.0, n_features * 1.0)
    tiles[t, WEIGHT, i] = weight
    ranks[t] = max(ranks[t], tiles[t, RANK, i])


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
        # In place of a partner that has died, its own slot, which is not older: so the row will be searched.
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


def agglomeration_chunk(
    c, memory, task, kind, n_features, first, stop, size, tiles, ranks, constants, births, numbers, losses, best,
    partner, slots, state, merges_out,
):  # fmt: skip
    """Do a part of the agglomeration.

    Task ROWS: chunk c computes `size` rows of the matrix of losses, of those from `first` to `stop`, each up to its
    diagonal, and their best partners. Task TILES: chunk c computes losses of row `first`, those of `size` tiles before
    tile `stop`. Task MERGES: the only chunk merges `size` pairs and computes the losses of each new cluster, or merges
    one pair and leaves the losses to task TILES. One kernel has all tasks, since each would have to compile the losses.
    Flops and cache: see the top of this file.

    Parameters
    ----------
    c : int
        The chunk.
    memory : (n_rows, LANES) or larger, float64
        Scratch memory; see `merging.scratch`.
    task, kind, n_features, first, stop, size : int
    tiles : (n_tiles, n_rows, LANES)
        The clusters, each in a slot; see `merge_losses`.
    ranks : (n_tiles,)
        The highest rank of each tile.
    constants : (4,)
    births : (M,)
        When the cluster in each slot was made; infinite for none.
    numbers : (M,) int64
        Its number.
    losses : (M, M)
        Those of each cluster with older ones.
    best : (M,)
        The lowest loss of each row, or a lower bound of it.
    partner : (M,) int64
        Its slot.
    slots : (M,) int64
        Scratch memory.
    state : (4,) int64
        The number of slots, of clusters and of merges, and the slot of the newest cluster, or -1.
    merges_out : (M - 1, 2) int64
        Receives pairs of numbers, the lower first.
    """
    n_rows = tiles.shape[1]
    bound = carve(memory, 0, 1, LANES, memory)[0]
    cluster = carve(memory, 1, 1, n_rows, memory)[0]
    work = carve(memory, 1 + (n_rows + LANES - 1) // LANES, n_rows + n_features, LANES, memory)
    first_row, stop_row, first_tile, stop_tile = 0, size if task == MERGES else 1, c * size, min((c + 1) * size, stop)
    if task == ROWS:
        first_row, stop_row, first_tile = first + c * size, min(first + (c + 1) * size, stop), 0
    for row in range(first_row, stop_row):
        i = row if task == ROWS else first
        if task == MERGES:
            n = (state[N_SLOTS] + LANES - 1) // LANES * LANES
            i = state[NEWEST]
            if i >= 0:
                best[i], partner[i] = search_row(losses[i], births, births[i], n, bound)
            if n > LANES and state[N_ALIVE] <= DENSE * state[N_SLOTS]:
                state[N_SLOTS] = move_together(n, tiles, ranks, births, numbers, losses, best, partner, slots)
                n = (state[N_SLOTS] + LANES - 1) // LANES * LANES
            younger, older = choose_pair(n, losses, births, best, partner, bound)
            i, lost, step = min(younger, older), max(younger, older), state[N_MERGED]
            merges_out[step, 0], merges_out[step, 1] = numbers[i], numbers[lost]
            join(kind, n_features, tiles, ranks, i, lost, best[younger])
            births[i], births[lost], best[lost] = len(numbers) + step, np.inf, np.inf
            state[N_MERGED], state[N_ALIVE], state[NEWEST] = step + 1, state[N_ALIVE] - 1, i
            if size == 1:
                return
            first_tile, stop_tile = 0, n // LANES
        elif task == ROWS:
            stop_tile = i // LANES + 1
        copy_cluster(tiles, i, cluster)
        compute_losses(
            kind, n_features, tiles, ranks, cluster, constants, work, first_tile, stop_tile, losses[i]
        )  # fmt: skip
        if task == ROWS:
            best[i], partner[i] = search_row(losses[i], births, births[i], stop_tile * LANES, bound)


agglomeration_kernel = Kernel(agglomeration_chunk)
