"""Starts of k-means on few rows: k-means++ and some of Lloyd's steps, a start a chunk.

The rows come as tiles, transposed once for all starts. Between two seeds, and between two steps, nothing is done in
Python, which of 2,000 rows takes longer than the arithmetic.

Cache: the tiles (N D numbers) and a start's distances (N (4 + log K) numbers) in L2.
Flops: 3 N D K (2 + log K) for k-means++, 3 N D K for each of Lloyd's steps.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, exact_leaf
from fastgmm.kernels.tiles.tiles import weighted_sum

from .kmeans import emit_distances_tile, emit_nearest_tile, lower, weighted_minimum


def start_chunk(
    c, memory, tiles, weight, uniforms, n_steps, drawn, points, distance, closest, label, potential, sums, rows_out,
    centres_out, inertia_out,
):  # fmt: skip
    """Make start number c: k-means++, `n_steps` of Lloyd's steps, and the sum of squared distances after these.

    ``tiles`` is (n_tiles, D, T), ``weight`` (n_tiles, T), 0 for columns without a row. ``uniforms[c]`` is (1 + (K - 1)
    L,), the first for the first centre, then L, one for each candidate, for every other. The first axis of all that
    follow is the start. Room to work in: ``drawn`` (L,), ``points`` (L, D), ``distance`` (n_tiles, L, T), ``closest``
    and ``label`` (n_tiles, T), ``potential`` (n_tiles, L), ``sums`` (K, 1 + D); ``closest`` holds the largest distance
    there can be. Results: ``rows_out`` (K,), the rows of k-means++, ``centres_out`` (K, D), where Lloyd's steps lead
    from there, and ``inertia_out``, which is left alone if there are no steps.
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
            move(tiles, weight, sums[c], closest[c], centres)
        inertia_out[c] = assign(tiles, weight, centres, closest[c], distance[c], label[c])


@exact_leaf
def seed_rows(tiles, weight, uniforms, drawn, points, distance, closest, potential, rows_out):
    """Draw rows as greedy k-means++ does; once every row is one of those drawn, by weight alone."""
    n_tiles, width = weight.shape
    n_trials = len(drawn)
    rows_out[0] = draw_by_weight(weight, uniforms[0])
    for j in range(n_trials):
        copy_row(tiles, rows_out[0], points[j])
    best = weigh_candidates(tiles, weight, points, distance, closest, potential)
    for k in range(1, len(rows_out)):
        total = 0.0
        for t in range(n_tiles):
            lower(distance[t, best], width, closest[t])
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
    """``potential_out[t, j] = sum_i w_i min(closest_i, |x_i - point_j|^2)`` over tile t; the best j, first of equals.

    ``distance_out[t, j, i]`` is the squared distance.
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
    """The number of the row at which the sum of weights exceeds a part of their sum; never one of weight 0."""
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
    """The number of the row at which the sum of weights times distances exceeds a target; `potential` is its tiles'."""
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
    width = tiles.shape[2]
    for d in range(tiles.shape[1]):
        point_out[d] = tiles[row // width, d, row % width]


@exact_leaf
def assign(tiles, weight, centres, closest_out, distance, label_out):
    """Each row's nearest centre and squared distance; the weighted sum of these."""
    n_tiles, width = weight.shape
    inertia = 0.0
    for t in range(n_tiles):
        emit_nearest_tile(tiles[t], width, centres, closest_out[t], distance[t, 0], label_out[t])
        inertia += weighted_sum(closest_out[t], weight[t], width)
    return inertia


@exact_leaf
def add_rows(tiles, weight, label, sums_out):
    """``sums_out[k] = sum_i w_i (1, x_i)`` over the rows with the label k."""
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
def move(tiles, weight, sums, closest, centres_out):
    """Move centres to the means of their rows; one without rows to the row farthest from its centre, each another."""
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
