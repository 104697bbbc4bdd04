"""Leaving out the rows that have nothing to do with a component.

With several components most responsibilities are far below rounding: at the optimum a row belongs to one to three of
them. If few rows of a tile matter for a component, its moments are summed over these rows alone. What is left out is
less than 1e-20 (float32: 1e-11) of the component's highest responsibility in the tile, which is below the rounding of
the sums, or less than 1e-30 of a row; the sums of the responsibilities themselves leave nothing out.

Leaving rows out of the E-step as well was counted, not built: the distance in the first half of the features is a
bound, but with 16 to 40 features 53 to 99 % of the rows are within it (64 features: 24 to 47 %, where it might pay).
Nor would bounds from float32 leave out much: at 1e-30 of a row half and more of all pairs matter on
real rows (photographs, flights, diamonds; Fashion-MNIST a third), at 1e-18 a fifth to a half and more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir

from fastgmm.kernels.compiler.simd import (
    COLUMN_MULTIPLE,
    DOUBLE,
    I32,
    I64,
    MANY_REGISTERS,
    Emitter,
    Matrix,
    Number,
    Vector,
)

from .transposition import features_of

# Less than this matters to no component: one to which all rows together give less than 1e-12 of themselves is empty.
FLOOR = 1e-30
# Vectors of columns at a time.
VECTORS = 4 if MANY_REGISTERS else 2
# Columns that are looked at to see whether many rows matter; a tile has no fewer.
SAMPLE = COLUMN_MULTIPLE


class Columns(NamedTuple):
    """Columns of a tile: their features, one component's responsibilities, how many they are."""

    x: Matrix
    resp: Matrix
    n: Number


class Mattering(NamedTuple):
    """The columns of a tile that matter to a component: how many, and their numbers, in order (int32)."""

    count: ir.Value
    places: ir.Value


def add_weight_sum(e: Emitter, n, resp: Matrix, k, weight_sums_out: Matrix, *, root: bool) -> Vector:
    """Add the weight sum of component k; returns above what a responsibility matters for its moments.

    With `root`, the responsibilities are square roots. Sums and maxima wait for each other: several at a time.
    """
    b = e.builder
    totals, highest = ([e.variable() for _ in range(VECTORS)] for _ in range(2))
    for places in e.each_group(n, VECTORS):
        for v, place in enumerate(places):
            r = resp[k, place]
            highest[v].set(e.choose(highest[v].get() < r, r, highest[v].get()))
            totals[v].add_product(r, r) if root else totals[v].add(r)
    for v in range(1, VECTORS):
        r = highest[v].get()
        highest[0].set(e.choose(highest[0].get() < r, r, highest[0].get()))
        totals[0].add(totals[v].get())
    e.add_lane_sums([([totals[0]], weight_sums_out, (k,))])
    threshold = b.fmul(e.lane_maximum(highest[0].get()), _relative(e, root))
    floor = ir.Constant(e.scalar, FLOOR ** (0.5 if root else 1.0))
    return e.splat(b.select(b.fcmp_ordered("<", threshold, floor), floor, threshold))


def list_mattering(e: Emitter, n, resp: Matrix, k, limit: Vector, memory: ir.Value) -> Mattering:
    """The columns whose responsibilities of component k are above a limit; ``memory`` is a row of scratch."""
    return list_columns(e, n, memory, lambda i: limit < resp[k, i])


def list_columns(e: Emitter, n, memory: ir.Value, wanted: Callable[[Number], ir.Value]) -> Mattering:
    """The columns of a tile that are wanted; ``wanted(i)`` says it of each lane of a vector of them from i on.

    ``memory`` is a row of scratch, for their numbers.
    """
    b = e.builder
    places, count = b.bitcast(memory, I32.as_pointer()), e.slot(0)
    kind = ir.VectorType(I32, e.width)
    lanes = ir.Constant(kind, list(range(e.width)))
    for i in e.each(0, n, e.width):
        these = wanted(i)
        # A store writes behind the last place, but not behind the row: so far there are no more than i.
        numbers = b.add(lanes, e.splat(b.trunc(e.index(i), I32)).value)
        target = b.bitcast(b.gep(places, [count.get()]), kind.as_pointer())
        b.store(e.compress(numbers, these), target, align=4)
        count.set(b.add(count.get(), e.count(these)))
    return Mattering(count.get(), places)


def count_mattering_in_sample(e: Emitter, resp: Matrix, *, root: bool) -> ir.Value:
    """How many responsibilities of the first `SAMPLE` columns would matter, if all components were equally large."""
    n_components, start = resp.shape[0], e.index(0)  # an emitted number: a loop, not its turns one by one
    highest, counts = e.variable(), e.variable()
    for k in e.each(0, n_components):
        for i in e.each(start, SAMPLE, e.width):
            highest.set(e.choose(highest.get() < resp[k, i], resp[k, i], highest.get()))
    limit = e.splat(e.builder.fmul(e.lane_maximum(highest.get()), _relative(e, root)))
    for k in e.each(0, n_components):
        for i in e.each(start, SAMPLE, e.width):
            counts.set(e.choose(limit < resp[k, i], counts.get() + e.constant(1.0), counts.get()))
    return e.builder.fptosi(e.lane_sum(counts.get()), I64)


def few_matter(e: Emitter, count, n, n_features, overhead: int) -> ir.Value:
    """Whether `count` rows are less work than n if each of them takes some features more."""
    b = e.builder
    return b.icmp_signed("<", b.mul(count, b.add(n_features, e.index(overhead))), b.mul(n, n_features))


def _relative(e: Emitter, root: bool) -> ir.Value:
    return ir.Constant(e.scalar, (1e-20 if e.scalar is DOUBLE else 1e-11) ** (0.5 if root else 1.0))


def pack(
    e: Emitter, rows: Matrix, resp: Matrix, k, mattering: Mattering, packed: Matrix, resp_out: Matrix, vectors=1
) -> Columns:
    """Copy the rows that matter into columns, with responsibility 0 up to whole `vectors`: (T, D) to (D, T).

    A square of rows and features at a time is transposed in registers: half a cycle a number. Numbers gathered one by
    one from columns took one and a half.
    """
    b, (count, places), n_features = e.builder, mattering, rows.shape[1]
    flat, padded = Matrix(e, rows.pointer, [0]), e.round_down(e.add(count, vectors * e.width - 1), vectors * e.width)
    for j in e.each(count, padded):
        b.store(ir.Constant(I32, 0), b.gep(places, [e.index(j)]))
    for j in e.each(0, padded, e.width):
        own = [b.zext(b.load(b.gep(places, [e.index(e.add(j, lane))])), I64) for lane in range(e.width)]
        starts = [e.multiply(row, n_features) for row in own]
        for d, size in e.blocks(0, n_features, e.block_sizes):
            for p, vector in enumerate(features_of(e, flat, [e.add(start, d) for start in starts], size)):
                packed[e.add(d, p), j] = vector
        for lane, row in enumerate(own):
            b.store(b.load(resp.pointer_to(k, row)), resp_out.pointer_to(e.add(j, lane)))
    for j in e.each(count, padded):
        b.store(ir.Constant(e.scalar, 0.0), resp_out.pointer_to(j))
    return Columns(packed, resp_out, padded)
