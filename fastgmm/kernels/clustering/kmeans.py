"""k-means on tiles: squared distances to centres, seeding by D^2 sampling, Lloyd's sums; all weighted.

Cache: the tile (D T numbers) in L1 or L2, the centres (K D numbers) in L1 or L2.
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

# Part of the distance to the second nearest centre that a gap leaves for rounding: that of some hundred subtractions in
# single precision, and of the distances. Rows that are so near to a tie are always looked at.
MARGIN = 2e-5
# Tiles' widths of rows that are looked through together for those that may have changed.
BLOCK = 8


def distances_tile(x, n, centres, distance_out):
    """``distance_out[j, i] = |x[:, i] - centres[j]|^2``."""
    for j in range(len(centres)):
        distance_out[j, :n] = ((x[:, :n] - centres[j][:, np.newaxis]) ** 2).sum(axis=0)


def nearest_tile(x, n, centres, nearest_out, gap_out, label_out):
    """Squared distance to the nearest centre, and its number (as a floating-point number), the first of equals.

    ``gap_out`` is how much farther the second nearest is, not squared, less `MARGIN` of that: what both may move
    together before the label can change, rounding included.
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
    gap_out[:n] = (1 - MARGIN) * np.sqrt(second) - np.sqrt(nearest_out[:n])


@tile_operation(distances_tile)
def emit_distances_tile(e: Emitter, x: Matrix, n, centres: Matrix, distance_out: Matrix):
    for places in e.each_group(n, VECTORS):
        for j, distances in each_distance(e, x, places, centres):
            for place, distance in zip(places, distances, strict=True):
                distance_out[j, place] = distance.get()


@tile_operation(nearest_tile)
def emit_nearest_tile(
    e: Emitter, x: Matrix, n, centres: Matrix, nearest_out: Matrix, gap_out: Matrix, label_out: Matrix
):
    farthest = float(np.finfo(np.float64 if e.size == 8 else np.float32).max)
    for places in e.each_group(n, VECTORS):
        nearest, second, label = ([e.variable(initial) for _ in places] for initial in (np.inf, farthest, 0.0))
        for k, distances in each_distance(e, x, places, centres):
            number = e.splat(e.number(k))
            for v, variable in enumerate(distances):
                distance, before = variable.get(), nearest[v].get()
                closer = distance < before
                label[v].set(e.choose(closer, number, label[v].get()))
                nearest[v].set(e.choose(closer, distance, before))
                farther = e.choose(closer, before, distance)
                second[v].set(e.choose(farther < second[v].get(), farther, second[v].get()))
        for v, place in enumerate(places):
            nearest_out[place], label_out[place] = nearest[v].get(), label[v].get()
            gap_out[place] = e.constant(1 - MARGIN) * e.sqrt(second[v].get()) - e.sqrt(nearest[v].get())


def move_rows(rows, n, label, previous, weight, weight_sums_out, first_out):
    """Add each row, weighted, to the sums of its label, and subtract it from those of its previous one.

    Nothing is done for a row whose label is the previous one, or of weight 0, however far it is; a negative previous
    label has no sums.
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
        for _ in e.when(b.and_(b.fcmp_ordered("<", zero, w), b.fcmp_ordered("!=", new, old))):
            for number, sign in ((new, 1.0), (old, -1.0)):
                for _ in e.when(b.fcmp_ordered(">=", number, zero)):
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
    """One step of k-means++: what each candidate would leave of the potential.

    The points are the latest centre, if `n_latest` is 1, and then the candidates. First lowers ``closest``, each row's
    squared distance to the centres so far, by the latest. ``potential_out[t, 0] = sum_i w_i closest_i`` and, for
    candidate j, ``potential_out[t, j + 1] = sum_i w_i min(closest_i, |x_i - candidate_j|^2)``, over the rows of tile t;
    a chunk is whole tiles.
    """
    weight, _, _, _, x, distance, _ = tile_arrays(memory, points.shape)
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, PREFETCH)
        load_weights(sample_weight, first, rows, n, weight)
        emit_distances_tile(x, n, points, distance)
        so_far, potential = closest[first : first + rows], potential_out[first // width]
        if n_latest > 0:
            lower(distance[0], rows, so_far)
        potential[0] = weighted_minimum(so_far, so_far, rows, weight)
        for j in range(n_latest, points.shape[0]):
            potential[j - n_latest + 1] = weighted_minimum(distance[j], so_far, rows, weight)


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


def lloyd_scratch_rows(n_features):
    """Rows of scratch for `lloyd_chunk`: a tile, its rows as rows, and the numbers of those that are looked at."""
    return 5 + 2 * n_features + BLOCK + 2


def lloyd_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, origin, centres, lost,
    labels, gap, distances_out, weight_sums_out, first_out, inertia_out,
):  # fmt: skip
    """Bring the labels of chunk c up to date with centres that have moved, looking only at rows that may have changed.

    A row whose gap is larger than what its centre and the fastest of the others have moved since it was last looked at,
    ``lost[label]`` at this step, keeps its label. For the others, and those with a negative label, all distances are
    computed: sums of those that changed move from one centre to the other, in ``weight_sums_out`` and ``first_out``,
    and ``inertia_out`` is the sum of squared distances of all that were looked at.
    """
    n_features, block = origin.shape[0], BLOCK * width
    weight, nearest, label, room, x, _, rest = tile_arrays(memory, (NO_RESP, n_features))
    previous = rest[0]
    # Rows as rows again: those in X are not centred, and may not be in C order.
    by_row = carve(rest, 1, width, n_features, flat)
    numbers = carve(rest, 1 + n_features, 1, block + 2 * width, labels)[0]
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, block):
        n_open = list_open(first, min(first + block, stop), lost, labels, gap, numbers)
        for t in range(0, n_open, width):
            rows = min(width, n_open - t)
            n = whole_vectors(rows)
            listed = numbers[t:]
            load_listed(flat, row_stride, column_stride, first, listed, n, origin, x)
            load_listed_weights(sample_weight, first, listed, rows, n, weight)
            emit_nearest_tile(x, n, centres, nearest, room, label)
            inertia_out[c] += weighted_sum(nearest, weight, rows)
            if note(first, listed, rows, label, room, previous, labels, gap):
                store_transposed(x, rows, by_row)
                emit_move_rows(by_row, rows, label, previous, weight, weight_sums_out[c], first_out[c])
            if distances_out.shape[0] > 0:
                for i in range(rows):
                    distances_out[first + listed[i]] = nearest[i]


@exact_leaf
def list_open(start, stop, lost, labels, gap, numbers_out):
    """Lower the gaps by what was lost, and list the rows that have none left, as numbers from `start` on.

    Returns how many they are; behind them the last is repeated up to whole vectors.
    """
    count = 0
    for i in range(start, stop):
        left = gap[i] - lost[labels[i]] if labels[i] >= 0 else np.float32(-1)
        gap[i] = left
        numbers_out[count] = i - start
        count += not left > 0
    if count > 0:
        for i in range(count, whole_vectors(count)):
            numbers_out[i] = numbers_out[count - 1]
    return count


@exact_leaf
def load_listed_weights(sample_weight, start, numbers, n, m, weight_out):
    """The weights of the rows that are listed (an empty `sample_weight` stands for ones), 0 from n up to m."""
    for i in range(n):
        weight_out[i] = sample_weight[start + numbers[i]] if sample_weight.shape[0] > 0 else 1
    for i in range(n, m):
        weight_out[i] = 0


@exact_leaf
def note(start, numbers, n, label, new_gap, previous_out, labels, gap):
    """Keep the new labels and gaps of the rows that are listed; whether any label has changed."""
    changed = 0
    for i in range(n):
        row = start + numbers[i]
        previous_out[i] = labels[row]
        changed += previous_out[i] != label[i]
        labels[row] = np.int32(label[i])
        gap[row] = np.float32(new_gap[i])
    return changed > 0


seed = Kernel(seed_chunk)
lloyd = Kernel(lloyd_chunk)
