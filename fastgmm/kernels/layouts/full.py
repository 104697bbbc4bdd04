"""The full layout: each component has its own triangular factor.

E-step: ``log_prob[k, i] = log_coef[k] - |L_k (x_i - m_k)|^2 / 2``, where L_k is lower triangular and ``L_k^T L_k`` the
precision. The rows are centred first, so that nothing cancels. Flops: D (D + 1) / 2 multiply-adds per row and
component, D for the squares, and a difference for each centred feature of a block.

M-step: ``scatter[k] += sum_i r[k, i] (x_i - m_k)(x_i - m_k)^T`` about the current mean, lower triangle only, as the
product of ``sqrt(r) (x - m)`` with its transpose. Flops: D (D + 1) / 2 multiply-adds per row and component, and D for
the first moment; fewer if rows are left out (see `compaction`).

Both process blocks of four features. The triangle on the diagonal of a block is written out, so that no multiply-add is
wasted on zeros. Every block of the E-step centres its columns again: differences run beside multiply-adds, whereas
with stored centred columns 16 features took 1.16 times as long. With at most `UNROLLED_FEATURES` features the code is
specialised for their number: no loops over features, all accumulators in registers.

Cache: the E-step needs a group of rows (4 D vectors) and one factor in L1, and all factors in L2. The M-step needs the
tile and its centred copy (2 D T numbers) in L2, of which eight features at a time are in L1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Number, Variable, Vector
from fastgmm.kernels.tiles import compaction
from fastgmm.kernels.tiles.distances import highest
from fastgmm.kernels.tiles.transposition import Prefetcher, write_rows

# Sizes of blocks of features.
BLOCKS = (4, 2, 1)
# Vectors of columns that the E-step processes together: with four features 16 (8) accumulators.
VECTORS = 4 if MANY_REGISTERS else 2
# Rectangles of the M-step's scatter: for each number of rows the numbers of columns.
RECTANGLES = {4: (4,), 2: (4,), 1: (4, 2)} if MANY_REGISTERS else {2: (4, 2), 1: (4, 2)}
# Largest number of features with specialised code; with 7 features it was slower in float32 (0.95 times as fast).
UNROLLED_FEATURES = 6 if MANY_REGISTERS else 5
# Overhead of packing a row, in vectors of features.
PACKING_OVERHEAD = 1.5


def uses_sqrt_resp(n_features):
    """Return whether the M-step reads square roots of responsibilities.

    0 features stand for unspecialised code.
    """
    return not 0 < n_features <= UNROLLED_FEATURES


def work_rows(n_components, n_features):
    """Return the rows of scratch that the operations need in addition to the tile.

    They hold centred columns, and the rows from which relevant ones are packed.
    """
    return n_features if n_features <= UNROLLED_FEATURES else 2 * n_features + 2


def log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out):
    """Write a tile's log-probabilities, and the highest of each row.

    ``log_prob_out[k, i] = log_coef[k] - |factor[k] (x[:, i] - means[k])|^2 / 2``.
    """
    for k in range(len(means)):
        y = np.tril(factor[k]) @ (x[:, :n] - means[k][:, np.newaxis])
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, flat: Matrix,
    next_start, row_stride, top_out: Matrix, log_prob_out: Matrix, n_features=None,
):  # fmt: skip
    D = n_features or means.shape[1]
    columns = [v * e.width for v in range(VECTORS)]
    group = VECTORS * e.width
    prefetcher = Prefetcher(e, flat, next_start, row_stride)
    for i in e.each(0, n, group):
        top = [e.variable(-np.inf) for _ in columns]
        for k in e.each(0, means.shape[0]):
            q = [e.variable() for _ in columns]

            def centred(d, i=i, k=k) -> list[Vector]:
                m = means.splat(k, d)
                return [x[d, e.add(i, column)] - m for column in columns]

            def prefetch(d, i=i, k=k) -> None:
                prefetcher.prefetch(i, k, 1, d, group, rows_per_component=group)

            if n_features:  # they stay in registers
                centred = functools.cache(centred)
            add_whitened_squares(e, centred, factor, k, 0, D, q, prefetch)
            coefficient = log_coef.splat(k)
            for v, column in enumerate(columns):
                position = e.add(i, column)
                value = e.fma(q[v].get(), e.constant(-0.5), coefficient)
                log_prob_out[k, position] = value
                top[v].set(highest(e, top[v].get(), value))
        for v, column in enumerate(columns):
            top_out[e.add(i, column)] = top[v].get()


def add_whitened_squares(
    e: Emitter, centred: Callable[[Number], list[Vector]], factor: Matrix, k, start: Number, stop: Number,
    q: list[Variable], prefetch: Callable[[Number], None] | None = None,
):  # fmt: skip
    """Add squared entries of ``factor[k] (x - m)`` to the sums of a group of columns.

    The entries are those from `start` to `stop`.

    Parameters
    ----------
    centred : callable
        ``centred(d)`` is feature d of the columns, minus the mean: a vector for each sum.
    factor : (K, D, D)
    k : number
        The component.
    start, stop : number
        `start` is a multiple of four.
    q : list of Variable
        The sums.
    prefetch : callable, optional
        ``prefetch(d)`` is called for each entry d.
    """
    for j, size in e.blocks(start, stop, BLOCKS):
        if prefetch is not None:  # not between the loads below: LLVM would hoist and spill them
            for s in range(size):
                prefetch(e.add(j, s))
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
            for v in range(len(q)):  # at once: a complete entry would occupy registers
                q[v].add_product(y[s][v].get(), y[s][v].get())


def add_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    """Add a tile's weight sums, first moments and scatter.

    Their shapes are (K,), (K, D) and (K, D, D); moments are about the means. With more than `UNROLLED_FEATURES`
    features ``resp`` holds square roots of responsibilities. Only the lower triangle of the scatter is defined.
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
    """Add the moments of component k, with all accumulators in registers."""
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
    """Add the moments of one component after the other, in blocks of features.

    Only relevant rows are summed if these are few.
    """
    n_components, D = means.shape
    rows = Matrix(e, work.pointer_to(e.add(D, 2), 0), [n, D])
    memory, packed_root = work.pointer_to(D, 0), Matrix(e, work.pointer_to(e.add(D, 1), 0), [n])
    sample, overhead = e.multiply(n_components, compaction.SAMPLE_COLUMNS), int(PACKING_OVERHEAD * e.width)
    n_relevant = compaction.count_relevant_in_sample(e, root, sqrt_resp=True)
    sparse = compaction.compaction_pays(e, n_relevant, sample, D, overhead)
    with e.builder.if_then(sparse):
        write_rows(e, x, n, rows)
    for k in e.each(0, n_components):
        threshold = compaction.add_weight_sum(e, n, root, k, weight_sums_out, sqrt_resp=True)
        features, roots, count = e.slot(x.pointer), e.slot(root.pointer_to(k, 0)), e.slot(n)
        with e.builder.if_then(sparse):
            relevant = compaction.list_relevant(e, n, root, k, threshold, memory)
            with e.builder.if_then(compaction.compaction_pays(e, relevant.count, n, D, overhead)):
                # Centred columns overwrite the packed ones in place.
                packed = compaction.pack(e, rows, root, k, relevant, Matrix(e, work.pointer, x.shape), packed_root)
                features.set(packed.x.pointer)
                roots.set(packed.resp.pointer)
                count.set(packed.n)
        columns = compaction.Columns(Matrix(e, features.get(), x.shape), Matrix(e, roots.get(), [n]), count.get())
        for a, size in e.blocks(0, D, tuple(RECTANGLES)):
            add_triangle(e, columns, means, work, first_out, scatter_out, k, a, size)
            for c, n_columns in e.blocks(0, a, RECTANGLES[size]):
                add_rectangle(e, columns.n, work, scatter_out, k, a, size, c, n_columns)


def add_triangle(e: Emitter, columns, means, work, first_out, scatter_out, k, a, size):
    """Write rows a to a + size of ``sqrt(r) (x - m)``.

    Adds their first moments and the scatter's block on the diagonal.
    """
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
    """Add ``sum_i s[a + p, i] s[b + q, i]`` to ``scatter[a + p, b + q]``."""
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
    """Return the layout's compiled operations, specialised for few features."""
    constants = {"n_features": n_features} if n_features <= UNROLLED_FEATURES else {}
    return {
        "log_prob_tile": tile_operation(log_prob_tile, **constants)(emit_log_prob_tile),
        "add_moments": tile_operation(add_moments, **constants)(emit_add_moments),
    }
