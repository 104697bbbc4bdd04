"""The full layout: every component has its own triangular factor.

E-step:  ``log_prob[k, i] = log_coef[k] - |L_k (x_i - m_k)|^2 / 2``  with L_k lower triangular, ``L_k^T L_k`` the
precision. The rows are centred first, so nothing cancels. D (D + 1) / 2 multiply-adds a row and component, and D
squares. M-step:  ``scatter[k] += sum_i r[k, i] (x_i - m_k)(x_i - m_k)^T``  about the current mean, lower triangle, as
the product of ``sqrt(r) (x - m)`` with itself. D (D + 1) / 2 multiply-adds a row and component, and D for the first
moment.

Both go in blocks of four features; a block's own triangle is written out, so no multiply-add is wasted on zeros. Every
block of the E-step centres its columns anew: differences run beside multiply-adds, where a store of 512 bits takes the
time of one and a half (with 16 features 1.16, with 32 1.1 times as fast as with centred columns kept in memory). With
few features (`UNROLLED`) the code is made for their number: no loops over features, nothing but registers. Cache: the
E-step needs a group of rows (D x 4 vectors) and a factor in L1, and all factors in L2; the M-step the tile and its
centred copy (2 D T numbers) in L2, of which eight rows at a time are in L1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Number, Variable, Vector
from fastgmm.kernels.tiles import compaction
from fastgmm.kernels.tiles.distances import highest
from fastgmm.kernels.tiles.transposition import Ahead, write_rows

BLOCKS = (4, 2, 1)
# Vectors of columns that are accumulated together in the E-step: with four features 16 (8) accumulators.
VECTORS = 4 if MANY_REGISTERS else 2
# The M-step's rectangles: rows, and for each number of rows the columns that may stand left of them.
RECTANGLES = {4: (4,), 2: (4,), 1: (4, 2)} if MANY_REGISTERS else {2: (4, 2), 1: (4, 2)}
# With 6 features 1.2 (8 components) to 1.7 times (64) as fast as in blocks, with 7 1.15 times, but 0.95 in float32. The
# M-step of 6 features has 28 accumulators.
UNROLLED = 6 if MANY_REGISTERS else 5
# What packing a row costs beside its features, in vectors of them.
PACKING = 1.5


def uses_sqrt_resp(n_features):
    """Whether the M-step takes square roots of responsibilities; 0 features stand for any number above `UNROLLED`."""
    return not 0 < n_features <= UNROLLED


def work_rows(n_components, n_features):
    """Rows of scratch that the operations need beside the tile itself: centred columns, and, for packing, rows."""
    return n_features if n_features <= UNROLLED else 2 * n_features + 2


def log_prob_tile(x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out):
    """Write ``log_coef[k] - |factor[k] (x[:, i] - means[k])|^2 / 2``, and the highest of each row."""
    for k in range(len(means)):
        y = np.tril(factor[k]) @ (x[:, :n] - means[k][:, np.newaxis])
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, flat: Matrix,
    ahead, row_stride, top_out: Matrix, log_prob_out: Matrix, n_features=None,
):  # fmt: skip
    D = n_features or means.shape[1]
    columns = [v * e.width for v in range(VECTORS)]
    group = VECTORS * e.width
    following = Ahead(e, flat, ahead, row_stride)
    for i in e.each(0, n, group):
        top = [e.variable(-np.inf) for _ in columns]
        for k in e.each(0, means.shape[0]):
            q = [e.variable() for _ in columns]

            def centred(d, i=i, k=k) -> list[Vector]:
                m = means.splat(k, d)
                return [x[d, e.add(i, column)] - m for column in columns]

            def ask(d, i=i, k=k) -> None:
                following.prefetch(i, k, 1, d, group, rows_each=group)

            if n_features:  # they stay in registers
                centred = functools.cache(centred)
            add_whitened_squares(e, centred, factor, k, 0, D, q, ask)
            coefficient = log_coef.splat(k)
            for v, column in enumerate(columns):
                place = e.add(i, column)
                value = e.fma(q[v].get(), e.constant(-0.5), coefficient)
                log_prob_out[k, place] = value
                top[v].set(highest(e, top[v].get(), value))
        for v, column in enumerate(columns):
            top_out[e.add(i, column)] = top[v].get()


def add_whitened_squares(
    e: Emitter, centred: Callable[[Number], list[Vector]], factor: Matrix, k, start: Number, stop: Number,
    q: list[Variable], ask: Callable[[Number], None] | None = None,
):  # fmt: skip
    """Add the squares of the entries from start to stop of ``factor[k] (x - m)`` to a group of columns' sums.

    ``centred(d)`` is feature d of the columns; `start` is a multiple of four; ``ask(d)`` is called for each entry.
    """
    for j, size in e.blocks(start, stop, BLOCKS):
        if ask is not None:  # not between the loads below, which LLVM then hoists, and spills
            for s in range(size):
                ask(e.add(j, s))
        y = [[e.variable() for _ in q] for _ in range(size)]
        for d in e.each(0, j):
            c = centred(d)
            for a in range(size):
                L = factor.splat(k, e.add(j, a), d)
                for v in range(len(q)):
                    y[a][v].add_product(L, c[v])
        for s in range(size):
            d = e.add(j, s)
            c = centred(d)
            for a in range(s, size):
                L = factor.splat(k, e.add(j, a), d)
                for v in range(len(q)):
                    y[a][v].add_product(L, c[v])
            for v in range(len(q)):  # as soon as they are complete: registers are few
                q[v].add_product(y[s][v].get(), y[s][v].get())


def add_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    """Add a tile's weight sums (K,), first moments (K, D) and scatter (K, D, D), both about the means.

    With more than `UNROLLED` features ``resp`` holds square roots of responsibilities. Of the scatter only the lower
    triangle has a meaning.
    """
    for k in range(len(means)):
        t, r = x[:, :n] - means[k][:, np.newaxis], resp[k, :n] ** (2 if uses_sqrt_resp(len(x)) else 1)
        weight_sums_out[k] += r.sum()
        first_out[k] += (r * t).sum(axis=1)
        scatter_out[k] += np.tril((r * t) @ t.T)


def emit_add_moments(
    e: Emitter, x: Matrix, n, resp: Matrix, means: Matrix, work: Matrix, weight_sums_out: Matrix, first_out: Matrix,
    scatter_out: Matrix, n_features=None,
):  # fmt: skip
    if n_features:
        for k in e.each(0, means.shape[0]):
            add_few_features(e, x, n, resp, means, weight_sums_out, first_out, scatter_out, k, n_features)
    else:
        add_many_features(e, x, n, resp, means, work, weight_sums_out, first_out, scatter_out)


def add_few_features(e: Emitter, x, n, resp, means, weight_sums_out, first_out, scatter_out, k, n_features):
    """Everything of one component in registers."""
    features = range(n_features)
    m = [means.splat(k, d) for d in features]
    weight, first = e.variable(), [e.variable() for _ in features]
    triangle = {(p, q): e.variable() for p in features for q in range(p + 1)}
    for i in e.each(0, n, e.width):
        r, t = resp[k, i], [x[d, i] - m[d] for d in features]
        weight.add(r)
        for p in features:
            u = r * t[p]
            first[p].add(u)
            for q in range(p + 1):
                triangle[p, q].add_product(u, t[q])
    sums: list = [([weight], weight_sums_out, (k,)), (first, first_out, (k, 0))]
    e.add_lane_sums([*sums, *(([triangle[p, q] for q in range(p + 1)], scatter_out, (k, p, 0)) for p in features)])


def add_many_features(e: Emitter, x, n, root, means, work, weight_sums_out, first_out, scatter_out):
    """One component after the other in blocks, over the rows that matter if these are few."""
    n_components, D = means.shape
    rows = Matrix(e, work.pointer_to(e.add(D, 2), 0), [n, D])
    memory, packed_root = work.pointer_to(D, 0), Matrix(e, work.pointer_to(e.add(D, 1), 0), [n])
    sample, packing = e.multiply(n_components, compaction.SAMPLE), int(PACKING * e.width)
    sparse = compaction.few_matter(e, compaction.count_mattering_in_sample(e, root, root=True), sample, D, packing)
    for _ in e.when(sparse):
        write_rows(e, x, n, rows)
    for k in e.each(0, n_components):
        limit = compaction.add_weight_sum(e, n, root, k, weight_sums_out, root=True)
        features, roots, count = e.slot(x.pointer), e.slot(root.pointer_to(k, 0)), e.slot(n)
        for _ in e.when(sparse):
            mattering = compaction.list_mattering(e, n, root, k, limit, memory)
            for _ in e.when(compaction.few_matter(e, mattering.count, n, D, packing)):
                # The place of their centred copy.
                packed = compaction.pack(e, rows, root, k, mattering, Matrix(e, work.pointer, x.shape), packed_root)
                features.set(packed.x.pointer)
                roots.set(packed.resp.pointer)
                count.set(packed.n)
        columns = compaction.Columns(Matrix(e, features.get(), x.shape), Matrix(e, roots.get(), [n]), count.get())
        for a, size in e.blocks(0, D, tuple(RECTANGLES)):
            add_triangle(e, columns, means, work, first_out, scatter_out, k, a, size)
            for c, n_columns in e.blocks(0, a, RECTANGLES[size]):
                add_rectangle(e, columns.n, work, scatter_out, k, a, size, c, n_columns)


def add_triangle(e: Emitter, columns, means, work, first_out, scatter_out, k, a, size):
    """Rows a to a + size: write ``sqrt(r) (x - m)``, add the first moments and the block on the diagonal."""
    features = [e.add(a, p) for p in range(size)]
    m = [means.splat(k, d) for d in features]
    first = [e.variable() for _ in features]
    triangle = {(p, q): e.variable() for p in range(size) for q in range(p + 1)}
    for i in e.each(0, columns.n, e.width):
        r = columns.resp[i]
        s = [(columns.x[d, i] - m[p]) * r for p, d in enumerate(features)]
        for p, d in enumerate(features):
            work[d, i] = s[p]
            first[p].add_product(s[p], r)
            for q in range(p + 1):
                triangle[p, q].add_product(s[p], s[q])
    sums: list = [(first, first_out, (k, a))]
    e.add_lane_sums(
        sums + [([triangle[p, q] for q in range(p + 1)], scatter_out, (k, features[p], a)) for p in range(size)]
    )


def add_rectangle(e: Emitter, n, work, scatter_out, k, a, n_rows, b, n_columns):
    """``scatter[a + p, b + q] += sum_i s[a + p, i] s[b + q, i]``."""
    left, right = [e.add(a, p) for p in range(n_rows)], [e.add(b, q) for q in range(n_columns)]
    sums = [[e.variable() for _ in right] for _ in left]
    for i in e.each(0, n, e.width):
        v = [work[d, i] for d in right]
        for p, d in enumerate(left):
            u = work[d, i]
            for q in range(n_columns):
                sums[p][q].add_product(u, v[q])
    e.add_lane_sums([(sums[p], scatter_out, (k, d, b)) for p, d in enumerate(left)])


@functools.cache
def operations(n_features: int) -> dict[str, Callable]:
    """The layout's operations, made for a number of features if it is small."""
    plain = {"n_features": n_features} if n_features <= UNROLLED else {}
    return {
        "log_prob_tile": tile_operation(log_prob_tile, **plain)(emit_log_prob_tile),
        "add_moments": tile_operation(add_moments, **plain)(emit_add_moments),
    }
