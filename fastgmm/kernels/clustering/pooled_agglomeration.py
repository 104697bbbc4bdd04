"""Agglomeration for equal covariances (EEE), whose pooled scatter each merge changes.

The criterion is ``DETERMINANT det(W / n) + SPREAD tr(W / n)`` of the pooled scatter W and the sum n of all weights. A
merge adds ``f d d^T`` to W, with the difference d of two means and ``f = n_i n_j / (n_i + n_j)``. So its loss is, but
for a factor, ``f d^T A d`` with ``A = DETERMINANT adj(W / n) + SPREAD I``: a distance, of which A is the metric.

A never gets smaller in any direction, so no loss gets lower, and a loss that was computed earlier is a lower bound.
Each cluster remembers the lowest loss with an older one. It is computed again when it is the lowest of all, with the
metric of that time. The pair merges when that changes nothing. No matrix of losses is stored; see `agglomeration` for
the other criteria.

Flops: D^2 multiply-adds for each pair whose loss is computed, D^3 for each merge. Cache: the clusters, M D numbers, in
L2.
"""

from __future__ import annotations

import math

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, carve, exact_leaf

from .agglomeration import copy_cluster, search_row
from .merge_losses import (
    DETERMINANT,
    LANES,
    MEAN,
    SPREAD,
    WEIGHT,
    emit_metric_losses,
)


@exact_leaf
def update_metric(scatter, weight, floor, constants, lower, metric_out):
    """Write the metric of a pooled scatter.

    The adjugate is the determinant times the inverse; it counts as zero if the matrix is singular.
    """
    n_features = scatter.shape[0]
    determinant = constants[DETERMINANT]
    for q in range(n_features):
        for r in range(q, n_features):
            rest = scatter[r, q] / weight
            if r == q:
                rest += floor[q]
            for s in range(q):
                rest -= lower[r, s] * lower[q, s]
            if r > q:
                lower[r, q] = rest / lower[q, q]
            elif rest > 0:
                determinant *= rest
                lower[q, q] = math.sqrt(rest)
            else:
                determinant *= 0.0
                lower[q, q] = 1.0
    for q in range(n_features):  # the inverse of the factor, in the columns of the metric
        for r in range(n_features):
            rest = 1.0 if r == q else 0.0
            for s in range(q, r):
                rest -= lower[r, s] * metric_out[s, q]
            metric_out[r, q] = rest / lower[r, r] if r >= q else 0.0
    for q in range(n_features):
        for r in range(q, n_features):
            total = 0.0
            for s in range(r, n_features):
                total += metric_out[s, q] * metric_out[s, r]
            lower[q, r] = total  # above the factor's diagonal, or on it: it is not needed any more
    for q in range(n_features):
        for r in range(q, n_features):
            entry = determinant * lower[q, r] + (constants[SPREAD] if r == q else 0.0)
            metric_out[q, r], metric_out[r, q] = entry, entry


@exact_leaf
def search_pooled(n_features, tiles, n, births, slot, metric, cluster, losses, bound):
    """Return the lowest loss of a cluster with an older one, and that one's slot."""
    copy_cluster(tiles, slot, cluster)
    for t in range(n // LANES):
        emit_metric_losses(tiles[t], cluster, n_features, metric, losses[t * LANES : (t + 1) * LANES])
    return search_row(losses, births, births[slot], n, bound)


@exact_leaf
def join_pooled(n_features, tiles, keep, lost, scatter):
    """Merge two clusters, and add what that adds to the pooled scatter."""
    a, b = tiles[keep // LANES], tiles[lost // LANES]
    i, j = keep % LANES, lost % LANES
    weight = a[WEIGHT, i] + b[WEIGHT, j]
    factor = a[WEIGHT, i] * b[WEIGHT, j] / weight
    for r in range(n_features):
        apart = factor * (b[MEAN + r, j] - a[MEAN + r, i])
        for s in range(n_features):
            scatter[r, s] += apart * (b[MEAN + s, j] - a[MEAN + s, i])
    for r in range(MEAN, MEAN + n_features):
        a[r, i] += b[WEIGHT, j] / weight * (b[r, j] - a[r, i])
    a[WEIGHT, i] = weight


@exact_leaf
def close_gaps(n, tiles, births, numbers, best, partner, stamps, slots):
    """Move the clusters that are alive to the first slots, in their order; return their number."""
    n_alive = 0
    for i in range(n):
        slots[i] = n_alive
        if births[i] < np.inf:
            n_alive += 1
    for i in range(n):
        to = slots[i]
        if births[i] < np.inf:
            for r in range(tiles.shape[1]):
                tiles[to // LANES, r, to % LANES] = tiles[i // LANES, r, i % LANES]
            births[to], best[to], numbers[to], stamps[to] = births[i], best[i], numbers[i], -1
    for i in range(n_alive, n):
        births[i], best[i] = np.inf, np.inf
    return n_alive


def pooled_chunk(
    c, memory, n_features, tiles, weight, floor, constants, births, numbers, losses, best, partner, stamps, slots,
    scatter, metric, lower, merges_out,
):  # fmt: skip
    """Merge until one cluster is left.

    Flops and cache: see the top of this file.

    Parameters
    ----------
    c : int
        Always 0.
    memory : (1 + n_rows / LANES, LANES) or larger, float64
        Scratch memory.
    n_features : int
    tiles : (n_tiles, n_rows, LANES)
        The clusters; see `merge_losses`.
    weight : (1,) float64
        The sum of all weights.
    floor : (D,)
        Added to the variances.
    constants : (4,)
    births : (M,)
        When each cluster was made; infinite for none.
    numbers : (M,) int64
        The number of the cluster in each slot.
    losses : (M,)
        Scratch memory.
    best, partner, stamps : (M,), (M,) int64, (M,) int64
        The lowest loss of each cluster, its partner's slot, and the number of merges before it was computed.
    slots : (M,) int64
        Scratch memory.
    scatter : (D, D)
        The pooled scatter.
    metric, lower : (D, D)
        Scratch memory.
    merges_out : (M - 1, 2) int64
        Receives pairs of numbers, the lower first.
    """
    bound = carve(memory, 0, 1, LANES, memory)[0]
    cluster = carve(memory, 1, 1, tiles.shape[1], memory)[0]
    n_merges = merges_out.shape[0]
    n_slots = n_merges + 1
    n = (n_slots + LANES - 1) // LANES * LANES
    update_metric(scatter, weight[0], floor, constants, lower, metric)
    for i in range(n_slots):
        stop = (i // LANES + 1) * LANES
        best[i], partner[i] = search_pooled(
            n_features, tiles, stop, births, i, metric, cluster, losses, bound
        )  # fmt: skip
        stamps[i] = 0
    for step in range(n_merges):
        if n > LANES and n_merges + 1 - step <= 0.75 * n_slots:
            n_slots = close_gaps(n, tiles, births, numbers, best, partner, stamps, slots)
            n = (n_slots + LANES - 1) // LANES * LANES
        while True:
            i = search_row(best, births, np.inf, n, bound)[1]
            if stamps[i] == step:
                break
            best[i], partner[i] = search_pooled(
                n_features, tiles, n, births, i, metric, cluster, losses, bound
            )  # fmt: skip
            stamps[i] = step
        keep, lost = min(i, partner[i]), max(i, partner[i])
        merges_out[step, 0], merges_out[step, 1] = numbers[keep], numbers[lost]
        join_pooled(n_features, tiles, keep, lost, scatter)
        update_metric(scatter, weight[0], floor, constants, lower, metric)
        births[keep], births[lost], best[lost] = n_merges + 1 + step, np.inf, np.inf
        best[keep], partner[keep] = search_pooled(
            n_features, tiles, n, births, keep, metric, cluster, losses, bound
        )  # fmt: skip
        stamps[keep] = step + 1


pooled_kernel = Kernel(pooled_chunk)
