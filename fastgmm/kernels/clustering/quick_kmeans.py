"""Starts of k-means on few rows: k-means++ and Lloyd's steps, a chunk per start.

The rows come as tiles, transposed once for all starts. Nothing is done in Python between two seeds or two steps: with
2,000 rows that would take longer than the arithmetic.

Flops: 3 N D K (2 + log K) for k-means++, 3 N D K for each of Lloyd's steps. Cache: the tiles (N D numbers) and a
start's distances (N (4 + log K) numbers) in L2.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, exact_leaf
from fastgmm.kernels.tiles.tiles import weighted_sum

from .kmeans import emit_distances_tile, emit_nearest_tile, take_minimum, weighted_minimum


def start_chunk(
    c, memory, tiles, weight, uniforms, n_steps, drawn, points, distance, closest, label, potential, sums, rows_out,
    centres_out, inertia_out,
):  # fmt: skip
    """Make start c: k-means++, then `n_steps` of Lloyd's steps.

    Flops and cache: see the top of this file. The first axis of the arrays below is the start, except for `tiles` and
    `weight`; L is the number of candidates for each centre.

    Parameters
    ----------
    c : int
        The start.
    memory
        Not used.
    tiles : (n_tiles, D, T)
    weight : (n_tiles, T)
        0 for columns without a row.
    uniforms : (n_starts, 1 + (K - 1) L)
        Random numbers in [0, 1): one for the first centre, then L for every other.
    n_steps : int
    drawn, points, distance, closest, label, potential, sums
        Scratch memory of shapes (L,), (L, D), (n_tiles, L, T), (n_tiles, T), (n_tiles, T), (n_tiles, L), (K, 1 + D);
        ``closest`` must hold the largest possible distance.
    rows_out : (n_starts, K) int64
        Receives the rows drawn by k-means++.
    centres_out : (n_starts, K, D)
        Receives the centres after Lloyd's steps.
    inertia_out : (n_starts,) float64
        Receives the sum of squared distances, unless there are no steps.
    """
    seed_rows(
        tiles, weight, uniforms[c], drawn[c], points[c], distance[c], closest[c], potential[c], rows_out[c]
    )  # fmt: skip
    centres = centres_out[c]
    for k in range(centres.shape[0]):
        copy_row(tiles, rows_out[c, k], centres[k])
    if n_steps > 0:
        for _ in range(n_steps):
            assign(tiles, weight, centres, closest[c], distance[c], label[c])
            add_rows(tiles, weight, label[c], sums[c])
            move_centres(tiles, weight, sums[c], closest[c], centres)
        inertia_out[c] = assign(tiles, weight, centres, closest[c], distance[c], label[c])


@exact_leaf
def seed_rows(tiles, weight, uniforms, drawn, points, distance, closest, potential, rows_out):
    """Draw rows by greedy k-means++.

    Rows are drawn by weight only if all of them equal one that was drawn before.
    """
    n_tiles, width = weight.shape
    n_trials = len(drawn)
    rows_out[0] = draw_by_weight(weight, uniforms[0])
    for j in range(n_trials):
        copy_row(tiles, rows_out[0], points[j])
    best = weigh_candidates(tiles, weight, points, distance, closest, potential)
    for k in range(1, len(rows_out)):
        total = 0.0
        for t in range(n_tiles):
            take_minimum(distance[t, best], width, closest[t])
            total += potential[t, best]
        numbers = uniforms[1 + (k - 1) * n_trials : 1 + k * n_trials]
        if total > 0:
            for j in range(n_trials):
                drawn[j] = draw_by_distance(weight, closest, potential, best, numbers[j] * total)
                copy_row(tiles, drawn[j], points[j])
            best = weigh_candidates(tiles, weight, points, distance, closest, potential)
            rows_out[k] = drawn[best]
        else:
            rows_out[k] = draw_by_weight(weight, numbers[0])


@exact_leaf
def weigh_candidates(tiles, weight, points, distance_out, closest, potential_out):
    """Compute the potential of each candidate, tile by tile; return the best one.

    ``potential_out[t, j] = sum_i w_i min(closest_i, |x_i - point_j|^2)``, summed over tile t. Returns the j of the
    lowest potential, the first of equals. ``distance_out[t, j, i]`` receives squared distances.
    """
    n_tiles, width = weight.shape
    for t in range(n_tiles):
        emit_distances_tile(tiles[t], width, points, distance_out[t])
        for j in range(points.shape[0]):
            potential_out[t, j] = weighted_minimum(distance_out[t, j], closest[t], width, weight[t])
    best, lowest = 0, np.inf
    for j in range(points.shape[0]):
        total = 0.0
        for t in range(n_tiles):
            total += potential_out[t, j]
        if total < lowest:
            best, lowest = j, total
    return best


@exact_leaf
def draw_by_weight(weight, uniform):
    """Draw a row by weight; return its index.

    It is the row at which the cumulated weights exceed ``uniform`` times their sum. Its weight is never 0.
    """
    n_tiles, width = weight.shape
    total = 0.0
    for t in range(n_tiles):
        for i in range(width):
            total += weight[t, i]
    passed, row = 0.0, 0
    for t in range(n_tiles):
        for i in range(width):
            if weight[t, i] > 0:
                row = t * width + i
                passed += weight[t, i]
                if passed > uniform * total:
                    return row
    return row


@exact_leaf
def draw_by_distance(weight, closest, potential, best, target):
    """Draw a row by weight times distance; return its index.

    It is the row at which the cumulated products exceed a target. `potential` holds the sums of the tiles.
    """
    n_tiles, width = weight.shape
    passed, tile = 0.0, 0
    for t in range(n_tiles):
        if potential[t, best] > 0:
            tile = t
            if passed + potential[t, best] > target:
                break
            passed += potential[t, best]
    row = tile * width
    for i in range(width):
        mass = np.float64(weight[tile, i]) * np.float64(closest[tile, i]) if weight[tile, i] > 0 else 0.0
        if mass > 0:
            row = tile * width + i
            passed += mass
            if passed > target:
                break
    return row


@exact_leaf
def copy_row(tiles, row, point_out):
    """Write the features of a row, given its index."""
    width = tiles.shape[2]
    for d in range(tiles.shape[1]):
        point_out[d] = tiles[row // width, d, row % width]


@exact_leaf
def assign(tiles, weight, centres, closest_out, distance, label_out):
    """Write each row's nearest centre and squared distance; return the inertia."""
    n_tiles, width = weight.shape
    inertia = 0.0
    for t in range(n_tiles):
        emit_nearest_tile(tiles[t], width, centres, closest_out[t], distance[t, 0], label_out[t])
        inertia += weighted_sum(closest_out[t], weight[t], width)
    return inertia


@exact_leaf
def add_rows(tiles, weight, label, sums_out):
    """Write ``sums_out[k] = sum_i w_i (1, x_i)``, summed over the rows with label k."""
    n_tiles, n_features, width = tiles.shape
    for k in range(sums_out.shape[0]):
        for d in range(1 + n_features):
            sums_out[k, d] = 0.0
    for t in range(n_tiles):
        for i in range(width):
            if weight[t, i] > 0:
                k, w = np.intp(label[t, i]), np.float64(weight[t, i])
                sums_out[k, 0] += w
                for d in range(n_features):
                    sums_out[k, 1 + d] += w * np.float64(tiles[t, d, i])


@exact_leaf
def move_centres(tiles, weight, sums, closest, centres_out):
    """Move each centre to the mean of its rows.

    A centre without rows moves to the row that is farthest from its centre. Several centres without rows get different
    rows.
    """
    n_tiles, width = weight.shape
    for k in range(centres_out.shape[0]):
        if sums[k, 0] > 0:
            for d in range(centres_out.shape[1]):
                centres_out[k, d] = sums[k, 1 + d] / sums[k, 0]
            continue
        farthest = 0.0
        row = -1
        for t in range(n_tiles):
            for i in range(width):
                if weight[t, i] > 0 and closest[t, i] > farthest:
                    farthest, row = np.float64(closest[t, i]), t * width + i
        if row >= 0:
            copy_row(tiles, row, centres_out[k])
            closest[row // width, row % width] = 0


starts = Kernel(start_chunk)
