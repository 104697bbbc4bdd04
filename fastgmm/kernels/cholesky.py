"""Factors of the precisions: the inverse of the Cholesky factor of each covariance, a component a chunk.

``Sigma_k = C C^T`` with C lower triangular; the factor that the E-step reads is ``L_k = C^-1``, also lower triangular,
``|L_k (x - m)|^2`` the squared Mahalanobis distance. D^3 / 3 multiply-adds a component, in rows, so that the inner
loops are contiguous; 2 D^2 numbers should fit L2.
"""

from __future__ import annotations

import numpy as np

from .runtime import Kernel, reducing_leaf


@reducing_leaf
def row_product(a, b, stop):
    """``sum_{p < stop} a[p] b[p]``."""
    total = 0.0
    for p in range(stop):
        total += a[p] * b[p]
    return total


@reducing_leaf
def cholesky(covariance, cholesky_out):
    """Write the lower Cholesky factor; returns whether every pivot is positive beyond the rounding of its diagonal."""
    n_features = covariance.shape[0]
    tolerance = n_features * 2.220446049250313e-16
    for i in range(n_features):
        for j in range(i):
            rest = covariance[i, j] - row_product(cholesky_out[i], cholesky_out[j], j)
            cholesky_out[i, j] = rest / cholesky_out[j, j]
        pivot = covariance[i, i] - row_product(cholesky_out[i], cholesky_out[i], i)
        if not (pivot > tolerance * covariance[i, i] and pivot < np.inf):
            return False
        cholesky_out[i, i] = np.sqrt(pivot)
    return True


@reducing_leaf
def invert_lower(lower, inverse_out):
    """Write the inverse of a lower triangular matrix, zeros above its diagonal included."""
    n_features = lower.shape[0]
    for i in range(n_features):
        row = inverse_out[i]
        for j in range(n_features):
            row[j] = 0.0
        for p in range(i):
            above, factor = inverse_out[p], lower[i, p]
            for j in range(p + 1):
                row[j] += factor * above[j]
        scale = 1.0 / lower[i, i]
        for j in range(i):
            row[j] *= -scale
        row[i] = scale


def factor_chunk(c, memory, matrices_a_chunk, covariances, factor_out, well_defined_out):
    """``factor_out[k] = cholesky(covariances[k])^-1`` and whether there is one, for the matrices of chunk c."""
    # Scratch of D rows, of which the lower triangle is used: an array of its own takes Numba 0.3 seconds to compile.
    for k in range(c * matrices_a_chunk, min((c + 1) * matrices_a_chunk, len(covariances))):
        well_defined_out[k] = cholesky(covariances[k], memory)
        if well_defined_out[k]:
            invert_lower(memory, factor_out[k])


factor_covariances = Kernel(factor_chunk)
