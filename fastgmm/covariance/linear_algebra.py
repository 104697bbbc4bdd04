"""Linear algebra of covariance matrices for M-steps that run in Python.

Compiled M-steps have functions of the same names and results: see `fastgmm.kernels.em_runs.algebra`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def variances_and_axes(matrices: Array) -> tuple[Array, Array]:
    """Return the eigenvalues and eigenvectors of symmetric matrices.

    They are NaN if the decomposition fails.

    Parameters
    ----------
    matrices : (K, D, D)

    Returns
    -------
    values : (K, D)
        Ascending.
    vectors : (K, D, D)
        The eigenvectors are the columns.
    """
    try:
        values, vectors = np.linalg.eigh(matrices)
    except np.linalg.LinAlgError:
        return np.full(matrices.shape[:-1], np.nan), np.full(matrices.shape, np.nan)
    return values, vectors


def log_determinants(matrices: Array) -> Array:
    """Return the log-determinants, (K,), of matrices (K, D, D)."""
    logarithms: Array = np.linalg.slogdet(matrices)[1]
    return logarithms


def inverse(matrix: Array) -> Array:
    """Return the inverse of a matrix (D, D); NaN if it has none."""
    try:
        return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full(matrix.shape, np.nan)


def in_axes(matrices: Array, axes: Array) -> Array:
    """Return matrices (K, D, D) in other axes, the columns of `axes` (D, D): ``V^T M V``."""
    rotated: Array = axes.T @ matrices @ axes
    return rotated


def from_axes(axes: Array, variances: Array) -> Array:
    """Return matrices (K, D, D) with variances (K, D) along axes.

    The axes are the columns of `axes`: (K, D, D), or (1, D, D) if all matrices have the same.
    """
    assembled: Array = (axes * variances[:, np.newaxis, :]) @ axes.swapaxes(1, 2)
    return assembled


def weighted_sum(factors: Array, matrices: Array) -> Array:
    """Return ``sum_k f_k M_k`` of matrices (K, D, D)."""
    return np.tensordot(factors, matrices, axes=1)


def traces_of_products(matrices: Array, other: Array) -> Array:
    """Return ``tr(M_k A)``, (K,), of matrices (K, D, D) and a symmetric one (D, D)."""
    return np.einsum("kde,de->k", matrices, other)


def times_vector(matrix: Array, vector: Array) -> Array:
    """Return ``M v``, (K,), of a matrix (K, D) and a vector (D,)."""
    product: Array = (matrix * vector).sum(axis=1)
    return product


def vector_times(vector: Array, matrix: Array) -> Array:
    """Return ``v^T M``, (D,), of a vector (K,) and a matrix (K, D)."""
    product: Array = (vector[:, np.newaxis] * matrix).sum(axis=0)
    return product


def scaled_rows(matrix: Array, factors: Array) -> Array:
    """Return a matrix (K, D) with each row multiplied by its factor, (K,)."""
    return matrix * factors[:, np.newaxis]


def scaled_matrices(matrices: Array, factors: Array) -> Array:
    """Return matrices (K, D, D), each multiplied by its factor, (K,)."""
    return matrices * factors[:, np.newaxis, np.newaxis]


def repeated_rows(row: Array, n_rows: int) -> Array:
    """Return a matrix (n, D) of equal rows (D,)."""
    return np.tile(row, (n_rows, 1))


def diagonals(matrices: Array) -> Array:
    """Return the diagonals, (K, D), of matrices (K, D, D)."""
    return np.einsum("kdd->kd", matrices).copy()


def scaled_copies(matrix: Array, factors: Array) -> Array:
    """Return matrices (K, D, D): one matrix (D, D) multiplied by each factor, (K,)."""
    return factors[:, np.newaxis, np.newaxis] * matrix
