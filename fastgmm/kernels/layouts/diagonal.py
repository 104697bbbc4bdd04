"""The diagonal layout: every component has one scale a feature, or a single one (spherical models).

E-step:  ``log_prob[k, i] = log_coef[k] - sum_d (s_kd (x_id - m_kd))^2 / 2``  with s the square root of the precision: a
difference, a product and a multiply-add an entry. A single scale goes to the sum: no product, two thirds of the time.
M-step:  ``scatter[k, d] += sum_i r[k, i] (x_id - m_kd)^2``  about the current mean, with the first moment beside it: a
difference, a product, a sum and a multiply-add an entry.

The E-step goes in blocks of components, which share the columns they load. So does the M-step if there is little to
do; otherwise the tile is turned into rows again, and a component goes through the rows that matter to it (`compaction`)
one by one, a SIMD lane a feature. Cache: the tile and the responsibilities ((D + K) T numbers) in L2, the operands (2 K
D numbers) in L1 or L2.
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
from fastgmm.kernels.tiles.transposition import Ahead, write_rows

COMPONENTS = (2, 1)
FEATURES = (4, 2, 1) if MANY_REGISTERS else (2, 1)
# From so many on, rows that do not matter are left out.
MANY_COMPONENTS, MANY_FEATURES = 6, 8
# What a row by itself costs beside its features, in vectors of them.
ROW = 3
# Rows whose moments are summed in the rows' dtype before they go to float64.
RUN = 64


def uses_sqrt_resp(n_features):
    """Whether the M-step takes square roots of responsibilities."""
    return False


def work_rows(n_components, n_features):
    """Rows of scratch that the operations need beside the tile itself: its rows, and the numbers of some of them."""
    many = n_components >= MANY_COMPONENTS and n_features >= MANY_FEATURES
    return n_features + 1 if many else 1


def log_prob_tile(x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out):
    """Write ``log_coef[k] - sum_d (factor[k, 0, d] (x[d, i] - means[k, d]))^2 / 2``, and the highest of each row.

    `factor` is (K, 1, D), or (K, 1, 1) for a single scale.
    """
    for k in range(len(means)):
        y = factor[k, 0][:, np.newaxis] * (x[:, :n] - means[k][:, np.newaxis])
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, flat: Matrix,
    ahead, row_stride, top_out: Matrix, log_prob_out: Matrix,
):  # fmt: skip
    def half(k) -> Vector:
        scale = factor.splat(k, 0, 0)
        return scale * scale * e.constant(-0.5)

    following = Ahead(e, flat, ahead, row_stride)
    single = e.builder.icmp_signed("!=", factor.shape[2], means.shape[1])
    for is_single in e.either(single):
        for places in e.each_group(n, VECTORS):
            distances = each_distance(e, x, places, means, None if is_single else factor, following)
            write_log_prob(e, places, distances, log_coef, top_out, log_prob_out, half if is_single else None)


def add_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    """Add a tile's weight sums (K,), first moments (K, D) and sums of squares (K, 1, D), both about the means."""
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
    large = b.icmp_signed(">", work.shape[0], n_features)  # there is scratch for rows
    sparse = e.slot(ir.Constant(ir.IntType(1), 0))
    for _ in e.when(large):
        sample = e.multiply(n_components, compaction.SAMPLE)
        count = compaction.count_mattering_in_sample(e, resp, root=False)
        sparse.set(compaction.few_matter(e, count, sample, n_features, ROW * e.width))
    for is_sparse in e.either(sparse.get()):
        if is_sparse:
            add_mattering(e, x, n, resp, means, work, weight_sums_out, first_out, scatter_out)
        else:
            add_columns(e, x, n, resp, means, weight_sums_out, first_out, scatter_out)


def add_columns(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments of all columns, some components together."""
    for k, size in e.blocks(0, means.shape[0], COMPONENTS):
        add_weight_sums(e, n, resp, k, size, weight_sums_out)
        add_block(e, x, n, resp, [e.add(k, c) for c in range(size)], means, first_out, scatter_out)


def add_mattering(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, work: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments, component by component, of the rows that matter, or of all columns if that is faster."""
    n_components, n_features = means.shape
    rows, memory = work.reshaped(n, n_features), work.pointer_to(n_features, 0)
    write_rows(e, x, n, rows)
    for k in e.each(0, n_components):
        limit = compaction.add_weight_sum(e, n, resp, k, weight_sums_out, root=False)
        mattering = compaction.list_mattering(e, n, resp, k, limit, memory)
        for is_few in e.either(compaction.few_matter(e, mattering.count, n, n_features, ROW * e.width)):
            if is_few:
                add_rows(e, rows, mattering, resp, k, means, first_out, scatter_out)
            else:
                add_block(e, x, n, resp, [k], means, first_out, scatter_out)


def add_rows(
    e: Emitter, rows: Matrix, mattering: compaction.Mattering, resp: Matrix, k, means: Matrix, first_out: Matrix,
    scatter_out: Matrix,
):  # fmt: skip
    """Add the moments of one component over the rows that matter to it."""
    b = e.builder
    for d, size in e.blocks(0, rows.shape[1], [4 * e.width, 2 * e.width, *e.block_sizes]):
        lanes = min(size, e.width)
        features = [e.add(d, p) for p in range(0, size, lanes)]
        m = [means.vector(lanes, k, feature) for feature in features]
        for start in e.each(0, mattering.count, RUN):
            stop = e.minimum(e.add(start, RUN), mattering.count)
            first, scatter = ([e.variable(0.0, lanes) for _ in features] for _ in range(2))
            for i in e.each(start, stop):
                row = b.zext(b.load(b.gep(mattering.places, [i])), I64)
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
    """Add the moments of some components together."""
    for d, size in e.blocks(0, means.shape[1], FEATURES):
        features = [e.add(d, p) for p in range(size)]
        entries = [(c, p) for c in range(len(components)) for p in range(size)]
        m = {(c, p): means.splat(components[c], features[p]) for c, p in entries}
        first, scatter = ({entry: e.variable() for entry in entries} for _ in range(2))
        for i in e.each(0, n, e.width):
            rows = [x[feature, i] for feature in features]
            resps = [resp[k, i] for k in components]
            for c, p in entries:
                t = rows[p] - m[c, p]
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
    """The layout's operations, the same for any number of features."""
    return {
        "log_prob_tile": tile_operation(log_prob_tile)(emit_log_prob_tile),
        "add_moments": tile_operation(add_moments)(emit_add_moments),
    }
