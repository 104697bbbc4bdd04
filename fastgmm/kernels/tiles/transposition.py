"""Transposition of rows in memory into tiles and back.

In a tile a SIMD lane is a row. Rows in C order are transposed in registers, a square of rows and features at a time;
its side is the number of lanes of a vector. Remaining features are transposed in blocks of half that size, a quarter,
and so on. This takes half a cycle per number. Loads with a stride, which LLVM makes of the plain loop, take ten times
as long.

Cache: a vector's lanes of rows in L1, the tile in L2. Flops: one subtraction per number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import CACHE_LINE, exact_leaf
from fastgmm.kernels.compiler.simd import DOUBLE, I32, I64, Emitter, Matrix, Number, Vector


def load_rows(flat, start, row_stride, n, origin, x_out, prefetch):
    """Write a tile of consecutive rows minus the origin.

    ``x_out[d, i] = flat[start + i * row_stride + d] - origin[d]`` for i < n, a multiple of 16. Unless `prefetch` is 0,
    the rows of the next tile are prefetched.
    """
    for d in range(len(origin)):
        x_out[d, :n] = flat[start + d + row_stride * np.arange(n)] - origin[d]


def load_listed_rows(flat, start, row_stride, indices, n, origin, x_out):
    """Write a tile of listed rows minus the origin.

    ``x_out[d, i] = flat[start + indices[i] * row_stride + d] - origin[d]`` for i < n, a multiple of 16.
    The rows of the n indices that follow are prefetched.
    """
    for d in range(len(origin)):
        x_out[d, :n] = flat[start + d + row_stride * indices[:n].astype(np.int64)] - origin[d]


def store_rows(tile, n, rows_out):
    """Write ``rows_out[i, k] = tile[k, i]`` for i < n, a multiple of 16."""
    rows_out[:n] = tile[:, :n].T


@tile_operation(load_rows)
def emit_load_rows(e: Emitter, flat: Matrix, start, row_stride, n, origin: Matrix, x_out: Matrix, prefetch):
    def row_starts(i: Number) -> list[Number]:
        first = e.add(start, e.multiply(i, row_stride))
        return [e.add(first, e.multiply(lane, row_stride)) for lane in range(e.width)]

    for i in e.each(0, n, e.width):
        with e.builder.if_then(e.builder.icmp_signed("!=", prefetch, e.index(0))):
            prefetch_rows(e, flat, row_starts(e.add(i, n)), row_stride)
        write_features(e, flat, row_starts(i), origin, x_out, i)


@tile_operation(load_listed_rows)
def emit_load_listed_rows(
    e: Emitter, flat: Matrix, start, row_stride, indices: Matrix, n, origin: Matrix, x_out: Matrix
):
    def row_starts(i: Number) -> list[Number]:
        listed = [e.builder.load(indices.pointer_to(e.add(i, lane))) for lane in range(e.width)]
        return [e.add(start, e.multiply(e.builder.zext(number, I64), row_stride)) for number in listed]

    for i in e.each(0, n, e.width):
        prefetch_rows(e, flat, row_starts(e.add(i, n)), row_stride)  # harmless for the undefined indices after the list
        write_features(e, flat, row_starts(i), origin, x_out, i)


def prefetch_rows(e: Emitter, flat: Matrix, starts: list, n_features: Number) -> None:
    """Prefetch rows, given where they start.

    They are prefetched row by row, since one loop over all took half as long again.
    """
    for start in starts:
        for d in e.each(0, n_features, CACHE_LINE // e.size):
            e.prefetch(flat.pointer_to(e.add(start, d)))


def write_features(e: Emitter, flat: Matrix, starts: list, origin: Matrix, x_out: Matrix, i: Number) -> None:
    """Write rows minus the origin into the columns from i on.

    `starts` is where the rows start.
    """
    for d, size in e.blocks(0, origin.shape[0], e.block_sizes):
        for j, vector in enumerate(features_of(e, flat, [e.add(start, d) for start in starts], size)):
            x_out[e.add(d, j), i] = vector - origin.splat(e.add(d, j))


class Prefetcher(NamedTuple):
    """Prefetch the rows of the next tile during the E-step of the current tile.

    A core stalls when more than about 24 cache lines are requested at once. Rows that come from main memory take 10 to
    30 % less time per iteration this way than prefetched all at once.

    first : number
        Offset in `flat` of the next tile's first row.
    """

    e: Emitter
    flat: Matrix
    first: Number
    row_stride: Number

    def prefetch(self, i: Number, k: Number, size: int, d: Number, group: int, rows_per_component: int) -> None:
        """Prefetch a share of the next tile in the group of columns that starts at i.

        It is the share of feature d of components k to k + size. A component prefetches `rows_per_component` rows, in C
        order, until the group's number of columns is reached.
        """
        e = self.e
        # Numbers in a cache line; the rows' dtype may be wider than the tile's.
        line = CACHE_LINE // (8 if self.flat.pointer.type.pointee == DOUBLE else 4)
        with e.builder.if_then(e.builder.icmp_signed("<", e.index(k), e.index(group // rows_per_component))):
            begin = e.add(self.first, e.multiply(e.add(i, e.multiply(k, rows_per_component)), self.row_stride))
            for offset in range(0, size * rows_per_component, line):
                share = e.add(e.multiply(d, size * rows_per_component), offset)
                e.prefetch(self.flat.pointer_to(e.add(begin, share)))


def write_rows(e: Emitter, tile: Matrix, n, rows_out: Matrix):
    """Emit ``rows_out[i, k] = tile[k, i]`` for i < n, a multiple of a vector's lanes."""
    b = e.builder
    for i in e.each(0, n, e.width):
        for k, size in e.blocks(0, tile.shape[0], e.block_sizes):
            vectors = transposed(e, [tile[e.add(k, j), i].value for j in range(size)], size)
            kind = ir.VectorType(e.scalar, size)
            for lane in range(e.width):
                mask = ir.Constant(ir.VectorType(I32, size), [lane // size * size + j for j in range(size)])
                part = b.shuffle_vector(vectors[lane % size], ir.Constant(e.type, ir.Undefined), mask)
                target = rows_out.pointer_to(e.add(i, lane), k)
                b.store(part, b.bitcast(target, kind.as_pointer()), align=e.size)


emit_store_rows = tile_operation(store_rows)(write_rows)


def features_of(e: Emitter, flat: Matrix, starts: list, size: int) -> list[Vector]:
    """Return `size` features, a vector each, of as many rows as a vector has lanes.

    `starts` is where these features of the rows start.
    """
    parts = [flat.vector(size, start).value for start in starts]
    return [Vector(e, v) for v in transposed(e, [joined(e, parts[j::size]) for j in range(size)], size)]


def joined(e: Emitter, parts: list[ir.Value]) -> ir.Value:
    """Return one vector of the lanes of several vectors, in order."""
    while len(parts) > 1:
        lanes = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        parts = [e.builder.shuffle_vector(p, q, mask) for p, q in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def transposed(e: Emitter, vectors: list[ir.Value], size: int) -> list[ir.Value]:
    """Transpose each square of `size` lanes of `size` vectors.

    Lane ``g size + j`` of vector p goes to lane ``g size + p`` of vector j.
    """
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


# Typed numbers: Numba compiles a leaf again for every literal integer.
PREFETCH = np.int64(1)
NO_PREFETCH = np.int64(0)
# Rows that the operations above process together: the lanes of the widest vector.
ROW_MULTIPLE = 16


@exact_leaf
def load_tile(flat, row_stride, column_stride, start, n, m, origin, x_out, prefetch):
    """Write a tile of consecutive rows minus the origin.

    ``x_out[d, i] = X[start + i, d] - origin[d]`` for i < n, and 0 for n <= i < m. The strides count elements of `flat`.
    Unless `prefetch` is 0, the rows of the next tile are prefetched.
    """
    done = 0
    if column_stride == 1 and row_stride > 1:
        done = n // ROW_MULTIPLE * ROW_MULTIPLE
        emit_load_rows(flat, start * row_stride, row_stride, done, origin, x_out, prefetch)
    for d in range(origin.shape[0]):
        shift = origin[d]
        first = start * row_stride + d * column_stride
        for i in range(done, n):
            x_out[d, i] = flat[first + i * row_stride] - shift
        for i in range(n, m):
            x_out[d, i] = 0


@exact_leaf
def load_listed(flat, row_stride, column_stride, start, indices, n, origin, x_out):
    """Write a tile of listed rows minus the origin.

    ``x_out[d, i] = X[start + indices[i], d] - origin[d]`` for i < n, a multiple of 16.
    """
    if column_stride == 1:
        emit_load_listed_rows(flat, start * row_stride, row_stride, indices, n, origin, x_out)
    else:
        for d in range(origin.shape[0]):
            for i in range(n):
                x_out[d, i] = flat[(start + indices[i]) * row_stride + d * column_stride] - origin[d]


@exact_leaf
def reload_columns(flat, row_stride, column_stride, start, n, penalty, origin, x_out):
    """Load the columns with a penalty again; see `tiles.rescale_overflowed`."""
    for i in range(n):
        if penalty[i] != 0:
            for d in range(origin.shape[0]):
                x_out[d, i] = flat[(start + i) * row_stride + d * column_stride] - origin[d]


@exact_leaf
def store_transposed(tile, n, rows_out):
    """Write ``rows_out[i, k] = tile[k, i]`` for i < n."""
    done = n // ROW_MULTIPLE * ROW_MULTIPLE
    emit_store_rows(tile, done, rows_out)
    for i in range(done, n):
        for k in range(tile.shape[0]):
            rows_out[i, k] = tile[k, i]
