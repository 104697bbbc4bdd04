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

from .common_axes import variances_of_sums, with_common_axes
from .linear_algebra import (
    from_axes,
    inverse,
    log_determinants,
    repeated_rows,
    scaled_copies,
    scaled_matrices,
    scaled_rows,
    times_vector,
    traces_of_products,
    variances_and_axes,
    vector_times,
    weighted_sum,
)

Array = NDArray[np.float64]
# The iterations of "VEI", "VEE" and "VEV" converge when no volume changes by more than this part of it. The problems
# are convex in the logarithms, so the start decides the number of iterations only. (A tolerance on the objective is too
# coarse: with 1e-13, starts 1e-7 apart led to results 4e-7 apart.)
TOLERANCE = 1e-13
# Number of iterations without a lower objective after which the rest is rounding.
PATIENCE = 50
MAX_ITERATIONS = 1000


def spherical_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EII or E, (K,).

    ``lambda = sum_k trace(W_k) / (D n)``.
    """
    return np.full(len(scatter), scatter.sum() / (scatter.shape[1] * weight_sums.sum()))


def spherical(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VII, or V: ``lambda_k = trace(W_k) / (D n_k)``; (K,)."""
    return scatter.sum(axis=1) / scatter.shape[1] / weight_sums


def diagonal_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEI: ``lambda A = sum_k diag(W_k) / n``; (K, D)."""
    return np.zeros_like(scatter) + scatter.sum(axis=0) / weight_sums.sum()


def diagonal_equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEI: ``lambda_k A``; (K, D)."""
    start = vector_times(np.ones(len(scatter)), scatter) if before is None else before[0]
    volumes, shape = volumes_and_shape(scatter, weight_sums, start)
    return scaled_rows(repeated_rows(shape, len(volumes)), volumes)


def diagonal_equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EVI: ``lambda A_k``, (K, D).

    They are the diagonals of the scatter, scaled to one volume.
    """
    return variances_of_sums(scatter, weight_sums, True)


def diagonal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VVI: ``diag(W_k) / n_k``; (K, D)."""
    return scatter / weight_sums.reshape((-1, 1))


def equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEE: ``sum_k W_k / n``; (D, D)."""
    return scatter / weight_sums.sum()


def equal_up_to_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEE: ``lambda_k C`` with ``det C = 1``; (K, D, D).

    The iteration alternates ``lambda_k = tr(W_k C^-1) / (D n_k)`` and ``C ~ sum_k W_k / lambda_k``.
    """
    common = _of_determinant_one(weighted_sum(np.ones(len(scatter)), scatter) if before is None else before[0])
    volumes, progress = np.ones(len(scatter)), new_progress(len(scatter))
    for _ in range(MAX_ITERATIONS):
        volumes = traces_of_products(scatter, inverse(common)) / (scatter.shape[1] * weight_sums)
        if should_stop(volumes, weight_sums, progress):
            break
        common = _of_determinant_one(weighted_sum(1 / volumes, scatter))
    return scaled_copies(common, volumes)


def equal_shape_and_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EEV: ``D_k (lambda A) D_k^T``, (K, D, D).

    The axes are those of each component's scatter. The variances along them are common.
    """
    values, vectors = variances_and_axes(scatter)
    pooled = vector_times(np.ones(len(values)), values) / weight_sums.sum()
    return from_axes(vectors, repeated_rows(pooled, len(values)))


def equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VEV: ``lambda_k D_k A D_k^T``, (K, D, D).

    The axes are those of each component's scatter. The variances along them are those of VEI.
    """
    values, vectors = variances_and_axes(scatter)
    spread = np.maximum(values, 0.0)
    if before is None:
        start = vector_times(np.ones(len(spread)), spread)
    else:
        start = variances_and_axes(before[0].reshape((1, *before[0].shape)))[0][0]
    volumes, shape = volumes_and_shape(spread, weight_sums, start)
    return from_axes(vectors, scaled_rows(repeated_rows(shape, len(volumes)), volumes))


def equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of EVV: ``lambda D_k A_k D_k^T``, (K, D, D).

    They are the scatter matrices, scaled to one volume.
    """
    volumes = np.exp(log_determinants(scatter) / scatter.shape[1])
    return scaled_matrices(scatter, volumes.sum() / weight_sums.sum() / volumes)


def equal_orientation_and_volume(scatter: Array, weight_sums: Array, before: Array) -> Array:
    """Return the covariances of EVE: ``lambda D A_k D^T``, (K, D, D).

    The axes D are common; see `common_axes.with_common_axes`.
    """
    return with_common_axes(scatter, weight_sums, True, before)


def equal_orientation(scatter: Array, weight_sums: Array, before: Array) -> Array:
    """Return the covariances of VVE: ``lambda_k D A_k D^T``, (K, D, D).

    The axes D are common principal components; see `common_axes.with_common_axes`.
    """
    return with_common_axes(scatter, weight_sums, False, before)


def free(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """Return the covariances of VVV: ``W_k / n_k``; (K, D, D)."""
    return scatter / weight_sums.reshape((-1, 1, 1))


def volumes_and_shape(spread: Array, weight_sums: Array, start: Array) -> tuple[Array, Array]:
    """Return the best volumes (K,) and common shape (D,).

    Best for sums of squares along axes, (K, D); the product of the shape is one.

    The iteration alternates ``lambda_k = mean_d(W_kd / A_d) / n_k`` and ``A_d ~ sum_k W_kd / lambda_k``, from A
    proportional to `start`, (D,). This is Sinkhorn's scaling of the matrix W to row sums ``D n_k`` and equal column
    sums.
    """
    shape = _of_product_one(start)
    volumes, progress = np.ones(len(spread)), new_progress(len(spread))
    for _ in range(MAX_ITERATIONS):
        volumes = times_vector(spread, 1 / shape) / (spread.shape[1] * weight_sums)
        if should_stop(volumes, weight_sums, progress):
            break
        shape = _of_product_one(vector_times(1 / volumes, spread))
    return volumes, shape


def new_progress(n_components: int) -> Array:
    """Return the state of `should_stop` before the first iteration, (K + 2,).

    It holds the volumes before, the lowest objective, and the number of iterations since then.
    """
    progress = np.full(n_components + 2, np.nan)
    progress[n_components], progress[n_components + 1] = np.inf, 0.0
    return progress


def should_stop(volumes: Array, weight_sums: Array, progress: Array) -> bool:
    """Return whether an iteration over volumes, (K,), has converged.

    It minimises ``sum_k n_k log lambda_k``. It stops when no volume changes by more than `TOLERANCE`, only rounding is
    left, or a volume is not positive. `progress` is updated.
    """
    n_components = len(volumes)
    objective, total, change = 0.0, weight_sums.sum(), 0.0
    for k in range(n_components):
        if not volumes[k] > 0:
            return True
        objective += weight_sums[k] / total * np.log(volumes[k])
        relative = abs(volumes[k] / progress[k] - 1)
        change = relative if not relative <= change else change
        progress[k] = volumes[k]
    progress[n_components + 1] = 0.0 if objective < progress[n_components] else progress[n_components + 1] + 1
    progress[n_components] = min(progress[n_components], objective)
    return bool(change < TOLERANCE) or bool(progress[n_components + 1] > PATIENCE)


def _of_product_one(values: Array) -> Array:
    """Return numbers scaled to product one."""
    return values / np.exp(np.log(values).sum() / len(values))


def _of_determinant_one(matrix: Array) -> Array:
    """Return a matrix scaled to determinant one."""
    return matrix / np.exp(log_determinants(matrix.reshape((1, *matrix.shape)))[0] / len(matrix))
