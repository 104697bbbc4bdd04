"""The full layout: every component has its own triangular factor.

E-step, a component k at a time:  ``log_prob[k, i] = log_coef[k] - |L_k (x_i - m_k)|^2 / 2``  with L_k lower triangular,
``L_k^T L_k`` the precision. The rows are centred first, so nothing cancels. D (D + 1) / 2 multiply-adds a row.
M-step:  ``scatter[k] += sum_i r[k, i] (x_i - m_k)(x_i - m_k)^T``  about the current mean, lower triangle.
D (D + 1) / 2 multiply-adds a row.

Both are written as register tiles (see `simd`). Cache: a group of rows (D times 4 vectors) and the factor of a
component in L1 for the E-step; the tile with a centred and a weighted copy (3 D T numbers) in L2 for the M-step, of
which four rows stay in L1.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from .runtime import exact_leaf
from .simd import MANY_REGISTERS, Emitter, tile_operation

# Rows of the factor by vectors of tile columns that are accumulated together: 16 (8) registers, and half as many more.
VECTORS = 4 if MANY_REGISTERS else 2
BLOCKS = (4, 2, 1)


def work_rows(n_components, n_features):
    """Rows of scratch that the functions below need beside the tile itself."""
    return 2 * n_features


@exact_leaf
def prepare(x, n, factor, work):
    """Nothing to do once a tile."""


def row_blocks(e: Emitter, n_rows):
    """Cut rows into fours, then at most one pair and one single: (size, first row, whether there is one).

    For the fours, the first row is 0 and the number given is where they end.
    """
    b = e.builder
    fours, pairs = b.and_(n_rows, e.integer(-4)), b.and_(n_rows, e.integer(-2))
    yield 4, fours, None
    yield 2, fours, b.icmp_signed("<", fours, pairs)
    yield 1, pairs, b.icmp_signed("<", pairs, n_rows)


def component_log_prob(x, n, means, factor, log_coef, k, work, log_prob_out):
    """``log_prob_out[k, i] = log_coef[k] - |factor[k] (x[:, i] - means[k])|^2 / 2`` for i < n."""
    y = np.tril(factor[k]) @ (x[:, :n] - means[k][:, np.newaxis])
    log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)


@tile_operation(component_log_prob)
def add_component_log_prob(e: Emitter, x, n, means, factor, log_coef, k, work, log_prob_out):
    b, n_features = e.builder, x.shape[0]
    mean, L = means.row(k), e.at(factor.pointer, b.mul(k, b.mul(n_features, n_features)))
    coefficient, minus_half = e.load_splat(log_coef.pointer, k), e.splat(ir.Constant(e.scalar, -0.5))
    group = VECTORS * e.width

    def columns(i, _):
        # The group's centred rows, packed: in rows of the tile's stride they would compete for the same lines of L1.
        def centre(d, _):
            m = e.load_splat(mean, d)
            for v in range(VECTORS):
                value = b.fsub(e.load(x.row(d), b.add(i, e.integer(v * e.width))), m)
                e.store(value, work.pointer, b.add(b.mul(d, e.integer(group)), e.integer(v * e.width)))

        e.loop(0, n_features, 1, [], centre)

        def add_squares(j, n_rows, q):
            """Add to q the squares of rows j ... j + n_rows - 1 of y = L c; L has zeros above its diagonal."""
            rows = [e.at(L, b.mul(b.add(j, e.integer(a)), n_features)) for a in range(n_rows)]

            def product(d, y):
                packed = b.mul(d, e.integer(group))
                c = [e.load(work.pointer, b.add(packed, e.integer(v * e.width))) for v in range(VECTORS)]
                result = []
                for a in range(n_rows):
                    factor_ad = e.load_splat(rows[a], d)
                    result += [e.fma(factor_ad, c[v], y[a * VECTORS + v]) for v in range(VECTORS)]
                return result

            y = e.loop(0, b.add(j, e.integer(n_rows)), 1, [e.zero()] * (n_rows * VECTORS), product)
            for index, value in enumerate(y):
                q[index % VECTORS] = e.fma(value, value, q[index % VECTORS])
            return q

        q = [e.zero()] * VECTORS
        for n_rows, j, present in row_blocks(e, n_features):
            if present is None:
                q = e.loop(0, j, n_rows, q, lambda j, q: add_squares(j, 4, list(q)))
            else:
                q = e.when(present, q, lambda q, j=j, n_rows=n_rows: add_squares(j, n_rows, q))
        for v in range(VECTORS):
            e.store(e.fma(q[v], minus_half, coefficient), log_prob_out.row(k), b.add(i, e.integer(v * e.width)))

    e.loop(0, n, group, [], columns)


@exact_leaf
def log_prob_tile(x, n, means, factor, log_coef, work, log_prob_out):
    """Write ``log_coef[k] - |L_k (x_i - m_k)|^2 / 2``, shape (K, T)."""
    for k in range(means.shape[0]):
        add_component_log_prob(x, n, means, factor, log_coef, k, work, log_prob_out)


def component_moments(x, n, resp, means, k, work, first_out, scatter_out):
    """Add the moments of component k, with ``c_i = x[:, i] - means[k]``, i < n.

    ``first_out[k] += sum_i resp[k, i] c_i`` and the lower triangle of ``scatter_out[k] += sum_i resp[k, i] c_i c_i^T``;
    what that leaves in the upper triangle has no meaning.
    """
    centred = x[:, :n] - means[k][:, np.newaxis]
    weighted = resp[k, :n] * centred
    first_out[k] += weighted.sum(axis=1)
    scatter_out[k] += np.tril(weighted @ centred.T)


@tile_operation(component_moments)
def add_component_moments(e: Emitter, x, n, resp, means, k, work, first_out, scatter_out):
    b, n_features = e.builder, x.shape[0]
    mean, r = means.row(k), resp.row(k)
    first, scatter = first_out.row(k), e.at(scatter_out.pointer, b.mul(k, b.mul(n_features, n_features)))

    def centre_and_weigh(d, _):
        m, c_row, u_row = e.load_splat(mean, d), work.row(d), work.row(b.add(d, n_features))

        def columns(i, total):
            c = b.fsub(e.load(x.row(d), i), m)
            u = b.fmul(e.load(r, i), c)
            e.store(c, c_row, i)
            e.store(u, u_row, i)
            return [b.fadd(total[0], u)]

        total = e.loop(0, n, e.width, [e.zero()], columns)
        e.add_to_float64(e.lane_sums(total)[0], 0, 1, first, d)

    e.loop(0, n_features, 1, [], centre_and_weigh)

    def add_products(a, n_rows, d, n_columns):
        """scatter[a + p, d + q] += sum_i u[a + p, i] c[d + q, i], an n_rows x n_columns block."""
        left = [work.row(b.add(n_features, b.add(a, e.integer(p)))) for p in range(n_rows)]
        right = [work.row(b.add(d, e.integer(q))) for q in range(n_columns)]

        def columns(i, sums):
            c = [e.load(pointer, i) for pointer in right]
            result = []
            for p in range(n_rows):
                u = e.load(left[p], i)
                result += [e.fma(u, c[q], sums[p * n_columns + q]) for q in range(n_columns)]
            return result

        vectors = e.loop(0, n, e.width, [e.zero()] * (n_rows * n_columns), columns)
        for index, sums in enumerate(e.lane_sums(vectors)):
            # One vector of sums holds whole rows of the block, or (narrow vectors) the block's row is in several.
            count = min(sums.type.count, n_columns)
            for start in range(0, sums.type.count, count):
                p, q = divmod(index * sums.type.count + start, n_columns)
                place = b.add(b.mul(b.add(a, e.integer(p)), n_features), b.add(d, e.integer(q)))
                e.add_to_float64(sums, start, count, scatter, place)

    for n_rows, a, present in row_blocks(e, n_features):
        if present is None:

            def rows(a, _):
                e.loop(0, b.add(a, e.integer(4)), 4, [], lambda d, _: add_products(a, 4, d, 4))

            e.loop(0, a, 4, [], rows)
        else:

            def rest(_, a=a, n_rows=n_rows):
                fours = b.and_(a, e.integer(-4))
                e.loop(0, fours, 4, [], lambda d, _: add_products(a, n_rows, d, 4))
                if n_rows == 1:  # behind a pair of rows
                    e.when(b.icmp_signed("<", fours, a), [], lambda _: add_products(a, 1, fours, 2))
                add_products(a, n_rows, a, n_rows)

            e.when(present, [], rest)


@exact_leaf
def add_moments(x, n, resp, means, work, first_out, scatter_out):
    """Add a tile's first moments (K, D) and scatter (K, D, D), both about the means; the upper triangle is not used."""
    for k in range(means.shape[0]):
        add_component_moments(x, n, resp, means, k, work, first_out, scatter_out)
