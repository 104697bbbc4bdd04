"""The diagonal layout: every component has one scale a feature. Spherical models use it with equal scales.

E-step:  ``log_prob[k, i] = log_coef[k] - sum_d (s_kd (x_id - m_kd))^2 / 2``  with s the square root of the precision: a
difference, a product and a multiply-add an entry. (``s x - s m`` would save one of the three, but rounds ``s m``: with
float32 rows and components 1e5 standard deviations apart, distances would be wrong in the third digit.)
M-step:  ``scatter[k, d] += sum_i r[k, i] (x_id - m_kd)^2``  about the current mean, with the first moment beside it: a
difference, a product, a sum and a multiply-add an entry.

Both go in blocks of two components, which share the rows they load; with many components of many features the M-step
leaves out the rows that do not matter (`compaction`). Cache: the tile and the responsibilities ((D + K) T numbers) in
L2, the operands (2 K D numbers) in L1 or L2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from . import compaction
from .simd import MANY_REGISTERS, Emitter, Matrix, tile_operation

VECTORS = 4 if MANY_REGISTERS else 2
COMPONENTS = (2, 1)
FEATURES = (4, 2, 1) if MANY_REGISTERS else (2, 1)
ROOT = False
# From so many on, rows that do not matter are left out. With 512 components of 40 features a pass costs a fifth less
# near the optimum; with 16 features it would cost a tenth more.
MANY_COMPONENTS, MANY_FEATURES = 32, 32


def work_rows(n_components, n_features):
    """Rows of scratch that the operations need beside the tile itself."""
    many = n_components >= MANY_COMPONENTS and n_features >= MANY_FEATURES
    return compaction.work_rows(n_features) if many else 1


def log_prob_tile(x, n, means, factor, log_coef, work, top_out, log_prob_out):
    """Write ``log_coef[k] - sum_d (factor[k, 0, d] (x[d, i] - means[k, d]))^2 / 2``, and the highest of each row."""
    for k in range(len(means)):
        y = factor[k, 0][:, np.newaxis] * (x[:, :n] - means[k][:, np.newaxis])
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, top_out: Matrix,
    log_prob_out: Matrix,
):  # fmt: skip
    n_components, n_features = means.shape
    columns = [v * e.width for v in range(VECTORS)]
    for i in e.each(0, n, VECTORS * e.width):
        places = [e.add(i, column) for column in columns]
        top = [e.variable(-np.inf) for _ in columns]
        for k, size in e.blocks(0, n_components, COMPONENTS):
            q = [[e.variable() for _ in columns] for _ in range(size)]
            for d in e.each(0, n_features):
                row = [x[d, place] for place in places]
                for c in range(size):
                    m, s = means.splat(e.add(k, c), d), factor.splat(e.add(k, c), 0, d)
                    for v in range(VECTORS):
                        y = s * (row[v] - m)
                        q[c][v].add_product(y, y)
            for c in range(size):
                coefficient = log_coef.splat(e.add(k, c))
                for v, place in enumerate(places):
                    value = e.fma(q[c][v].get(), e.constant(-0.5), coefficient)
                    log_prob_out[e.add(k, c), place] = value
                    top[v].set(e.choose(value < top[v].get(), top[v].get(), value))  # NaN gets to the top
        for v, place in enumerate(places):
            top_out[place] = top[v].get()


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
    n_components, n_features = means.shape
    many = e.builder.and_(
        e.builder.icmp_signed(">=", n_components, e.index(MANY_COMPONENTS)),
        e.builder.icmp_signed(">=", n_features, e.index(MANY_FEATURES)),
    )
    for _ in e.when(many):
        for k in e.each(0, n_components):
            rows = compaction.pack(e, x, n, resp, k, work, weight_sums_out, root=ROOT, work_a_feature=4)
            add_block(e, rows.x, rows.n, Matrix(e, rows.resp.pointer, [1, n]), [(k, 0)], means, first_out, scatter_out)
    for _ in e.when(e.builder.not_(many)):
        for k, size in e.blocks(0, n_components, COMPONENTS):
            weights = [e.variable() for _ in range(size)]
            for i in e.each(0, n, e.width):
                for c in range(size):
                    weights[c].add(resp[e.add(k, c), i])
            e.add_lane_sums([(weights, weight_sums_out, (k,))])
            components = [(e.add(k, c), e.add(k, c)) for c in range(size)]
            add_block(e, x, n, resp, components, means, first_out, scatter_out)


def add_block(
    e: Emitter, x: Matrix, n, resp: Matrix, components: list, means: Matrix, first_out: Matrix, scatter_out: Matrix
):
    """Add the moments of some components together; for each its number, and its row of `resp`."""
    for d, size in e.blocks(0, means.shape[1], FEATURES):
        features = [e.add(d, p) for p in range(size)]
        entries = [(c, p) for c in range(len(components)) for p in range(size)]
        m = {(c, p): means.splat(components[c][0], features[p]) for c, p in entries}
        first, scatter = ({entry: e.variable() for entry in entries} for _ in range(2))
        for i in e.each(0, n, e.width):
            rows = [x[feature, i] for feature in features]
            resps = [resp[row, i] for _, row in components]
            for c, p in entries:
                t = rows[p] - m[c, p]
                u = resps[c] * t
                first[c, p].add(u)
                scatter[c, p].add_product(u, t)
        sums: list = []
        for c, (k, _) in enumerate(components):
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
