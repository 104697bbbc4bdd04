"""Leaving out the rows that have nothing to do with a component.

With several components most responsibilities are far below rounding: at the optimum a row belongs to one to three of
them. If few rows of a tile matter for a component, its statistics are summed over a packed copy of these rows. What is
left out is less than 1e-20 (float32: 1e-11) of the component's highest responsibility in the tile, which is below the
rounding of the sums, or less than 1e-30 of a row; the sums of the responsibilities themselves leave nothing out.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from .simd import COLUMN_MULTIPLE, DOUBLE, I32, I64, Emitter, Matrix, Number

# Less than this matters to no component: one to which all rows together give less than 1e-12 of themselves is empty.
FLOOR = 1e-30
# Half multiply-adds with everything in registers, a lane each, that copying one number costs: one and a half cycles.
COPYING = 3
# Columns that are looked at to see whether many rows matter; a tile has no fewer.
SAMPLE = COLUMN_MULTIPLE


class Rows(NamedTuple):
    """The rows of a tile that matter: their features, one component's responsibilities, how many columns they take."""

    x: Matrix
    resp: Matrix
    n: Number


def work_rows(n_features):
    """Rows of scratch that packing needs."""
    return n_features + 2


class Mattering(NamedTuple):
    """The columns of a tile that matter to a component: how many, and their numbers, in order (int32)."""

    count: ir.Value
    places: ir.Value


def find_mattering(e: Emitter, n, resp: Matrix, k, weight_sums_out: Matrix, memory: ir.Value, *, root: bool):
    """Add the weight sum of component k, and find the columns that matter for its moments.

    With `root`, the responsibilities are square roots. ``memory`` is a row of scratch, for the places.
    """
    b = e.builder
    total, highest = e.variable(), e.variable()
    for i in e.each(0, n, e.width):
        r = resp[k, i]
        highest.set(e.choose(highest.get() < r, r, highest.get()))
        total.add_product(r, r) if root else total.add(r)
    e.add_lane_sums([([total], weight_sums_out, (k,))])
    power = 0.5 if root else 1.0
    threshold = b.fmul(e.lane_maximum(highest.get()), _relative(e, power))
    floor = ir.Constant(e.scalar, FLOOR**power)
    limit = e.splat(b.select(b.fcmp_ordered("<", threshold, floor), floor, threshold))
    places, count = b.bitcast(memory, I32.as_pointer()), e.number_variable(0)
    kind = ir.VectorType(I32, e.width)
    lanes = ir.Constant(kind, list(range(e.width)))
    for i in e.each(0, n, e.width):
        above = limit < resp[k, i]
        # A store writes behind the last place, but not behind the row: so far there are no more than i.
        numbers = b.add(lanes, e.splat(b.trunc(e.index(i), I32)).value)
        target = b.bitcast(b.gep(places, [count.get()]), kind.as_pointer())
        b.store(e.compress(numbers, above), target, align=4)
        count.set(b.add(count.get(), e.count(above)))
    return Mattering(count.get(), places)


def count_mattering_in_sample(e: Emitter, resp: Matrix) -> ir.Value:
    """How many responsibilities of the first `SAMPLE` columns would matter, if all components were equally large."""
    n_components = resp.shape[0]
    highest, counts = e.variable(), e.variable()
    for k in e.each(0, n_components):
        for i in e.each(e.index(0), SAMPLE, e.width):
            highest.set(e.choose(highest.get() < resp[k, i], resp[k, i], highest.get()))
    limit = e.splat(e.builder.fmul(e.lane_maximum(highest.get()), _relative(e)))
    for k in e.each(0, n_components):
        for i in e.each(e.index(0), SAMPLE, e.width):
            counts.set(e.choose(limit < resp[k, i], counts.get() + e.constant(1.0), counts.get()))
    return e.builder.fptosi(e.lane_sum(counts.get()), I64)


def _relative(e: Emitter, power: float = 1.0) -> ir.Value:
    return ir.Constant(e.scalar, (1e-20 if e.scalar is DOUBLE else 1e-11) ** power)


def pack(e: Emitter, x: Matrix, n, resp: Matrix, k, work: Matrix, mattering: Mattering, work_a_feature: Number) -> Rows:
    """The rows that matter for the moments of component k.

    ``work`` has `work_rows` rows, of which the last was given to `find_mattering`. Rows are packed if that is less work
    than `work_a_feature`, in half multiply-adds a feature of a row, for all of them.
    """
    b, n_features = e.builder, x.shape[0]
    count, places = mattering
    features = e.pointer_variable(x.pointer)
    row = e.pointer_variable(resp.pointer_to(k, 0))
    columns = e.number_variable(n)
    copied = e.multiply(count, e.add(COPYING * e.width, work_a_feature))
    few = b.icmp_signed("<", copied, e.index(e.multiply(n, work_a_feature)))
    for _ in e.when(few):
        padded = e.round_down(e.add(count, e.width - 1), e.width)
        packed, roots = Matrix(e, work.pointer, x.shape), work.pointer_to(n_features, 0)
        for j in e.each(count, padded):
            b.store(ir.Constant(I32, 0), b.gep(places, [e.index(j)]))
        for j in e.each(0, padded, e.width):
            indices = [b.zext(b.load(b.gep(places, [e.index(e.add(j, lane))])), I64) for lane in range(e.width)]
            _gather(e, row.get(), indices, b.gep(roots, [e.index(j)]))
            for d in e.each(0, n_features):
                _gather(e, x.pointer_to(d, 0), indices, packed.pointer_to(d, j))
        for j in e.each(count, padded):
            b.store(ir.Constant(e.scalar, 0.0), b.gep(roots, [e.index(j)]))
        features.set(work.pointer)
        row.set(roots)
        columns.set(padded)
    return Rows(Matrix(e, features.get(), x.shape), Matrix(e, row.get(), [n]), columns.get())


def _gather(e: Emitter, source: ir.Value, indices: list, target: ir.Value) -> None:
    """A vector of numbers from anywhere in a row; single loads, since gather instructions are slower on AMD's CPUs."""
    b = e.builder
    vector: ir.Value = ir.Constant(e.type, ir.Undefined)
    for lane, index in enumerate(indices):
        vector = b.insert_element(vector, b.load(b.gep(source, [index])), ir.Constant(I32, lane))
    b.store(vector, b.bitcast(target, e.type.as_pointer()), align=e.size)
