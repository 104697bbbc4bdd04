"""k-means on tiles: squared distances to centres, seeding by D^2 sampling, Lloyd's sums; all weighted.

Cache: the tile (D T numbers) in L1 or L2, the centres (K D numbers) in L1 or L2.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from .distances import VECTORS, each_distance
from .operation import tile_operation
from .runtime import Kernel, exact_leaf, reducing_leaf
from .simd import DOUBLE, I64, Emitter, Matrix
from .tiles import copy_to, load_weights, tile_arrays, weighted_sum, whole_vectors
from .transposition import load_tile, store_transposed

FEATURES = (4, 2, 1)
# Up to so many coordinates of centres it is faster to add every column, masked, to every centre's sums.
FEW_ENTRIES = 32


def distances_tile(x, n, centres, distance_out):
    """``distance_out[j, i] = |x[:, i] - centres[j]|^2``."""
    for j in range(len(centres)):
        distance_out[j, :n] = ((x[:, :n] - centres[j][:, np.newaxis]) ** 2).sum(axis=0)


def nearest_tile(x, n, centres, nearest_out, label_out):
    """Squared distance to the nearest centre, and its number (as a floating-point number), the first of equals."""
    nearest_out[:n] = np.inf
    label_out[:n] = 0
    for k in range(len(centres)):
        distance = ((x[:, :n] - centres[k][:, np.newaxis]) ** 2).sum(axis=0)
        closer = distance < nearest_out[:n]
        nearest_out[:n][closer] = distance[closer]
        label_out[:n][closer] = k


@tile_operation(distances_tile)
def emit_distances_tile(e: Emitter, x: Matrix, n, centres: Matrix, distance_out: Matrix):
    for places in e.each_group(n, VECTORS):
        for j, distances in each_distance(e, x, places, centres):
            for place, distance in zip(places, distances, strict=True):
                distance_out[j, place] = distance.get()


@tile_operation(nearest_tile)
def emit_nearest_tile(e: Emitter, x: Matrix, n, centres: Matrix, nearest_out: Matrix, label_out: Matrix):
    for places in e.each_group(n, VECTORS):
        nearest, label = ([e.variable(initial) for _ in places] for initial in (np.inf, 0.0))
        for k, distances in each_distance(e, x, places, centres):
            number = e.splat(e.number(k))
            for v, distance in enumerate(distances):
                closer = distance.get() < nearest[v].get()
                label[v].set(e.choose(closer, number, label[v].get()))
                nearest[v].set(e.choose(closer, distance.get(), nearest[v].get()))
        for v, place in enumerate(places):
            nearest_out[place], label_out[place] = nearest[v].get(), label[v].get()


def add_to_centres(x, n, label, weight, centres, weight_sums_out, first_out):
    """Add, for each centre, the weights of the columns with its label, and their weighted differences from it.

    A column of weight 0 adds nothing, however far it is.
    """
    for k in range(len(centres)):
        own = (label[:n] == k) & (weight[:n] > 0)
        weight_sums_out[k] += weight[:n][own].sum()
        first_out[k] += (weight[:n][own] * (x[:, :n][:, own] - centres[k][:, np.newaxis])).sum(axis=1)


@tile_operation(add_to_centres)
def emit_add_to_centres(
    e: Emitter, x: Matrix, n, label: Matrix, weight: Matrix, centres: Matrix, weight_sums_out: Matrix, first_out: Matrix
):
    n_centres, n_features = centres.shape
    zero = e.constant(0.0)
    for k in e.each(0, n_centres):
        number = e.splat(e.number(k))
        for d, size in e.blocks(0, n_features, FEATURES):
            features = [e.add(d, p) for p in range(size)]
            m = [centres.splat(k, feature) for feature in features]
            sums = [e.variable() for _ in features]
            for i in e.each(0, n, e.width):
                own = e.choose(label[i] == number, weight[i], zero)
                positive = zero < own
                for p, feature in enumerate(features):
                    sums[p].add_product(own, e.choose(positive, x[feature, i] - m[p], zero))
            e.add_lane_sums([(sums, first_out, (k, d))])
        total = e.variable()
        for i in e.each(0, n, e.width):
            total.add(e.choose(label[i] == number, weight[i], zero))
        e.add_lane_sums([([total], weight_sums_out, (k,))])


def add_rows_to_centres(rows, n, label, weight, centres, weight_sums_out, first_out):
    """Do as `add_to_centres`, for rows as rows, one by one."""
    add_to_centres(rows.T, n, label, weight, centres, weight_sums_out, first_out)


@tile_operation(add_rows_to_centres)
def emit_add_rows_to_centres(
    e: Emitter, rows: Matrix, n, label: Matrix, weight: Matrix, centres: Matrix, weight_sums_out: Matrix,
    first_out: Matrix,
):  # fmt: skip
    b = e.builder
    for i in e.each(0, n):
        w = e.double(b.load(weight.pointer_to(i)))
        for _ in e.when(b.fcmp_ordered("<", ir.Constant(DOUBLE, 0.0), w)):
            k = b.fptosi(b.load(label.pointer_to(i)), I64)
            e.add_to_memory(w, weight_sums_out.pointer_to(k))
            for d, size in e.blocks(0, rows.shape[1], e.block_sizes):
                difference = rows.vector(size, i, d) - centres.vector(size, k, d)
                weights = e.splat(w, size)
                e.add_to_memory(b.fmul(weights.value, e.double(difference.value)), first_out.pointer_to(k, d))


def seed_chunk(
    c, flat, row_stride, column_stride, n_rows, rows_a_chunk, width, sample_weight, origin, candidates, latest, closest,
    potential_out,
):  # fmt: skip
    """One step of k-means++: what each candidate would leave of the potential.

    First lowers ``closest``, each row's squared distance to the centres so far, by the latest centre (none if `latest`
    is empty). ``potential_out[c, 0] = sum_i w_i closest_i`` and, for candidate j, ``potential_out[c, j + 1] = sum_i w_i
    min(closest_i, |x_i - candidate_j|^2)``, over the rows of chunk c.
    """
    n_candidates = candidates.shape[0]
    weight, _, _, _, x, distance, _ = tile_arrays((max(n_candidates, 1), origin.shape[0]), 0, width, flat)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, 1)
        load_weights(sample_weight, first, rows, n, weight)
        so_far = closest[first : first + rows]
        if latest.shape[0] > 0:
            emit_distances_tile(x, n, latest, distance)
            lower(distance[0], rows, so_far)
        potential_out[c, 0] += weighted_minimum(so_far, so_far, rows, weight)
        emit_distances_tile(x, n, candidates, distance)
        for j in range(n_candidates):
            potential_out[c, j + 1] += weighted_minimum(distance[j], so_far, rows, weight)


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
    weight, nearest, label, _, x, _, _ = tile_arrays((0, origin.shape[0]), 0, width, flat)
    # Rows as rows again: those in memory are not centred, and may not be in C order.
    by_row = np.empty((width, origin.shape[0]), flat.dtype)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, 1)
        load_weights(sample_weight, first, rows, n, weight)
        emit_nearest_tile(x, n, centres, nearest, label)
        inertia_out[c] += weighted_sum(nearest, weight, rows)
        if centres.size <= FEW_ENTRIES:
            emit_add_to_centres(x, n, label, weight, centres, weight_sums_out[c], first_out[c])
        else:
            store_transposed(x, rows, by_row)
            emit_add_rows_to_centres(by_row, rows, label, weight, centres, weight_sums_out[c], first_out[c])
        if labels_out.shape[0] > 0:
            for i in range(rows):
                labels_out[first + i] = np.int32(label[i])
        if distances_out.shape[0] > 0:
            copy_to(nearest, rows, distances_out[first:])


seed = Kernel(seed_chunk)
lloyd = Kernel(lloyd_chunk)
