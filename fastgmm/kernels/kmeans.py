"""k-means on tiles: squared distances to centres, seeding by D^2 sampling, Lloyd's sums; all weighted.

Distances are sums of squared differences of centred rows, never an expanded quadratic. One multiply-add and one
subtraction an entry, 2 N K D a pass. Features go in blocks of four. Cache: the tile (D T numbers) in L1 or L2, the
centres (K D numbers) in L1 or L2.
"""

from __future__ import annotations

import numpy as np

from .runtime import Kernel, exact_leaf, reducing_leaf
from .tiles import load_tile, load_weights, tile_arrays, whole_vectors


@exact_leaf
def squared_distance_tile(x, n, centre, distance_out):
    """``distance_out[i] = |x[:, i] - centre|^2``."""
    n_features = x.shape[0]
    whole = n_features - n_features % 4
    for i in range(n):
        distance_out[i] = 0
    for d in range(0, whole, 4):
        m0, m1, m2, m3 = centre[d], centre[d + 1], centre[d + 2], centre[d + 3]
        x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
        for i in range(n):
            t0 = x0[i] - m0
            t1 = x1[i] - m1
            t2 = x2[i] - m2
            t3 = x3[i] - m3
            distance_out[i] = distance_out[i] + t0 * t0 + t1 * t1 + t2 * t2 + t3 * t3
    for d in range(whole, n_features):
        for i in range(n):
            t0 = x[d, i] - centre[d]
            distance_out[i] += t0 * t0


@exact_leaf
def nearest_tile(x, n, centres, distance, nearest_out, label_out):
    """Squared distance to the nearest centre and its number, the first of equals."""
    for k in range(centres.shape[0]):
        squared_distance_tile(x, n, centres[k], distance)
        if k == 0:
            for i in range(n):
                nearest_out[i] = distance[i]
                label_out[i] = 0
        else:
            for i in range(n):
                label_out[i] = k if distance[i] < nearest_out[i] else label_out[i]
                nearest_out[i] = distance[i] if distance[i] < nearest_out[i] else nearest_out[i]


def seed_chunk(
    c, flat, row_stride, column_stride, n_rows, rows_a_chunk, width, sample_weight, origin, candidates, latest, closest,
    potential_out,
):  # fmt: skip
    """One step of k-means++: what each candidate would leave of the potential.

    First lowers ``closest``, each row's squared distance to the centres so far, by the latest centre (none if `latest`
    is empty). ``potential_out[c, 0] = sum_i w_i closest_i`` and, for candidate j, ``potential_out[c, j + 1] = sum_i w_i
    min(closest_i, |x_i - candidate_j|^2)``, over the rows of chunk c.
    """
    weight, distance, _, _, x, _, _ = tile_arrays((0, origin.shape[0]), 0, width, flat)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x)
        load_weights(sample_weight, first, rows, n, weight)
        so_far = closest[first : first + rows]
        for j in range(latest.shape[0]):
            squared_distance_tile(x, n, latest[j], distance)
            lower(distance, rows, so_far)
        potential_out[c, 0] += weighted_minimum(so_far, so_far, rows, weight)
        for j in range(candidates.shape[0]):
            squared_distance_tile(x, n, candidates[j], distance)
            potential_out[c, j + 1] += weighted_minimum(distance, so_far, rows, weight)


@exact_leaf
def lower(distance, n, closest):
    for i in range(n):
        closest[i] = distance[i] if distance[i] < closest[i] else closest[i]


@reducing_leaf
def weighted_minimum(a, b, n, weight):
    """``sum_i weight[i] min(a[i], b[i])`` in float64."""
    total = 0.0
    for i in range(n):
        # A row of weight 0 may be infinitely far: it adds nothing all the same.
        total += np.float64(weight[i]) * np.float64(a[i] if a[i] < b[i] else b[i]) if weight[i] > 0 else 0.0
    return total


def lloyd_chunk(
    c, flat, row_stride, column_stride, n_rows, rows_a_chunk, width, sample_weight, origin, centres, labels_out,
    distances_out, weight_sums_out, first_out, inertia_out,
):  # fmt: skip
    """Give the rows of chunk c to their nearest centres and add up, per centre, weights and centred rows.

    Labels and squared distances are written where the outputs for them are not empty.
    """
    n_features = origin.shape[0]
    weight, distance, nearest, _, x, _, _ = tile_arrays((0, n_features), 0, width, flat)
    label = np.empty(width, np.int32)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x)
        load_weights(sample_weight, first, rows, n, weight)
        nearest_tile(x, n, centres, distance, nearest, label)
        for i in range(rows):
            k, w = label[i], np.float64(weight[i])
            if w == 0:  # however far the row may be
                continue
            weight_sums_out[c, k] += w
            inertia_out[c] += w * np.float64(nearest[i])
            for d in range(n_features):
                first_out[c, k, d] += w * np.float64(x[d, i] - centres[k, d])
        if labels_out.shape[0] > 0:
            labels_out[first : first + rows] = label[:rows]
        if distances_out.shape[0] > 0:
            distances_out[first : first + rows] = nearest[:rows]


seed = Kernel(seed_chunk)
lloyd = Kernel(lloyd_chunk)
