"""From rows in memory to tiles, in which a SIMD lane is a row, and back.

Rows in C order are transposed in registers, a square of as many rows and features as a vector has lanes at a time; the
features that are left over go in blocks of half that, a quarter, ... A number costs half a cycle this way. Loads with
a stride, which LLVM makes of the plain loop, cost ten times as much: with 64 features half of the time of k-means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import exact_leaf
from fastgmm.kernels.compiler.simd import DOUBLE, I32, I64, Emitter, Matrix, Number, Vector


def load_rows(flat, start, row_stride, n, origin, x_out, prefetch):
    """``x_out[d, i] = flat[start + i * row_stride + d] - origin[d]`` for i < n, a multiple of 16.

    Unless `prefetch` is 0, the rows of the next tile are asked for.
    """
    for d in range(len(origin)):
        x_out[d, :n] = flat[start + d + row_stride * np.arange(n)] - origin[d]


def load_listed_rows(flat, start, row_stride, numbers, n, origin, x_out):
    """``x_out[d, i] = flat[start + numbers[i] * row_stride + d] - origin[d]`` for i < n, a multiple of 16.

    As many of the numbers that follow are asked for.
    """
    for d in range(len(origin)):
        x_out[d, :n] = flat[start + d + row_stride * numbers[:n].astype(np.int64)] - origin[d]


def store_rows(tile, n, rows_out):
    """``rows_out[i, k] = tile[k, i]`` for i < n, a multiple of 16."""
    rows_out[:n] = tile[:, :n].T


@tile_operation(load_rows)
def emit_load_rows(e: Emitter, flat: Matrix, start, row_stride, n, origin: Matrix, x_out: Matrix, prefetch):
    def rows_from(i: Number) -> list[Number]:
        first = e.add(start, e.multiply(i, row_stride))
        return [e.add(first, e.multiply(lane, row_stride)) for lane in range(e.width)]

    for i in e.each(0, n, e.width):
        for _ in e.when(e.builder.icmp_signed("!=", prefetch, e.index(0))):
            ask_for(e, flat, rows_from(e.add(i, n)), row_stride)
        write_features(e, flat, rows_from(i), origin, x_out, i)


@tile_operation(load_listed_rows)
def emit_load_listed_rows(
    e: Emitter, flat: Matrix, start, row_stride, numbers: Matrix, n, origin: Matrix, x_out: Matrix
):
    def rows_from(i: Number) -> list[Number]:
        listed = [e.builder.load(numbers.pointer_to(e.add(i, lane))) for lane in range(e.width)]
        return [e.add(start, e.multiply(e.builder.zext(number, I64), row_stride)) for number in listed]

    for i in e.each(0, n, e.width):
        ask_for(e, flat, rows_from(e.add(i, n)), row_stride)  # behind the list stands anything, which does no harm
        write_features(e, flat, rows_from(i), origin, x_out, i)


def ask_for(e: Emitter, flat: Matrix, rows: list, n_features: Number) -> None:
    """Prefetch rows that begin at the places given, row by row: in one loop over all took half as long again."""
    for row in rows:
        for d in e.each(0, n_features, 64 // e.size):
            e.prefetch(flat.pointer_to(e.add(row, d)))


def write_features(e: Emitter, flat: Matrix, rows: list, origin: Matrix, x_out: Matrix, i: Number) -> None:
    """Write the features of rows, less the origin, into the columns from i on; the rows begin at the places given."""
    for d, size in e.blocks(0, origin.shape[0], e.block_sizes):
        for j, vector in enumerate(features_of(e, flat, [e.add(row, d) for row in rows], size)):
            x_out[e.add(d, j), i] = vector - origin.splat(e.add(d, j))


class Ahead(NamedTuple):
    """Where the rows of the next tile are, which are asked for while this one is worked on.

    A core waits if it asks for more than some 24 cache lines at once, so every step of an E-step asks for a few. Rows
    that come from memory cost 10 to 30 % less an iteration than asked for all together when this tile is loaded (2 or 8
    components, 2 to 100 features).
    """

    e: Emitter
    flat: Matrix
    first: Number
    row_stride: Number

    def prefetch(self, i: Number, k: Number, size: int, d: Number, group: int, rows_each: int) -> None:
        """Ask for the share that falls to feature d of components k to k + size, at a group of columns beginning at i.

        A component asks for `rows_each` rows, in C order, until there are as many as the group has columns.
        """
        e = self.e
        a_line = 64 // (8 if self.flat.pointer.type.pointee == DOUBLE else 4)  # rows may be wider than the tile
        for _ in e.when(e.builder.icmp_signed("<", e.index(k), e.index(group // rows_each))):
            begin = e.add(self.first, e.multiply(e.add(i, e.multiply(k, rows_each)), self.row_stride))
            for offset in range(0, size * rows_each, a_line):
                self.e.prefetch(self.flat.pointer_to(e.add(begin, e.add(e.multiply(d, size * rows_each), offset))))


def write_rows(e: Emitter, tile: Matrix, n, rows_out: Matrix):
    b = e.builder
    for i in e.each(0, n, e.width):
        for k, size in e.blocks(0, tile.shape[0], e.block_sizes):
            vectors = transposed(e, [tile[e.add(k, j), i].value for j in range(size)], size)
            kind = ir.VectorType(e.scalar, size)
            for lane in range(e.width):
                mask = ir.Constant(ir.VectorType(I32, size), [lane // size * size + j for j in range(size)])
                part = b.shuffle_vector(vectors[lane % size], ir.Constant(e.type, ir.Undefined), mask)
                place = rows_out.pointer_to(e.add(i, lane), k)
                b.store(part, b.bitcast(place, kind.as_pointer()), align=e.size)


emit_store_rows = tile_operation(store_rows)(write_rows)


def features_of(e: Emitter, flat: Matrix, starts: list, size: int) -> list[Vector]:
    """The first, second, ... of `size` features of as many rows as a vector has lanes, given where these begin."""
    parts = [flat.vector(size, start).value for start in starts]
    return [Vector(e, v) for v in transposed(e, [joined(e, parts[j::size]) for j in range(size)], size)]


def joined(e: Emitter, parts: list[ir.Value]) -> ir.Value:
    """One vector of the lanes of several, in order."""
    while len(parts) > 1:
        lanes = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        parts = [e.builder.shuffle_vector(p, q, mask) for p, q in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def transposed(e: Emitter, vectors: list[ir.Value], size: int) -> list[ir.Value]:
    """Transpose each square of `size` lanes of `size` vectors: lane ``g size + j`` of p goes to ``g size + p`` of j."""
    lanes, distance = range(e.width), 1
    while distance < size:
        low = [j if not j & distance else e.width + j - distance for j in lanes]
        high = [j + distance if not j & distance else e.width + j for j in lanes]
        masks = [ir.Constant(ir.VectorType(I32, e.width), mask) for mask in (low, high)]
        result = list(vectors)
        for p in range(size):
            if not p & distance:
                pair = vectors[p], vectors[p + distance]
                result[p], result[p + distance] = (e.builder.shuffle_vector(*pair, mask) for mask in masks)
        vectors, distance = result, 2 * distance
    return vectors


# Typed numbers: a leaf that gets plain ones is compiled anew for each of them.
PREFETCH, NO_PREFETCH = np.int64(1), np.int64(0)
WHOLE = 16  # the lanes of the widest vector: what the two operations want a multiple of


@exact_leaf
def load_tile(flat, row_stride, column_stride, start, n, m, origin, x_out, prefetch):
    """``x_out[d, i] = X[start + i, d] - origin[d]`` for i < n, 0 up to m; strides count elements of `flat`.

    Unless `prefetch` is 0, the rows of the next tile are asked for.
    """
    done = 0
    if column_stride == 1 and row_stride > 1:
        done = n // WHOLE * WHOLE
        emit_load_rows(flat, start * row_stride, row_stride, done, origin, x_out, prefetch)
    for d in range(origin.shape[0]):
        shift = origin[d]
        first = start * row_stride + d * column_stride
        for i in range(done, n):
            x_out[d, i] = flat[first + i * row_stride] - shift
        for i in range(n, m):
            x_out[d, i] = 0


@exact_leaf
def load_listed(flat, row_stride, column_stride, start, numbers, n, origin, x_out):
    """``x_out[d, i] = X[start + numbers[i], d] - origin[d]`` for i < n, a multiple of 16."""
    if column_stride == 1:
        emit_load_listed_rows(flat, start * row_stride, row_stride, numbers, n, origin, x_out)
    else:
        for d in range(origin.shape[0]):
            for i in range(n):
                x_out[d, i] = flat[(start + numbers[i]) * row_stride + d * column_stride] - origin[d]


@exact_leaf
def reload_columns(flat, row_stride, column_stride, start, n, penalty, origin, x_out):
    """Load the columns that have a penalty again."""
    for i in range(n):
        if penalty[i] != 0:
            for d in range(origin.shape[0]):
                x_out[d, i] = flat[(start + i) * row_stride + d * column_stride] - origin[d]


@exact_leaf
def store_transposed(tile, n, rows_out):
    """``rows_out[i, k] = tile[k, i]``."""
    done = n // WHOLE * WHOLE
    emit_store_rows(tile, done, rows_out)
    for i in range(done, n):
        for k in range(tile.shape[0]):
            rows_out[i, k] = tile[k, i]
