"""M-steps of the covariance models: from within-component scatter to the covariances of highest likelihood.

A covariance is ``lambda D A D^T``: a volume (``det = lambda^D``), an orientation and a shape of determinant one, each
of which components have in common ("E") or not ("V"; "I" is the identity). What a function minimises over its model is
``sum_k n_k log det Sigma_k + tr(W_k Sigma_k^-1)`` (Celeux & Govaert, 1995, "Gaussian parsimonious clustering models",
Pattern Recognition 28, where most are derived). All of them take

    scatter : (K, D, D) of the full layout, (K, D) of the diagonal one, (D, D) of the tied one
        ``W_k = sum_i w_i r_ik (x_i - m_k)(x_i - m_k)^T``, its diagonal, or ``sum_k W_k``.
    weight_sums : (K,)
        ``n_k``, above 0.
    before : as the result, optional
        Covariances of the model to start from, if there is anything to iterate; the likelihood is no lower than theirs.

and return covariances in their model's form. Where there are none (no volume, say), they return NaN or 0: forms refuse
to factor them, and say whose they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .common_axes import common_orientation, variances_and_axes

Array = NDArray[np.float64]
# Iterations of a step of "VEI", "VEE" and "VEV" end when no volume changes by more than this part of it, or what is
# minimised has not been lower for so many, which is rounding. The problems are convex (in logarithms), so where they
# start only decides how long they take. Ended where it falls by less than 1e-13, from starts 1e-7 apart they came to
# ends up to 4e-7 apart: what rounding decides, one iteration more or less, showed a million times larger.
TOLERANCE, PATIENCE, MAX_ITERATIONS = 1e-13, 50, 1000


class VolumeConvergence:
    """Of iterations over volumes, (K,), with these weights: what is minimised is ``sum_k n_k log lambda_k``."""

    def __init__(self, weight_sums: Array):
        self.weights = weight_sums / weight_sums.sum()
        self.before, self.lowest, self.n_idle = np.full(len(weight_sums), np.nan), np.inf, 0

    def has_ended(self, volumes: Array) -> bool:
        """Whether these are the last, or there are none."""
        if not (volumes > 0).all():
            return True
        level = float(self.weights @ np.log(volumes))
        self.n_idle = 0 if level < self.lowest else self.n_idle + 1
        self.lowest = min(self.lowest, level)
        with np.errstate(over="ignore", invalid="ignore"):
            change, self.before = np.abs(volumes / self.before - 1).max(), volumes
        return bool(change < TOLERANCE) or self.n_idle > PATIENCE


def spherical_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EII, E: ``lambda = sum_k trace(W_k) / (D n)``; (K,)."""
    return np.full(len(scatter), scatter.sum() / (scatter.shape[1] * weight_sums.sum()))


def spherical(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VII, V: ``lambda_k = trace(W_k) / (D n_k)``; (K,)."""
    return scatter.mean(axis=1) / weight_sums


def diagonal_equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EEI: ``lambda A = sum_k diag(W_k) / n``; (K, D)."""
    return np.tile(scatter.sum(axis=0) / weight_sums.sum(), (len(scatter), 1))


def diagonal_equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VEI: ``lambda_k A``; (K, D)."""
    volumes, shape = volumes_and_shape(scatter, weight_sums, None if before is None else before[0])
    return volumes[:, np.newaxis] * shape


def diagonal_equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EVI: ``lambda A_k``, the diagonals of the scatter with volumes made equal; (K, D)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = np.exp(np.log(scatter).mean(axis=1))
        return volumes.sum() / weight_sums.sum() * (scatter / volumes[:, np.newaxis])


def diagonal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VVI: ``diag(W_k) / n_k``; (K, D)."""
    return scatter / weight_sums[:, np.newaxis]


def equal(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EEE: ``sum_k W_k / n``; (D, D)."""
    return scatter / weight_sums.sum()


def equal_up_to_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VEE: ``lambda_k C`` with ``det C = 1``; (K, D, D).

    ``lambda_k = tr(W_k C^-1) / (D n_k)`` and ``C ~ sum_k W_k / lambda_k`` in turns.
    """
    n_features = scatter.shape[1]
    common = _normalised(scatter.sum(axis=0) if before is None else before[0])
    volumes, progress = np.ones(len(scatter)), VolumeConvergence(weight_sums)
    for _ in range(MAX_ITERATIONS):
        try:
            inverse = np.linalg.inv(common)
        except np.linalg.LinAlgError:
            return np.full(scatter.shape, np.nan)
        volumes = np.einsum("kde,de->k", scatter, inverse) / (n_features * weight_sums)
        if progress.has_ended(volumes):
            break
        common = _normalised(np.tensordot(1 / volumes, scatter, axes=1))
    return volumes[:, np.newaxis, np.newaxis] * common


def equal_shape_and_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EEV: ``D_k (lambda A) D_k^T``, the scatter's own axes with common variances along them; (K, D, D)."""
    values, vectors = variances_and_axes(scatter)
    return _assembled(vectors, np.tile(values.sum(axis=0) / weight_sums.sum(), (len(values), 1)))


def equal_shape(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VEV: ``lambda_k D_k A D_k^T``, the scatter's own axes and "VEI" along them; (K, D, D)."""
    values, vectors = variances_and_axes(scatter)
    start = None if before is None else variances_and_axes(before[0])[0]
    volumes, shape = volumes_and_shape(np.maximum(values, 0.0), weight_sums, start)
    return _assembled(vectors, volumes[:, np.newaxis] * shape)


def equal_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EVV: ``lambda D_k A_k D_k^T``, the scatter with volumes made equal; (K, D, D)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        volumes = np.exp(np.linalg.slogdet(scatter)[1] / scatter.shape[1])
        return volumes.sum() / weight_sums.sum() * (scatter / volumes[:, np.newaxis, np.newaxis])


def equal_orientation_and_volume(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """EVE: ``lambda D A_k D^T``; (K, D, D). See `common_orientation`."""

    def variances(along: Array) -> Array:
        volumes = np.exp(np.log(along).mean(axis=1))
        return volumes.sum() / weight_sums.sum() * (along / volumes[:, np.newaxis])

    return _assembled(*common_orientation(scatter, weight_sums, variances, before))


def equal_orientation(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VVE: ``lambda_k D A_k D^T``, common principal components; (K, D, D). See `common_orientation`."""
    return _assembled(
        *common_orientation(scatter, weight_sums, lambda along: along / weight_sums[:, np.newaxis], before)
    )


def free(scatter: Array, weight_sums: Array, before: Array | None = None) -> Array:
    """VVV: ``W_k / n_k``; (K, D, D)."""
    return scatter / weight_sums[:, np.newaxis, np.newaxis]


def volumes_and_shape(spread: Array, weight_sums: Array, start: Array | None = None) -> tuple[Array, Array]:
    """Volumes (K,) and a common shape (D,) of product one that fit sums of squares along axes, (K, D), best.

    ``lambda_k = mean_d(W_kd / A_d) / n_k`` and ``A_d ~ sum_k W_kd / lambda_k`` in turns, from A ~ `start`: Sinkhorn's
    scaling of the matrix W to row sums ``D n_k`` and equal column sums.
    """
    n_features = spread.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = _of_product_one(spread.sum(axis=0) if start is None else start)
        volumes, progress = np.ones(len(spread)), VolumeConvergence(weight_sums)
        for _ in range(MAX_ITERATIONS):
            volumes = spread @ (1 / shape) / (n_features * weight_sums)
            if progress.has_ended(volumes):
                break
            shape = _of_product_one((1 / volumes) @ spread)
    return volumes, shape


def _of_product_one(values: Array) -> Array:
    return values / np.exp(np.log(values).mean())


def _normalised(matrix: Array) -> Array:
    """A matrix scaled to determinant one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return matrix / np.exp(np.linalg.slogdet(matrix)[1] / len(matrix))


def _assembled(vectors: Array, variances: Array) -> Array:
    """Matrices (K, D, D) with these variances (K, D) along orthogonal axes: the columns of (K, D, D), or (D, D)."""
    return (vectors * variances[:, np.newaxis, :]) @ vectors.swapaxes(-1, -2)
