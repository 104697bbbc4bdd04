"""M-steps of the covariance models: from scatter to covariances.

Each function returns the covariances of highest likelihood, given the scatter within components.

A covariance is ``lambda D A D^T``: a volume lambda, an orientation D (orthogonal) and a shape A (diagonal, of
determinant one). Each of these is equal for all components ("E"), variable ("V"), or the identity ("I"). A function
minimises ``sum_k n_k log det Sigma_k + tr(W_k Sigma_k^-1)`` over its model. Most solutions are derived in Celeux &
Govaert (1995), "Gaussian parsimonious clustering models", Pattern Recognition 28. All functions take

    scatter : (K, D, D) in the full layout, (K, D) in the diagonal layout, (D, D) in the tied layout
        ``W_k = sum_i w_i r_ik (x_i - m_k)(x_i - m_k)^T``, its diagonal, or ``sum_k W_k``.
    weight_sums : (K,)
        ``n_k``, above 0.
    before : as the result, optional
        Covariances of the model from which an iteration starts. The likelihood of the result is no lower than theirs.

and return covariances in the form of their model. If no solution exists, for instance because a volume is zero, they
return NaN or zeros. `Form.precisions_cholesky` then raises an error that names the components.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .common_axes import common_orientation, variances_and_axes

Array = NDArray[np.float64]
# The iterations of "VEI", "VEE" and "VEV" converge when no volume changes by more than this part of it. The problems
# are convex in the logarithms, so the start decides the number of iterations only. (A tolerance on the objective is too
# coarse: with 1e-13, starts 1e-7 apart led to results 4e-7 apart.)
TOLERANCE = 1e-13
# Number of iterations without a lower objective after which the rest is rounding.
PATIENCE = 50
MAX_ITERATIONS = 1000


class VolumeConvergence:
    """The stopping rule of iterations over volumes.

    The iterations minimise ``sum_k n_k log lambda_k`` over volumes lambda.

    Parameters
    ----------
    weight_sums : (K,)
        ``n_k``.
    """

    def __init__(self, weight_sums: Array):
        self.weights = weight_sums / weight_sums.sum()
        self.before, self.lowest, self.n_idle = np.full(len(weight_sums), np.nan), np.inf, 0

    def should_stop(self, volumes: Array) -> bool:
        """Return whether to stop with these volumes, (K,).

        The iterations stop when they have converged, only rounding is left, or a volume is not positive.
        """
        if not (volumes > 0).all():
            return True
        objective = float(self.weights @ np.log(volumes))
        self.n_idle = 0 if objective < self.lowest else self.n_idle + 1
        self.lowest = min(self.lowest, objective)
        with np.errstate(over="ignore", invalid="ignore"):
            change, self.before = np.abs(volumes / self.before - 1).max(), volumes
        return bool(change < TOLERANCE) or self.n_idle > PATIENCE


def spherical_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EII or E, (K,).

    ``lambda = sum_k trace(W_k) / (D n)``.
    """
    return np.full(len(scatter), scatter.sum() / (scatter.shape[1] * weight_sums.sum()))


def spherical(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VII, or V: ``lambda_k = trace(W_k) / (D n_k)``; (K,)."""
    return scatter.mean(axis=1) / weight_sums


def diagonal_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEI: ``lambda A = sum_k diag(W_k) / n``; (K, D)."""
    return np.tile(scatter.sum(axis=0) / weight_sums.sum(), (len(scatter), 1))


def diagonal_equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEI: ``lambda_k A``; (K, D)."""
    volumes, shape = volumes_and_shape(scatter, weight_sums, None if before is None else before[0])
    return volumes[:, np.newaxis] * shape


def diagonal_equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EVI: ``lambda A_k``, (K, D).

    They are the diagonals of the scatter, scaled to one volume.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = np.exp(np.log(scatter).mean(axis=1))
        return volumes.sum() / weight_sums.sum() * (scatter / volumes[:, np.newaxis])


def diagonal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VVI: ``diag(W_k) / n_k``; (K, D)."""
    return scatter / weight_sums[:, np.newaxis]


def equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEE: ``sum_k W_k / n``; (D, D)."""
    return scatter / weight_sums.sum()


def equal_up_to_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEE: ``lambda_k C`` with ``det C = 1``; (K, D, D).

    The iteration alternates ``lambda_k = tr(W_k C^-1) / (D n_k)`` and ``C ~ sum_k W_k / lambda_k``.
    """
    n_features = scatter.shape[1]
    common = _normalised(scatter.sum(axis=0) if before is None else before[0])
    volumes, convergence = np.ones(len(scatter)), VolumeConvergence(weight_sums)
    for _ in range(MAX_ITERATIONS):
        try:
            inverse = np.linalg.inv(common)
        except np.linalg.LinAlgError:
            return np.full(scatter.shape, np.nan)
        volumes = np.einsum("kde,de->k", scatter, inverse) / (n_features * weight_sums)
        if convergence.should_stop(volumes):
            break
        common = _normalised(np.tensordot(1 / volumes, scatter, axes=1))
    return volumes[:, np.newaxis, np.newaxis] * common


def equal_shape_and_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEV: ``D_k (lambda A) D_k^T``, (K, D, D).

    The axes are those of each component's scatter. The variances along them are common.
    """
    values, vectors = variances_and_axes(scatter)
    return _assembled(vectors, np.tile(values.sum(axis=0) / weight_sums.sum(), (len(values), 1)))


def equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEV: ``lambda_k D_k A D_k^T``, (K, D, D).

    The axes are those of each component's scatter. The variances along them are those of VEI.
    """
    values, vectors = variances_and_axes(scatter)
    start = None if before is None else variances_and_axes(before[0])[0]
    volumes, shape = volumes_and_shape(np.maximum(values, 0.0), weight_sums, start)
    return _assembled(vectors, volumes[:, np.newaxis] * shape)


def equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EVV: ``lambda D_k A_k D_k^T``, (K, D, D).

    They are the scatter matrices, scaled to one volume.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = np.exp(np.linalg.slogdet(scatter)[1] / scatter.shape[1])
        return volumes.sum() / weight_sums.sum() * (scatter / volumes[:, np.newaxis, np.newaxis])


def equal_orientation_and_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EVE: ``lambda D A_k D^T``, (K, D, D).

    The axes D are common; see `common_orientation`.
    """

    def variances(along: Array) -> Array:
        volumes = np.exp(np.log(along).mean(axis=1))
        return volumes.sum() / weight_sums.sum() * (along / volumes[:, np.newaxis])

    return _assembled(*common_orientation(scatter, weight_sums, variances, before))


def equal_orientation(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VVE: ``lambda_k D A_k D^T``, (K, D, D).

    The axes D are common principal components; see `common_orientation`.
    """
    return _assembled(
        *common_orientation(scatter, weight_sums, lambda along: along / weight_sums[:, np.newaxis], before)
    )


def free(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VVV: ``W_k / n_k``; (K, D, D)."""
    return scatter / weight_sums[:, np.newaxis, np.newaxis]


def volumes_and_shape(spread: Array, weight_sums: Array, start: Array | None = None) -> tuple[Array, Array]:
    """Return the best volumes (K,) and common shape (D,).

    Best for sums of squares along axes, (K, D); the product of the shape is one.

    The iteration alternates ``lambda_k = mean_d(W_kd / A_d) / n_k`` and ``A_d ~ sum_k W_kd / lambda_k``, from A
    proportional to `start`. This is Sinkhorn's scaling of the matrix W to row sums ``D n_k`` and equal column sums.
    """
    n_features = spread.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = _of_product_one(spread.sum(axis=0) if start is None else start)
        volumes, convergence = np.ones(len(spread)), VolumeConvergence(weight_sums)
        for _ in range(MAX_ITERATIONS):
            volumes = spread @ (1 / shape) / (n_features * weight_sums)
            if convergence.should_stop(volumes):
                break
            shape = _of_product_one((1 / volumes) @ spread)
    return volumes, shape


def _of_product_one(values: Array) -> Array:
    """Return numbers scaled to product one."""
    return values / np.exp(np.log(values).mean())


def _normalised(matrix: Array) -> Array:
    """Return a matrix scaled to determinant one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return matrix / np.exp(np.linalg.slogdet(matrix)[1] / len(matrix))


def _assembled(vectors: Array, variances: Array) -> Array:
    """Return matrices (K, D, D) with variances (K, D) along axes.

    The axes are the columns of `vectors`, (K, D, D) or (D, D).
    """
    return (vectors * variances[:, np.newaxis, :]) @ vectors.swapaxes(-1, -2)
