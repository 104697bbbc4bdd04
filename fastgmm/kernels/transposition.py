"""From rows in memory to tiles, in which a SIMD lane is a row, and back.

Rows in C order are transposed in registers, a square of as many rows and features as a vector has lanes at a time; the
features that are left over go in blocks of half that, a quarter, ... A number costs half a cycle this way. Loads with
a stride, which LLVM makes of the plain loop, cost ten times as much: with 64 features half of the time of k-means.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from .operation import tile_operation
from .runtime import exact_leaf
from .simd import I32, Emitter, Matrix, Vector


def load_rows(flat, start, row_stride, n, origin, x_out):
    """``x_out[d, i] = flat[start + i * row_stride + d] - origin[d]`` for i < n, a multiple of 16."""
    for d in range(len(origin)):
        x_out[d, :n] = flat[start + d + row_stride * np.arange(n)] - origin[d]


def store_rows(tile, n, rows_out):
    """``rows_out[i, k] = tile[k, i]`` for i < n, a multiple of 16."""
    rows_out[:n] = tile[:, :n].T


@tile_operation(load_rows)
def emit_load_rows(e: Emitter, flat: Matrix, start, row_stride, n, origin: Matrix, x_out: Matrix):
    for i in e.each(0, n, e.width):
        first = e.add(start, e.multiply(i, row_stride))
        rows = [e.add(first, e.multiply(lane, row_stride)) for lane in range(e.width)]
        for d, size in e.blocks(0, origin.shape[0], e.block_sizes):
            # The next tile is asked for while this one is at hand, a cache line a vector that is loaded: rows that
            # come from memory cost up to a third less an iteration, with 8 features and few components.
            if size == e.width:
                ahead = e.add(first, e.add(e.multiply(row_stride, n), e.multiply(d, e.width)))
                for line in range(e.width):
                    e.prefetch(flat.pointer_to(e.add(ahead, line * e.width)))
            for j, vector in enumerate(features_of(e, flat, [e.add(row, d) for row in rows], size)):
                x_out[e.add(d, j), i] = vector - origin.splat(e.add(d, j))


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


WHOLE = 16  # the lanes of the widest vector: what the two operations want a multiple of


@exact_leaf
def load_tile(flat, row_stride, column_stride, start, n, m, origin, x_out):
    """``x_out[d, i] = X[start + i, d] - origin[d]`` for i < n, 0 up to m; strides count elements of `flat`."""
    done = 0
    if column_stride == 1 and row_stride > 1:
        done = n // WHOLE * WHOLE
        emit_load_rows(flat, start * row_stride, row_stride, done, origin, x_out)
    for d in range(origin.shape[0]):
        shift = origin[d]
        first = start * row_stride + d * column_stride
        for i in range(done, n):
            x_out[d, i] = flat[first + i * row_stride] - shift
        for i in range(n, m):
            x_out[d, i] = 0


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
