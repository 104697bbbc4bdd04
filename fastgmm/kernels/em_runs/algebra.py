"""Linear algebra of small symmetric matrices, compiled into the M-steps of covariance models.

NumPy's functions of the same results serve where the M-steps run in Python (`fastgmm.covariance.linear_algebra`). Numba
takes seconds to compile its own versions of those.

Flops: D^3 / 3 multiply-adds for a determinant, D^3 for an inverse, about 20 D^3 for axes. Cache: a matrix in L1.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import compact, exact_leaf

# Sweeps of rotations; with fewer than 64 features, ten sweeps reach rounding.
MAX_SWEEPS = 60
EPSILON = 2.220446049250313e-16


@exact_leaf
def variances_and_axes(matrices):
    """Return the eigenvalues, ascending, and the eigenvectors of symmetric matrices.

    The eigenvectors are the columns. They are found by Jacobi rotations (Golub & Van Loan, Matrix Computations,
    section 8.5), which are as precise as LAPACK's steps. They are NaN if a matrix is not finite.
    """
    compact()
    n_matrices, n_features = matrices.shape[0], matrices.shape[1]
    values, vectors = np.empty((n_matrices, n_features)), np.empty((n_matrices, n_features, n_features))
    a, v = np.empty((n_features, n_features)), np.empty((n_features, n_features))
    for k in range(n_matrices):
        for i in range(n_features):
            for j in range(n_features):
                a[i, j] = matrices[k, i, j]
                v[i, j] = 1.0 if i == j else 0.0
        rotate_to_diagonal(a, v)
        for i in range(n_features):
            position = 0  # the rank of this value; equal values keep their order
            for j in range(n_features):
                position += a[j, j] < a[i, i] or (a[j, j] == a[i, i] and j < i)
            values[k, position] = a[i, i]
            for j in range(n_features):
                vectors[k, j, position] = v[j, i]
        for i in range(n_features):
            if not np.isfinite(a[i, i]):
                for j in range(n_features):
                    values[k, j] = np.nan
                    for q in range(n_features):
                        vectors[k, j, q] = np.nan
    return values, vectors


@exact_leaf
def rotate_to_diagonal(a, v):
    """Rotate a symmetric matrix until it is diagonal, in place; rotate the columns of `v` likewise."""
    compact()
    n_features = a.shape[0]
    for _ in range(MAX_SWEEPS):
        rotated = False
        for p in range(n_features - 1):
            for q in range(p + 1, n_features):
                if not abs(a[p, q]) > 0.5 * EPSILON * np.sqrt(abs(a[p, p]) * abs(a[q, q])):
                    continue
                rotated = True
                # The smaller of the two angles that make a[p, q] zero.
                ratio = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                tangent = 1.0 / (abs(ratio) + np.sqrt(ratio * ratio + 1.0))
                tangent = -tangent if ratio < 0 else tangent
                cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
                sine = tangent * cosine
                a_pp, a_qq, a_pq = a[p, p], a[q, q], a[p, q]
                for i in range(n_features):
                    if i != p and i != q:
                        x, y = a[i, p], a[i, q]
                        a[i, p] = a[p, i] = cosine * x - sine * y
                        a[i, q] = a[q, i] = sine * x + cosine * y
                    x, y = v[i, p], v[i, q]
                    v[i, p], v[i, q] = cosine * x - sine * y, sine * x + cosine * y
                a[p, p], a[q, q] = a_pp - tangent * a_pq, a_qq + tangent * a_pq
                a[p, q] = a[q, p] = 0.0
        if not rotated:
            break


@exact_leaf
def log_determinants(matrices):
    """Return the log-determinants of symmetric positive definite matrices.

    That of another matrix is -inf or NaN.
    """
    compact()
    n_matrices, n_features = matrices.shape[0], matrices.shape[1]
    result, lower = np.zeros(n_matrices), np.empty((n_features, n_features))
    for k in range(n_matrices):
        for i in range(n_features):
            for j in range(i + 1):
                rest = matrices[k, i, j]
                for q in range(j):
                    rest -= lower[i, q] * lower[j, q]
                lower[i, j] = rest / lower[j, j] if j < i else np.sqrt(rest if rest > 0 else 0.0)
            result[k] += 2.0 * np.log(lower[i, i])
    return result


@exact_leaf
def inverse(matrix):
    """Return the inverse of a symmetric positive definite matrix; NaN if it has none."""
    compact()
    n_features = matrix.shape[0]
    lower, result = np.zeros((n_features, n_features)), np.empty((n_features, n_features))
    for i in range(n_features):
        for j in range(i + 1):
            rest = matrix[i, j]
            for q in range(j):
                rest -= lower[i, q] * lower[j, q]
            if j < i:
                lower[i, j] = rest / lower[j, j]
            elif rest > 0:
                lower[i, i] = np.sqrt(rest)
            else:
                for p in range(n_features):
                    for q in range(n_features):
                        result[p, q] = np.nan
                return result
    # The inverse of the factor takes the place of the factor, row by row.
    for i in range(n_features):
        for j in range(i):
            total = 0.0
            for q in range(j, i):
                total += lower[i, q] * lower[q, j]
            lower[i, j] = -total / lower[i, i]
        lower[i, i] = 1.0 / lower[i, i]
    for i in range(n_features):
        for j in range(i + 1):
            total = 0.0
            for q in range(i, n_features):
                total += lower[q, i] * lower[q, j]
            result[i, j] = result[j, i] = total
    return result


@exact_leaf
def in_axes(matrices, axes):
    """Return matrices in other axes, the columns of `axes`: ``V^T M V``."""
    compact()
    n_features = axes.shape[0]
    result, half = np.empty((matrices.shape[0], n_features, n_features)), np.empty((n_features, n_features))
    for k in range(matrices.shape[0]):
        for i in range(n_features):
            for j in range(n_features):
                total = 0.0
                for q in range(n_features):
                    total += matrices[k, i, q] * axes[q, j]
                half[i, j] = total
        for i in range(n_features):
            for j in range(n_features):
                total = 0.0
                for q in range(n_features):
                    total += axes[q, i] * half[q, j]
                result[k, i, j] = total
    return result


@exact_leaf
def from_axes(axes, variances):
    """Return matrices with variances along axes; one set of axes serves all, or each has its own."""
    compact()
    n_matrices, n_features = variances.shape
    result = np.empty((n_matrices, n_features, n_features))
    for k in range(n_matrices):
        own = k if axes.shape[0] > 1 else 0
        for i in range(n_features):
            for j in range(i + 1):
                total = 0.0
                for q in range(n_features):
                    total += axes[own, i, q] * variances[k, q] * axes[own, j, q]
                result[k, i, j] = result[k, j, i] = total
    return result


@exact_leaf
def weighted_sum(factors, matrices):
    """Return ``sum_k f_k M_k``."""
    compact()
    result = np.zeros((matrices.shape[1], matrices.shape[2]))
    for k in range(matrices.shape[0]):
        for i in range(matrices.shape[1]):
            for j in range(matrices.shape[2]):
                result[i, j] += factors[k] * matrices[k, i, j]
    return result


@exact_leaf
def traces_of_products(matrices, other):
    """Return ``tr(M_k A)`` of matrices and a symmetric one."""
    compact()
    result = np.zeros(matrices.shape[0])
    for k in range(matrices.shape[0]):
        for i in range(matrices.shape[1]):
            for j in range(matrices.shape[2]):
                result[k] += matrices[k, i, j] * other[i, j]
    return result


@exact_leaf
def times_vector(matrix, vector):
    """Return ``M v``."""
    compact()
    result = np.zeros(matrix.shape[0])
    for k in range(matrix.shape[0]):
        for d in range(matrix.shape[1]):
            result[k] += matrix[k, d] * vector[d]
    return result


@exact_leaf
def vector_times(vector, matrix):
    """Return ``v^T M``."""
    compact()
    result = np.zeros(matrix.shape[1])
    for k in range(matrix.shape[0]):
        for d in range(matrix.shape[1]):
            result[d] += vector[k] * matrix[k, d]
    return result


@exact_leaf
def scaled_rows(matrix, factors):
    """Return a matrix with each row multiplied by its factor."""
    compact()
    result = np.empty((matrix.shape[0], matrix.shape[1]))
    for k in range(matrix.shape[0]):
        for d in range(matrix.shape[1]):
            result[k, d] = matrix[k, d] * factors[k]
    return result


@exact_leaf
def scaled_matrices(matrices, factors):
    """Return matrices, each multiplied by its factor."""
    compact()
    result = np.empty((matrices.shape[0], matrices.shape[1], matrices.shape[2]))
    for k in range(matrices.shape[0]):
        for d in range(matrices.shape[1]):
            for e in range(matrices.shape[2]):
                result[k, d, e] = matrices[k, d, e] * factors[k]
    return result


@exact_leaf
def repeated_rows(row, n_rows):
    """Return a matrix of equal rows."""
    compact()
    result = np.empty((n_rows, len(row)))
    for k in range(n_rows):
        for d in range(len(row)):
            result[k, d] = row[d]
    return result


@exact_leaf
def diagonals(matrices):
    """Return the diagonals of matrices."""
    compact()
    result = np.empty((matrices.shape[0], matrices.shape[1]))
    for k in range(matrices.shape[0]):
        for d in range(matrices.shape[1]):
            result[k, d] = matrices[k, d, d]
    return result


@exact_leaf
def scaled_copies(matrix, factors):
    """Return one matrix multiplied by each factor."""
    compact()
    result = np.empty((len(factors), matrix.shape[0], matrix.shape[1]))
    for k in range(len(factors)):
        for d in range(matrix.shape[0]):
            for e in range(matrix.shape[1]):
                result[k, d, e] = matrix[d, e] * factors[k]
    return result
