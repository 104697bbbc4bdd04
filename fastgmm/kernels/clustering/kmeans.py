"""k-means on tiles: seeding by D^2 sampling and Lloyd's sums, all weighted.

Flops: a difference and a multiply-add per row, centre and feature. Cache: the tile (D T numbers) in L1 or L2, the
centres (K D numbers) in L1 or L2.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import Kernel, carve, exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import DOUBLE, I64, Emitter, Matrix
from fastgmm.kernels.tiles.distances import VECTORS, each_distance
from fastgmm.kernels.tiles.tiles import NO_RESP, load_weights, tile_arrays, weighted_sum, whole_vectors
from fastgmm.kernels.tiles.transposition import PREFETCH, load_listed, load_tile, store_transposed

# Share of the distance to the second nearest centre that is subtracted from a gap for rounding: that of some hundred
# subtractions in single precision, and of the distances. Rows nearer to a tie than this are recomputed at every step.
ROUNDING_MARGIN = 2e-5
# Tiles of rows that are searched together for rows whose label may have changed.
TILES_PER_BLOCK = 8


def distances_tile(x, n, centres, distance_out):
    """Write ``distance_out[j, i] = |x[:, i] - centres[j]|^2``."""
    for j in range(len(centres)):
        distance_out[j, :n] = ((x[:, :n] - centres[j][:, np.newaxis]) ** 2).sum(axis=0)


def nearest_tile(x, n, centres, nearest_out, gap_out, label_out):
    """Write each column's nearest centre, the squared distance to it, and the gap.

    The label is the index of the centre as a floating-point number. Of equally near centres the first counts. The gap
    is the distance to the second nearest centre, reduced by `ROUNDING_MARGIN`, minus that to the nearest: while both
    move by less than this together, the label cannot change.
    """
    nearest_out[:n] = np.inf
    label_out[:n] = 0
    second = np.full(n, np.finfo(x.dtype).max, x.dtype)
    for k in range(len(centres)):
        distance = ((x[:, :n] - centres[k][:, np.newaxis]) ** 2).sum(axis=0)
        closer = distance < nearest_out[:n]
        second = np.minimum(second, np.where(closer, nearest_out[:n], distance))
        nearest_out[:n][closer] = distance[closer]
        label_out[:n][closer] = k
    gap_out[:n] = (1 - ROUNDING_MARGIN) * np.sqrt(second) - np.sqrt(nearest_out[:n])


@tile_operation(distances_tile)
def emit_distances_tile(e: Emitter, x: Matrix, n, centres: Matrix, distance_out: Matrix):
    for columns in e.each_group(n, VECTORS):
        for j, distances in each_distance(e, x, columns, centres):
            for column, distance in zip(columns, distances, strict=True):
                distance_out[j, column] = distance.get()


@tile_operation(nearest_tile)
def emit_nearest_tile(
    e: Emitter, x: Matrix, n, centres: Matrix, nearest_out: Matrix, gap_out: Matrix, label_out: Matrix
):
    farthest = float(np.finfo(np.float64 if e.size == 8 else np.float32).max)
    for columns in e.each_group(n, VECTORS):
        nearest, second, label = ([e.variable(initial) for _ in columns] for initial in (np.inf, farthest, 0.0))
        for k, distances in each_distance(e, x, columns, centres):
            number = e.splat(e.to_float(k))
            for v, variable in enumerate(distances):
                distance, before = variable.get(), nearest[v].get()
                closer = distance < before
                label[v].set(e.select(closer, number, label[v].get()))
                nearest[v].set(e.select(closer, distance, before))
                farther = e.select(closer, before, distance)
                second[v].set(e.select(farther < second[v].get(), farther, second[v].get()))
        for v, column in enumerate(columns):
            nearest_out[column], label_out[column] = nearest[v].get(), label[v].get()
            gap_out[column] = e.constant(1 - ROUNDING_MARGIN) * e.sqrt(second[v].get()) - e.sqrt(nearest[v].get())


def move_rows(rows, n, label, previous, weight, weight_sums_out, first_out):
    """Move weighted rows from the sums of their previous label to those of the new.

    A row of weight 0, or whose label has not changed, is skipped, however far it is. A negative previous label has no
    sums.
    """
    for i in range(n):
        if weight[i] > 0 and label[i] != previous[i]:
            for k, w in ((int(label[i]), float(weight[i])), (int(previous[i]), -float(weight[i]))):
                if k >= 0:
                    weight_sums_out[k] += w
                    first_out[k] += w * rows[i].astype(np.float64)


@tile_operation(move_rows)
def emit_move_rows(
    e: Emitter, rows: Matrix, n, label: Matrix, previous: Matrix, weight: Matrix, weight_sums_out: Matrix,
    first_out: Matrix,
):  # fmt: skip
    b, zero = e.builder, ir.Constant(e.scalar, 0.0)
    for i in e.each(0, n):
        new, old, w = (b.load(matrix.pointer_to(i)) for matrix in (label, previous, weight))
        with b.if_then(b.and_(b.fcmp_ordered("<", zero, w), b.fcmp_ordered("!=", new, old))):
            for number, sign in ((new, 1.0), (old, -1.0)):
                with b.if_then(b.fcmp_ordered(">=", number, zero)):
                    k, signed = b.fptosi(number, I64), b.fmul(e.double(w), ir.Constant(DOUBLE, sign))
                    e.add_to_memory(signed, weight_sums_out.pointer_to(k))
                    for d, size in e.blocks(0, rows.shape[1], e.block_sizes):
                        weights = e.splat(signed, size)
                        product = b.fmul(weights.value, e.double(rows.vector(size, i, d).value))
                        e.add_to_memory(product, first_out.pointer_to(k, d))


def seed_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, origin, points, n_latest,
    closest, potential_out,
):  # fmt: skip
    """Compute the potentials of the candidates of a k-means++ step for chunk c.

    First updates ``closest`` with the latest centre. ``potential_out[t, 0] = sum_i w_i closest_i`` and, for candidate
    j, ``potential_out[t, j + 1] = sum_i w_i min(closest_i, |x_i - candidate_j|^2)``, over the rows of tile t.

    Flops per row: a difference and a multiply-add per point and feature. Cache: (4 + D + number of points) T numbers in
    L2.

    Parameters
    ----------
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, origin
        As for `passes.accumulate_chunk`; a chunk consists of whole tiles.
    points : (n_latest + L, D)
        The latest centre, if any, then the candidates.
    n_latest : int
        0 or 1.
    closest : (N,)
        Squared distance of each row to the nearest centre so far.
    potential_out : (n_tiles, 1 + L) float64
    """
    weight, _, _, _, x, distance, _ = tile_arrays(memory, points.shape)
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        n_tile_rows = min(width, stop - first)
        n = whole_vectors(n_tile_rows)
        load_tile(flat, row_stride, column_stride, first, n_tile_rows, n, origin, x, PREFETCH)
        load_weights(sample_weight, first, n_tile_rows, n, weight)
        emit_distances_tile(x, n, points, distance)
        so_far, potential = closest[first : first + n_tile_rows], potential_out[first // width]
        if n_latest > 0:
            take_minimum(distance[0], n_tile_rows, so_far)
        potential[0] = weighted_minimum(so_far, so_far, n_tile_rows, weight)
        for j in range(n_latest, points.shape[0]):
            potential[j - n_latest + 1] = weighted_minimum(distance[j], so_far, n_tile_rows, weight)


@exact_leaf
def take_minimum(distance, n, closest):
    """Replace ``closest[i]`` by ``min(closest[i], distance[i])`` for i < n."""
    for i in range(n):
        closest[i] = distance[i] if distance[i] < closest[i] else closest[i]


@reducing_leaf
def weighted_minimum(a, b, n, weight):
    """Return ``sum_i weight[i] min(a[i], b[i])`` in float64."""
    total = 0.0
    for i in range(n):
        # A row of weight 0 may be infinitely far, and adds nothing.
        total += np.float64(weight[i]) * np.float64(a[i] if a[i] < b[i] else b[i]) if weight[i] > 0 else 0.0
    return total


def lloyd_scratch_rows(n_features):
    """Return the rows of scratch of `lloyd_chunk`.

    They hold a tile, its rows, and the indices of rows to recompute.
    """
    return 5 + 2 * n_features + TILES_PER_BLOCK + 2


def lloyd_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, origin, centres,
    gap_decrease, labels, gap, distances_out, weight_sums_out, first_out, inertia_out,
):  # fmt: skip
    """Update the labels of chunk c after the centres have moved.

    Only rows whose label may have changed are recomputed. A row keeps its label if its gap exceeds the distance that
    its centre and the fastest of the others have moved since it was last recomputed. For the other rows, and those with
    a negative label, all distances are computed. Rows whose label changes move from one centre's sums to the other's.

    Flops: a difference and a multiply-add per recomputed row, centre and feature. Cache: `lloyd_scratch_rows` T numbers
    in L2, the centres in L1 or L2.

    Parameters
    ----------
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, origin
        As for `passes.accumulate_chunk`.
    centres : (K, D)
    gap_decrease : (K,) float32
        Decrease of the gap of each centre's rows at this step.
    labels : (N,) int32
    gap : (N,) float32
        Bound for the difference of the distances to the second nearest and the nearest centre.
    distances_out : (N,) or (0,)
        Receives the squared distances of recomputed rows to their nearest centre.
    weight_sums_out, first_out : float64
        Row c receives the changes of the sums of each centre's rows.
    inertia_out : float64
        Entry c receives the weighted sum of squared distances of recomputed rows.
    """
    n_features, block = origin.shape[0], TILES_PER_BLOCK * width
    weight, nearest, label, new_gap, x, _, rest = tile_arrays(memory, (NO_RESP, n_features))
    previous = rest[0]
    # The tile as rows: those in X are not centred, and may be in Fortran order.
    by_row = carve(rest, 1, width, n_features, flat)
    indices = carve(rest, 1 + n_features, 1, block + 2 * width, labels)[0]
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, block):
        n_candidates = list_candidates(first, min(first + block, stop), gap_decrease, labels, gap, indices)
        for t in range(0, n_candidates, width):
            n_tile_rows = min(width, n_candidates - t)
            n = whole_vectors(n_tile_rows)
            listed = indices[t:]
            load_listed(flat, row_stride, column_stride, first, listed, n, origin, x)
            load_listed_weights(sample_weight, first, listed, n_tile_rows, n, weight)
            emit_nearest_tile(x, n, centres, nearest, new_gap, label)
            inertia_out[c] += weighted_sum(nearest, weight, n_tile_rows)
            if record_labels(first, listed, n_tile_rows, label, new_gap, previous, labels, gap):
                store_transposed(x, n_tile_rows, by_row)
                emit_move_rows(by_row, n_tile_rows, label, previous, weight, weight_sums_out[c], first_out[c])
            if distances_out.shape[0] > 0:
                for i in range(n_tile_rows):
                    distances_out[first + listed[i]] = nearest[i]


@exact_leaf
def list_candidates(start, stop, gap_decrease, labels, gap, indices_out):
    """Decrease the gaps, and list the rows whose gap is used up.

    The list holds indices from `start` on. Returns the number of these rows. The last index is repeated up to whole
    vectors.
    """
    count = 0
    for i in range(start, stop):
        remaining = gap[i] - gap_decrease[labels[i]] if labels[i] >= 0 else np.float32(-1)
        gap[i] = remaining
        indices_out[count] = i - start
        count += not remaining > 0
    if count > 0:
        for i in range(count, whole_vectors(count)):
            indices_out[i] = indices_out[count - 1]
    return count


@exact_leaf
def load_listed_weights(sample_weight, start, indices, n, m, weight_out):
    """Write the weights of the listed rows, and 0 from n to m.

    The weights are 1 if `sample_weight` is empty.
    """
    for i in range(n):
        weight_out[i] = sample_weight[start + indices[i]] if sample_weight.shape[0] > 0 else 1
    for i in range(n, m):
        weight_out[i] = 0


@exact_leaf
def record_labels(start, indices, n, label, new_gap, previous_out, labels, gap):
    """Store the labels and gaps of the listed rows; return whether a label changed."""
    changed = 0
    for i in range(n):
        row = start + indices[i]
        previous_out[i] = labels[row]
        changed += previous_out[i] != label[i]
        labels[row] = np.int32(label[i])
        gap[row] = np.float32(new_gap[i])
    return changed > 0


seed = Kernel(seed_chunk)
lloyd = Kernel(lloyd_chunk)
