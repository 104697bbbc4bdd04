"""k-means on few rows: k-means++ and Lloyd's steps, a chunk per problem.

The rows of a problem are transposed into tiles once. Nothing is done in Python between two seeds or two steps: with
2,000 rows that would take longer than the arithmetic. The problems may have the same rows and other random numbers.

Flops: 3 N D K (2 + log K) for each start of k-means++, 3 N D K for each of Lloyd's steps. Cache: tiles (N D numbers)
and distances (N (4 + log K) numbers) in L2.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, compact, exact_leaf
from fastgmm.kernels.tiles.tiles import weighted_sum

from .kmeans import emit_distances_tile, emit_nearest_tile, take_minimum, weighted_minimum

# Rows that `point_near` looks at.
ROWS_OF_POINT = 256


def kmeans_chunk(
    c, memory, flat, row_stride, column_stride, sample_weight, begins, ends, widths, label_begins, uniforms,
    n_short_steps, n_steps, limits, rows_out, centres_out, inertia_out, labels_out,
):  # fmt: skip
    """Run k-means on the rows of problem c.

    k-means++ makes one or several starts. If there are several, each is followed by `n_short_steps` of Lloyd's steps,
    and the best is kept. At most `n_steps` more of Lloyd's steps follow. Flops and cache: see the top of this file.

    Parameters
    ----------
    c : int
        The problem.
    memory
        Not used.
    flat, row_stride, column_stride
        The rows of all problems; see `tiles.rows.RowsView`.
    sample_weight : (N,) or (0,) float64
        Empty if all weights are 1.
    begins, ends : (P,) int64
        The first row of each problem, and the row after its last.
    widths : (P,) int64
        The width of a tile.
    label_begins : (P,) int64
        Where the labels of each problem begin in `labels_out`.
    uniforms : (P, n_starts, 1 + (K - 1) L) or (P, 1, 0)
        Random numbers in [0, 1): one for the first centre, then L for every other. If there are none, Lloyd's steps
        begin at the centres in `centres_out`.
    n_short_steps, n_steps : int
    limits : (2,) float64
        The steps end when the sum of squared moves is at most ``limits[0]`` times the mean variance of the features.
        No squared distance is larger than ``limits[1]``, so that their sums are finite.
    rows_out : (P, K) int64
        Receives the rows that k-means++ has drawn last, counted from the problem's first.
    centres_out : (P, K, D) float64
        Receives the centres.
    inertia_out : (P,) float64
        Receives the weighted sum of squared distances to the nearest centres, if there are steps.
    labels_out : (n_labels,) int32
        Receives the number of each row's nearest centre, if there are steps.
    """
    compact()
    n_clusters, n_features = centres_out.shape[1], centres_out.shape[2]
    begin, n_rows, width = begins[c], ends[c] - begins[c], widths[c]
    n_tiles = (n_rows + width - 1) // width
    n_starts, n_numbers = uniforms.shape[1], uniforms.shape[2]
    n_trials = (n_numbers - 1) // (n_clusters - 1) if n_numbers > 1 and n_clusters > 1 else 1
    origin = np.empty(n_features, flat.dtype)
    tiles, weight = np.empty((n_tiles, n_features, width), flat.dtype), np.empty((n_tiles, width), flat.dtype)
    point_near(flat, row_stride, column_stride, begin, n_rows, origin)
    fill_tiles(flat, row_stride, column_stride, sample_weight, begin, n_rows, origin, tiles, weight)
    points, drawn = np.empty((n_trials, n_features), flat.dtype), np.empty(n_trials, np.int64)
    distance, potential = np.empty((n_tiles, n_trials, width), flat.dtype), np.empty((n_tiles, n_trials))
    closest, label = np.empty((n_tiles, width), flat.dtype), np.empty((n_tiles, width), flat.dtype)
    centres, best = np.empty((n_clusters, n_features), flat.dtype), np.empty((n_clusters, n_features), flat.dtype)
    sums, lowest = np.empty((n_clusters, 1 + n_features)), np.inf
    if n_numbers == 0:
        for k in range(n_clusters):
            for d in range(n_features):
                best[k, d] = centres_out[c, k, d] - origin[d]
    for start in range(n_starts if n_numbers > 0 else 0):
        fill(closest, limits[1])
        seed_rows(tiles, weight, uniforms[c, start], drawn, points, distance, closest, potential, rows_out[c])
        for k in range(n_clusters):
            copy_row(tiles, rows_out[c, k], centres[k])
        inertia = -np.inf
        if n_starts > 1:
            inertia = move_and_assign(
                tiles, weight, centres, n_short_steps, 0.0, closest, distance, label, sums
            )  # fmt: skip
        if start == 0 or inertia < lowest:
            lowest = inertia
            copy_matrix(centres, best)
    if n_steps > 0:
        max_shift = limits[0] * mean_variance(tiles, weight) if limits[0] > 0 else 0.0
        inertia_out[c] = move_and_assign(tiles, weight, best, n_steps, max_shift, closest, distance, label, sums)
        for i in range(n_rows):
            labels_out[label_begins[c] + i] = np.int32(label[i // width, i % width])
    for k in range(n_clusters):
        for d in range(n_features):
            centres_out[c, k, d] = np.float64(best[k, d]) + np.float64(origin[d])


@exact_leaf
def point_near(flat, row_stride, column_stride, begin, n_rows, origin_out):
    """Write a point near the rows: per feature the number nearest to zero in some of them."""
    compact()
    step = n_rows // ROWS_OF_POINT if n_rows > ROWS_OF_POINT else 1
    for d in range(len(origin_out)):
        best = flat[begin * row_stride + d * column_stride]
        for i in range(step, n_rows, step):
            x = flat[(begin + i) * row_stride + d * column_stride]
            if abs(x) < abs(best):
                best = x
        origin_out[d] = best


@exact_leaf
def fill_tiles(flat, row_stride, column_stride, sample_weight, begin, n_rows, origin, tiles_out, weight_out):
    """Write the rows less the origin, transposed, and their weights; columns without a row have weight 0."""
    compact()
    n_tiles, n_features, width = tiles_out.shape
    for t in range(n_tiles):
        for i in range(width):
            row = t * width + i
            if row < n_rows:
                weight_out[t, i] = sample_weight[begin + row] if len(sample_weight) > 0 else 1.0
                for d in range(n_features):
                    tiles_out[t, d, i] = flat[(begin + row) * row_stride + d * column_stride] - origin[d]
            else:
                weight_out[t, i] = 0.0
                for d in range(n_features):
                    tiles_out[t, d, i] = 0.0


@exact_leaf
def fill(values, value):
    """Fill a two-dimensional array with a number."""
    compact()
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            values[i, j] = value


@exact_leaf
def copy_matrix(values, out):
    """Copy a two-dimensional array."""
    compact()
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[i, j] = values[i, j]


@exact_leaf
def move_and_assign(tiles, weight, centres, n_steps, max_shift, closest, distance, label, sums):
    """Make Lloyd's steps; return the inertia after them.

    The steps end when the sum of squared moves is at most `max_shift`.
    """
    compact()
    for _ in range(n_steps):
        assign(tiles, weight, centres, closest, distance, label)
        add_rows(tiles, weight, label, sums)
        if move_centres(tiles, weight, sums, closest, centres) <= max_shift:
            break
    return assign(tiles, weight, centres, closest, distance, label)


@exact_leaf
def mean_variance(tiles, weight):
    """Return the mean variance of the features; 0 if it is not finite."""
    n_tiles, n_features, width = tiles.shape
    result = 0.0
    for d in range(n_features):
        total, first, second = 0.0, 0.0, 0.0
        for t in range(n_tiles):
            for i in range(width):
                w, x = np.float64(weight[t, i]), np.float64(tiles[t, d, i])
                total += w
                first += w * x
                second += w * x * x
        mean = first / total
        variance = second / total - mean * mean
        result += variance / n_features if variance > 0 else 0.0
    return result if result < np.inf else 0.0


@exact_leaf
def seed_rows(tiles, weight, uniforms, drawn, points, distance, closest, potential, rows_out):
    """Draw rows by greedy k-means++.

    Rows are drawn by weight only if all of them equal one that was drawn before.
    """
    compact()
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
    compact()
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
    compact()
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
    compact()
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
    compact()
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
    """Move each centre to the mean of its rows; return the sum of the squared moves.

    A centre without rows moves to the row that is farthest from its centre. Several centres without rows get different
    rows.
    """
    compact()
    n_tiles, width = weight.shape
    shift = 0.0
    for k in range(centres_out.shape[0]):
        if sums[k, 0] > 0:
            for d in range(centres_out.shape[1]):
                mean = sums[k, 1 + d] / sums[k, 0]
                shift += (mean - centres_out[k, d]) ** 2
                centres_out[k, d] = mean
            continue
        farthest = 0.0
        row = -1
        for t in range(n_tiles):
            for i in range(width):
                if weight[t, i] > 0 and closest[t, i] > farthest:
                    farthest, row = np.float64(closest[t, i]), t * width + i
        if row >= 0:
            shift += farthest
            copy_row(tiles, row, centres_out[k])
            closest[row // width, row % width] = 0
    return shift


problems = Kernel(kmeans_chunk)
