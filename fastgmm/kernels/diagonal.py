"""The diagonal layout: every component has one scale a feature. Spherical models use it with equal scales.

E-step:  ``log_prob[k, i] = log_coef[k] - sum_d (s_kd (x_id - m_kd))^2 / 2``  with s the square root of the precision: a
difference, a product and a multiply-add an entry. (``s x - s m`` would save one of the three, but rounds ``s m``: with
float32 rows and components 1e5 standard deviations apart, distances would be wrong in the third digit.)
M-step:  ``scatter[k, d] += sum_i r[k, i] (x_id - m_kd)^2``  about the current mean, with
the first moment beside it.

Features go in blocks of four, so that q is loaded and stored once for eight multiply-adds. Cache: the tile (D T
numbers) in L1 or L2, the operands (2 K D numbers) in L2.
"""

from __future__ import annotations

from .runtime import exact_leaf, reducing_leaf


def work_rows(n_components, n_features):
    """Rows of scratch that the functions below need beside the tile itself."""
    return 1


@exact_leaf
def prepare(x, n, factor, work):
    """Nothing to do once a tile."""


@exact_leaf
def log_prob_tile(x, n, means, factor, log_coef, work, log_prob_out):
    """Write ``log_coef[k] - sum_d (factor[k, 0, d] (x[d, i] - means[k, d]))^2 / 2``, shape (K, T)."""
    n_components, n_features = means.shape
    q = work[0]
    whole = n_features - n_features % 4
    half = x.dtype.type(0.5)
    for k in range(n_components):
        s, m = factor[k, 0], means[k]
        for i in range(n):
            q[i] = 0
        for d in range(0, whole, 4):
            s0, s1, s2, s3 = s[d], s[d + 1], s[d + 2], s[d + 3]
            m0, m1, m2, m3 = m[d], m[d + 1], m[d + 2], m[d + 3]
            x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
            for i in range(n):
                y0 = s0 * (x0[i] - m0)
                y1 = s1 * (x1[i] - m1)
                y2 = s2 * (x2[i] - m2)
                y3 = s3 * (x3[i] - m3)
                q[i] = q[i] + y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
        for d in range(whole, n_features):
            for i in range(n):
                y0 = s[d] * (x[d, i] - m[d])
                q[i] += y0 * y0
        for i in range(n):
            log_prob_out[k, i] = log_coef[k] - half * q[i]


@reducing_leaf
def add_four(x, d, n, r, m, first_out, scatter_out):
    """Moments of the four features from d on."""
    zero = x.dtype.type(0)
    f0 = f1 = f2 = f3 = g0 = g1 = g2 = g3 = zero
    m0, m1, m2, m3 = m[d], m[d + 1], m[d + 2], m[d + 3]
    x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
    for i in range(n):
        t0 = x0[i] - m0
        t1 = x1[i] - m1
        t2 = x2[i] - m2
        t3 = x3[i] - m3
        u0 = r[i] * t0
        u1 = r[i] * t1
        u2 = r[i] * t2
        u3 = r[i] * t3
        f0 += u0
        f1 += u1
        f2 += u2
        f3 += u3
        g0 += u0 * t0
        g1 += u1 * t1
        g2 += u2 * t2
        g3 += u3 * t3
    first_out[d] += f0
    first_out[d + 1] += f1
    first_out[d + 2] += f2
    first_out[d + 3] += f3
    scatter_out[d] += g0
    scatter_out[d + 1] += g1
    scatter_out[d + 2] += g2
    scatter_out[d + 3] += g3


@reducing_leaf
def add_one(x, d, n, r, m, first_out, scatter_out):
    """Moments of one feature."""
    f = g = x.dtype.type(0)
    xd, md = x[d], m[d]
    for i in range(n):
        t = xd[i] - md
        u = r[i] * t
        f += u
        g += u * t
    first_out[d] += f
    scatter_out[d] += g


@exact_leaf
def add_moments(x, n, resp, means, work, first_out, scatter_out):
    """Add a tile's first moments (K, D) and sums of squares (K, 1, D), both about the means."""
    n_components, n_features = means.shape
    whole = n_features - n_features % 4
    for k in range(n_components):
        for d in range(0, whole, 4):
            add_four(x, d, n, resp[k], means[k], first_out[k], scatter_out[k, 0])
        for d in range(whole, n_features):
            add_one(x, d, n, resp[k], means[k], first_out[k], scatter_out[k, 0])
