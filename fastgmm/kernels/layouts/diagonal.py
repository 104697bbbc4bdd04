"""The diagonal layout: one scale per component and feature, or per component.

E-step: ``log_prob[k, i] = log_coef[k] - sum_d (s_kd (x_id - m_kd))^2 / 2``, where s is the square root of the
precision. Flops: a difference, a product and a multiply-add per row, component and feature. A single scale multiplies
the sum instead, without the product.

M-step: ``scatter[k, d] += sum_i r[k, i] (x_id - m_kd)^2`` about the current mean, and the first moment. Flops: a
difference, a product, a sum and a multiply-add per row, component and feature; fewer if rows are left out.

The E-step processes blocks of components, which share the columns that they load. So does the M-step if K or D is
small. Otherwise the tile is transposed back into rows, and each component goes through the rows that are relevant to it
(see `compaction`), a SIMD lane per feature.

Cache: the tile and the responsibilities ((D + K) T numbers) in L2, the parameters (2 K D numbers) in L1 or L2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import I64, MANY_REGISTERS, Emitter, Matrix, Vector
from fastgmm.kernels.tiles import compaction
from fastgmm.kernels.tiles.distances import VECTORS, each_distance, write_log_prob
from fastgmm.kernels.tiles.moments import add_weight_sums
from fastgmm.kernels.tiles.transposition import Prefetcher, write_rows

# Sizes of blocks in the M-step.
COMPONENTS = (2, 1)
FEATURES = (4, 2, 1) if MANY_REGISTERS else (2, 1)
# Components and features from which on irrelevant rows are left out.
MANY_COMPONENTS = 6
MANY_FEATURES = 8
# Overhead of processing a row on its own, in vectors of features.
ROW_OVERHEAD = 3
# Rows whose moments are summed in the rows' dtype before they are added in float64.
ROWS_PER_SUM = 64


def uses_sqrt_resp(n_features):
    """Return whether the M-step reads square roots of responsibilities."""
    return False


def work_rows(n_components, n_features):
    """Return the rows of scratch that the operations need in addition to the tile.

    They hold the tile as rows, and a list of indices.
    """
    many = n_components >= MANY_COMPONENTS and n_features >= MANY_FEATURES
    return n_features + 1 if many else 1


def log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out):
    """Write a tile's log-probabilities, and the highest of each row.

    ``log_prob_out[k, i] = log_coef[k] - sum_d (factor[k, 0, d] (x[d, i] - means[k, d]))^2 / 2``. `factor` is (K, 1, D),
    or (K, 1, 1) for a single scale.
    """
    for k in range(len(means)):
        y = factor[k, 0][:, np.newaxis] * (x[:, :n] - means[k][:, np.newaxis])
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, flat: Matrix,
    next_start, row_stride, top_out: Matrix, log_prob_out: Matrix,
):  # fmt: skip
    def minus_half_precision(k) -> Vector:
        scale = factor.splat(k, 0, 0)
        return scale * scale * e.constant(-0.5)

    def write(scales: Matrix | None, factor_of: Callable | None) -> None:
        for columns in e.each_group(n, VECTORS):
            distances = each_distance(e, x, columns, means, scales, prefetcher)
            write_log_prob(e, columns, distances, log_coef, top_out, log_prob_out, factor_of)

    prefetcher = Prefetcher(e, flat, next_start, row_stride)
    single = e.builder.icmp_signed("!=", factor.shape[2], means.shape[1])
    with e.builder.if_else(single) as (then, otherwise):
        with then:
            write(None, minus_half_precision)
        with otherwise:
            write(factor, None)


def add_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    """Add a tile's weight sums, first moments and sums of squares.

    Their shapes are (K,), (K, D) and (K, 1, D); moments are about the means.
    """
    weight_sums_out += resp[:, :n].sum(axis=1)
    for k in range(len(means)):
        t = x[:, :n] - means[k][:, np.newaxis]
        first_out[k] += (resp[k, :n] * t).sum(axis=1)
        scatter_out[k, 0] += (resp[k, :n] * t * t).sum(axis=1)


def emit_add_moments(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, work: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    b, (n_components, n_features) = e.builder, means.shape
    has_room = b.icmp_signed(">", work.shape[0], n_features)  # scratch for rows; see `work_rows`
    sparse = e.slot(ir.Constant(ir.IntType(1), 0))
    with b.if_then(has_room):
        sample = e.multiply(n_components, compaction.SAMPLE_COLUMNS)
        count = compaction.count_relevant_in_sample(e, resp, sqrt_resp=False)
        sparse.set(compaction.compaction_pays(e, count, sample, n_features, ROW_OVERHEAD * e.width))
    with b.if_else(sparse.get()) as (then, otherwise):
        with then:
            add_relevant_rows(e, x, n, resp, means, work, weight_sums_out, first_out, scatter_out)
        with otherwise:
            add_columns(e, x, n, resp, means, weight_sums_out, first_out, scatter_out)


def add_columns(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments of all columns, in blocks of components."""
    for k, size in e.blocks(0, means.shape[0], COMPONENTS):
        add_weight_sums(e, n, resp, k, size, weight_sums_out)
        add_block(e, x, n, resp, [e.add(k, c) for c in range(size)], means, first_out, scatter_out)


def add_relevant_rows(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, work: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments of the relevant rows, component by component.

    Where that is faster, those of all columns are added.
    """
    n_components, n_features = means.shape
    rows, memory = work.reshaped(n, n_features), work.pointer_to(n_features, 0)
    write_rows(e, x, n, rows)
    for k in e.each(0, n_components):
        threshold = compaction.add_weight_sum(e, n, resp, k, weight_sums_out, sqrt_resp=False)
        relevant = compaction.list_relevant(e, n, resp, k, threshold, memory)
        pays = compaction.compaction_pays(e, relevant.count, n, n_features, ROW_OVERHEAD * e.width)
        with e.builder.if_else(pays) as (then, otherwise):
            with then:
                add_rows(e, rows, relevant, resp, k, means, first_out, scatter_out)
            with otherwise:
                add_block(e, x, n, resp, [k], means, first_out, scatter_out)


def add_rows(
    e: Emitter, rows: Matrix, relevant: compaction.RelevantColumns, resp: Matrix, k, means: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments of component k over the rows that are relevant to it."""
    b = e.builder
    for d, size in e.blocks(0, rows.shape[1], [4 * e.width, 2 * e.width, *e.block_sizes]):
        lanes = min(size, e.width)
        features = [e.add(d, p) for p in range(0, size, lanes)]
        m = [means.vector(lanes, k, feature) for feature in features]
        for start in e.each(0, relevant.count, ROWS_PER_SUM):
            stop = e.minimum(e.add(start, ROWS_PER_SUM), relevant.count)
            first, scatter = ([e.variable(0.0, lanes) for _ in features] for _ in range(2))
            for i in e.each(start, stop):
                row = b.zext(b.load(b.gep(relevant.indices, [i])), I64)
                r = resp.splat(k, row, lanes=lanes)
                for p, feature in enumerate(features):
                    t = rows.vector(lanes, row, feature) - m[p]
                    u = r * t
                    first[p].add(u)
                    scatter[p].add_product(u, t)
            for p, feature in enumerate(features):
                e.add_to_memory(e.double(first[p].get().value), first_out.pointer_to(k, feature))
                e.add_to_memory(e.double(scatter[p].get().value), scatter_out.pointer_to(k, 0, feature))


def add_block(
    e: Emitter, x: Matrix, n, resp: Matrix, components: list, means: Matrix, first_out: Matrix, scatter_out: Matrix
):
    """Add the moments of a block of components over all columns."""
    for d, size in e.blocks(0, means.shape[1], FEATURES):
        features = [e.add(d, p) for p in range(size)]
        entries = [(c, p) for c in range(len(components)) for p in range(size)]
        m = {(c, p): means.splat(components[c], features[p]) for c, p in entries}
        first, scatter = ({entry: e.variable() for entry in entries} for _ in range(2))
        for i in e.each(0, n, e.width):
            values = [x[feature, i] for feature in features]
            resps = [resp[k, i] for k in components]
            for c, p in entries:
                t = values[p] - m[c, p]
                u = resps[c] * t
                first[c, p].add(u)
                scatter[c, p].add_product(u, t)
        sums: list = []
        for c, k in enumerate(components):
            sums.append(([first[c, p] for p in range(size)], first_out, (k, d)))
            sums.append(([scatter[c, p] for p in range(size)], scatter_out, (k, 0, d)))
        e.add_lane_sums(sums)


@functools.cache
def operations(n_features: int) -> dict[str, Callable]:
    """Return the layout's compiled operations, the same for any number of features."""
    return {
        "log_prob_tile": tile_operation(log_prob_tile)(emit_log_prob_tile),
        "add_moments": tile_operation(add_moments)(emit_add_moments),
    }
