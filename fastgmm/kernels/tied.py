"""The tied layout: one triangular factor for all components.

E-step: a tile is whitened once, ``y = L x`` (D (D + 1) / 2 multiply-adds a row, whatever K); after that a component is
a plain distance, ``log_prob[k, i] = log_coef[k] - |y_i - L m_k|^2 / 2``, a difference and a multiply-add an entry.
M-step: with responsibilities that sum to one, the scatter about one common point does not depend on them. It is summed
once for a whole fit (`add_total_scatter`, in float64 whatever the rows' dtype); afterwards a pass needs only the first
moments, one multiply-add an entry. They are taken about the same common point, the tile's origin.

Cache: the tile and its whitened copy (2 D T numbers) in L1 or L2, the whitened means (K D numbers) in L2.
"""

from __future__ import annotations

import numpy as np

from .runtime import exact_leaf, reducing_leaf


def work_rows(n_components, n_features):
    """Rows of scratch that the functions below need beside the tile itself."""
    return n_features + 1


@exact_leaf
def prepare(x, n, factor, work):
    """Whiten the tile: ``work[j, i] = sum_{d <= j} L[j, d] x[d, i]``."""
    L = factor[0]
    for j in range(L.shape[0]):
        y = work[j]
        for i in range(n):
            y[i] = 0
        whole = (j + 1) - (j + 1) % 4
        for d in range(0, whole, 4):
            a0, a1, a2, a3 = L[j, d], L[j, d + 1], L[j, d + 2], L[j, d + 3]
            x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
            for i in range(n):
                y[i] = y[i] + a0 * x0[i] + a1 * x1[i] + a2 * x2[i] + a3 * x3[i]
        for d in range(whole, j + 1):
            a0 = L[j, d]
            for i in range(n):
                y[i] += a0 * x[d, i]


@exact_leaf
def log_prob_tile(x, n, means, factor, log_coef, work, log_prob_out):
    """Write ``log_coef[k] - |y_i - means[k]|^2 / 2``, shape (K, T); the means are whitened ones."""
    n_components, n_features = means.shape
    q = work[n_features]
    whole = n_features - n_features % 4
    half = x.dtype.type(0.5)
    for k in range(n_components):
        m = means[k]
        for i in range(n):
            q[i] = 0
        for d in range(0, whole, 4):
            m0, m1, m2, m3 = m[d], m[d + 1], m[d + 2], m[d + 3]
            y0, y1, y2, y3 = work[d], work[d + 1], work[d + 2], work[d + 3]
            for i in range(n):
                t0 = y0[i] - m0
                t1 = y1[i] - m1
                t2 = y2[i] - m2
                t3 = y3[i] - m3
                q[i] = q[i] + t0 * t0 + t1 * t1 + t2 * t2 + t3 * t3
        for d in range(whole, n_features):
            for i in range(n):
                t0 = work[d, i] - m[d]
                q[i] += t0 * t0
        for i in range(n):
            log_prob_out[k, i] = log_coef[k] - half * q[i]


@reducing_leaf
def add_four(x, d, n, r, first_out):
    """First moments of the four features from d on."""
    f0 = f1 = f2 = f3 = x.dtype.type(0)
    x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
    for i in range(n):
        f0 += r[i] * x0[i]
        f1 += r[i] * x1[i]
        f2 += r[i] * x2[i]
        f3 += r[i] * x3[i]
    first_out[d] += f0
    first_out[d + 1] += f1
    first_out[d + 2] += f2
    first_out[d + 3] += f3


@reducing_leaf
def add_one(x, d, n, r, first_out):
    """First moment of one feature."""
    f = x.dtype.type(0)
    xd = x[d]
    for i in range(n):
        f += r[i] * xd[i]
    first_out[d] += f


@reducing_leaf
def add_total_scatter(x, n, resp, scatter_out):
    """``scatter_out[a, b] += sum_i (sum_k resp[k, i]) x[a, i] x[b, i]`` for b <= a, summed in float64."""
    for i in range(n):
        mass = 0.0
        for k in range(resp.shape[0]):
            mass += np.float64(resp[k, i])
        resp[0, i] = mass
    for a in range(x.shape[0]):
        for b in range(a + 1):
            total = 0.0
            for i in range(n):
                total += np.float64(resp[0, i]) * (np.float64(x[a, i]) * np.float64(x[b, i]))
            scatter_out[a, b] += total


@exact_leaf
def add_moments(x, n, resp, means, work, first_out, scatter_out):
    """Add a tile's first moments (K, D) and, unless `scatter_out` is empty, its scatter (1, D, D), about the origin."""
    n_components, n_features = means.shape
    whole = n_features - n_features % 4
    for k in range(n_components):
        for d in range(0, whole, 4):
            add_four(x, d, n, resp[k], first_out[k])
        for d in range(whole, n_features):
            add_one(x, d, n, resp[k], first_out[k])
    if scatter_out.shape[0] > 0:
        add_total_scatter(x, n, resp, scatter_out[0])
