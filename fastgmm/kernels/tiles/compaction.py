"""Leave the rows of negligible responsibility out of a component's moments.

With several components most responsibilities are far below rounding: at the optimum most rows have one to three
components that matter. If few rows of a tile are relevant to a component, its moments are summed over these rows only.

A row is irrelevant to a component if its responsibility is less than 1e-20 (float32: 1e-11) of the component's highest
responsibility in the tile, or less than 1e-30. The first is below the rounding of the sums. The sums of the
responsibilities themselves include all rows.
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

# A smaller responsibility is relevant to no component: one with a sum of less than 1e-12 counts as empty.
FLOOR = 1e-30
# Vectors of columns that are processed together.
VECTORS = 4 if MANY_REGISTERS else 2
# Columns from which the share of relevant rows is estimated; every tile has at least this number.
SAMPLE_COLUMNS = COLUMN_MULTIPLE


class Columns(NamedTuple):
    """Columns of a tile, and one component's responsibilities.

    The fields are the features (D, T), the responsibilities (T,) and the number of columns in use.
    """

    x: Matrix
    resp: Matrix
    n: Number


class RelevantColumns(NamedTuple):
    """The columns of a tile that are relevant to a component.

    The fields are their number and their indices (int32), in order.
    """

    count: ir.Value
    indices: ir.Value


def add_weight_sum(e: Emitter, n, resp: Matrix, k, weight_sums_out: Matrix, *, sqrt_resp: bool) -> Vector:
    """Add component k's weight sum; return the threshold of relevance.

    A row is relevant to the component's moments if its responsibility exceeds the threshold. With `sqrt_resp` the
    matrix holds square roots of responsibilities, and the threshold is one too.
    """
    b = e.builder
    # Sums and maxima have a latency of several cycles: several vectors at a time.
    totals, highest = ([e.variable() for _ in range(VECTORS)] for _ in range(2))
    for columns in e.each_group(n, VECTORS):
        for v, column in enumerate(columns):
            r = resp[k, column]
            highest[v].set(e.select(highest[v].get() < r, r, highest[v].get()))
            totals[v].add_product(r, r) if sqrt_resp else totals[v].add(r)
    for v in range(1, VECTORS):
        r = highest[v].get()
        highest[0].set(e.select(highest[0].get() < r, r, highest[0].get()))
        totals[0].add(totals[v].get())
    e.add_lane_sums([([totals[0]], weight_sums_out, (k,))])
    threshold = b.fmul(e.lane_maximum(highest[0].get()), _relative_threshold(e, sqrt_resp))
    floor = ir.Constant(e.scalar, FLOOR ** (0.5 if sqrt_resp else 1.0))
    return e.splat(b.select(b.fcmp_ordered("<", threshold, floor), floor, threshold))


def list_relevant(e: Emitter, n, resp: Matrix, k, threshold: Vector, memory: ir.Value) -> RelevantColumns:
    """List the columns whose responsibilities of component k exceed a threshold.

    `memory` is the address of a row of scratch.
    """
    return list_columns(e, n, memory, lambda i: threshold < resp[k, i])


def list_columns(e: Emitter, n, memory: ir.Value, is_selected: Callable[[Number], ir.Value]) -> RelevantColumns:
    """List the columns of a tile that are selected.

    Parameters
    ----------
    n : number
        Columns in use.
    memory : ir.Value
        Address of a row of scratch, for the indices.
    is_selected : callable
        ``is_selected(i)`` is a condition for each lane of the vector of columns that starts at i.
    """
    b = e.builder
    indices, count = b.bitcast(memory, I32.as_pointer()), e.slot(0)
    kind = ir.VectorType(I32, e.width)
    lanes = ir.Constant(kind, list(range(e.width)))
    for i in e.each(0, n, e.width):
        selected = is_selected(i)
        # A store writes a whole vector. It stays within the row: at most i indices have been written before.
        numbers = b.add(lanes, e.splat(b.trunc(e.index(i), I32)).value)
        target = b.bitcast(b.gep(indices, [count.get()]), kind.as_pointer())
        b.store(e.compress(numbers, selected), target, align=4)
        count.set(b.add(count.get(), e.count_true(selected)))
    return RelevantColumns(count.get(), indices)


def count_relevant_in_sample(e: Emitter, resp: Matrix, *, sqrt_resp: bool) -> ir.Value:
    """Return the number of relevant responsibilities in the first columns.

    All components count as equally large.
    """
    n_components, start = resp.shape[0], e.index(0)  # not a Python integer: the loops below are not unrolled
    highest, counts = e.variable(), e.variable()
    for k in e.each(0, n_components):
        for i in e.each(start, SAMPLE_COLUMNS, e.width):
            highest.set(e.select(highest.get() < resp[k, i], resp[k, i], highest.get()))
    threshold = e.splat(e.builder.fmul(e.lane_maximum(highest.get()), _relative_threshold(e, sqrt_resp)))
    for k in e.each(0, n_components):
        for i in e.each(start, SAMPLE_COLUMNS, e.width):
            counts.set(e.select(threshold < resp[k, i], counts.get() + e.constant(1.0), counts.get()))
    return e.builder.fptosi(e.lane_sum(counts.get()), I64)


def compaction_pays(e: Emitter, count, n, n_features, overhead: int) -> ir.Value:
    """Return whether `count` rows are less work than n columns.

    Each row counts as `overhead` features more.
    """
    b = e.builder
    return b.icmp_signed("<", b.mul(count, b.add(n_features, e.index(overhead))), b.mul(n, n_features))


def _relative_threshold(e: Emitter, sqrt_resp: bool) -> ir.Value:
    return ir.Constant(e.scalar, (1e-20 if e.scalar is DOUBLE else 1e-11) ** (0.5 if sqrt_resp else 1.0))


def pack(
    e: Emitter, rows: Matrix, resp: Matrix, k, relevant: RelevantColumns, packed: Matrix, resp_out: Matrix, vectors=1
) -> Columns:
    """Copy relevant rows into consecutive columns.

    Their responsibilities are copied too, with zeros up to whole vectors. Rows are transposed in registers, a square of
    rows and features at a time: half a cycle per number. Gathering numbers one by one from columns took three times as
    long.

    Parameters
    ----------
    rows : (T, D)
        The tile as rows; see `transposition.write_rows`.
    resp : (K, T)
    k : number
        The component.
    packed : (D, T)
        Receives the features.
    resp_out : (T,)
        Receives the responsibilities of component k.
    vectors : int
        The number of columns is rounded up to a multiple of this number of vectors.
    """
    b, (count, indices), n_features = e.builder, relevant, rows.shape[1]
    flat, padded = Matrix(e, rows.pointer, [0]), e.round_down(e.add(count, vectors * e.width - 1), vectors * e.width)
    for j in e.each(count, padded):
        b.store(ir.Constant(I32, 0), b.gep(indices, [e.index(j)]))
    for j in e.each(0, padded, e.width):
        own = [b.zext(b.load(b.gep(indices, [e.index(e.add(j, lane))])), I64) for lane in range(e.width)]
        starts = [e.multiply(row, n_features) for row in own]
        for d, size in e.blocks(0, n_features, e.block_sizes):
            for p, vector in enumerate(features_of(e, flat, [e.add(start, d) for start in starts], size)):
                packed[e.add(d, p), j] = vector
        for lane, row in enumerate(own):
            b.store(b.load(resp.pointer_to(k, row)), resp_out.pointer_to(e.add(j, lane)))
    for j in e.each(count, padded):
        b.store(ir.Constant(e.scalar, 0.0), resp_out.pointer_to(j))
    return Columns(packed, resp_out, padded)
