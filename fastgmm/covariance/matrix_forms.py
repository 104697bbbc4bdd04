"""Forms with correlations: one matrix for each component, or one for all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels

from .errors import IllDefinedCovarianceError
from .forms import Form

Array = NDArray[np.float64]
# Up to this number of features, `is_flat` computes the axes of a covariance. With more features it finds a direction by
# power iteration: 0.04 s instead of 0.4 s with 768 features and 5 components.
MAX_EIGH_FEATURES = 64
POWER_STEPS = 8


class _MatrixForm(Form):
    """The operations that the two forms with correlations share."""

    def precisions_cholesky(self, covariances: Array) -> Array:
        stacked = covariances.reshape(-1, *covariances.shape[-2:])
        factor, well_defined = kernels.factor_covariances(stacked)
        if not well_defined.all():
            components = [] if covariances.ndim == 2 else np.flatnonzero(~well_defined).tolist()
            raise IllDefinedCovarianceError(components, not np.isfinite(self.variances(covariances)).all())
        return np.ascontiguousarray(factor.swapaxes(1, 2)).reshape(covariances.shape)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky @ precisions_cholesky.swapaxes(-1, -2)

    def covariances(self, precisions_cholesky: Array) -> Array:
        root = np.linalg.inv(precisions_cholesky)
        return root.swapaxes(-1, -2) @ root

    def factor_precisions(self, precisions: Array) -> Array:
        # To factor a matrix as upper times its transpose, reverse the order of its rows and columns, take the lower
        # Cholesky factor, and reverse that back.
        return np.ascontiguousarray(np.linalg.cholesky(precisions[..., ::-1, ::-1])[..., ::-1, ::-1])

    def upper_triangular(self, precisions_cholesky: Array) -> Array:
        diagonal = np.einsum("...dd->...d", precisions_cholesky)
        if not np.tril(precisions_cholesky, -1).any() and (diagonal > 0).all():
            return precisions_cholesky
        # P = R Q with Q orthogonal and R upper triangular: reverse the rows of P, take the QR factors of its transpose,
        # and reverse the factor back.
        reversed_rows = precisions_cholesky[..., ::-1, :]
        right: Array = np.linalg.qr(reversed_rows.swapaxes(-1, -2)).R
        root = right.swapaxes(-1, -2)[..., ::-1, ::-1]
        return np.ascontiguousarray(root * np.sign(np.einsum("...dd->...d", root))[..., np.newaxis, :])

    def precision_problem(self, precisions: Array) -> str | None:
        symmetric = np.allclose(precisions, precisions.swapaxes(-1, -2))
        return None if symmetric and np.all(np.linalg.eigvalsh(precisions) > 0) else "symmetric, positive-definite"

    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.log(np.diagonal(precisions_cholesky, axis1=-2, axis2=-1)).sum(axis=-1)

    def variances(self, covariances: Array) -> Array:
        return np.einsum("...dd->...d", covariances)

    def frame(self, weights: Array, means: Array, covariances: Array) -> Array:
        centred = means - weights @ means
        within = covariances if covariances.ndim == 2 else np.tensordot(weights, covariances, axes=1)
        total = within + (weights[:, np.newaxis] * centred).T @ centred
        return np.linalg.cholesky(total).astype(np.float64, copy=False)

    def trace(self, precisions_cholesky: Array, scatter: Array) -> float:
        return float((self.precisions(precisions_cholesky) * scatter).sum())

    def coordinates(self, means: Array, covariances: Array, frame: Array) -> tuple[Array, Array]:
        inverse = np.linalg.inv(frame)
        shapes = np.linalg.cholesky(inverse @ covariances.reshape(-1, *frame.shape) @ inverse.T)
        diagonal = np.arange(len(frame))
        shapes[:, diagonal, diagonal] = np.log(shapes[:, diagonal, diagonal])
        return means @ inverse.T, shapes

    def from_coordinates(self, means: Array, shapes: Array, frame: Array) -> tuple[Array, Array]:
        root, diagonal = kernels.lower_triangle(shapes), np.arange(len(frame))
        root[:, diagonal, diagonal] = np.exp(root[:, diagonal, diagonal])
        root = frame @ root
        stacked: Array = root @ root.swapaxes(1, 2)
        return means @ frame.T, self._stored(stacked)

    def amplification(self, covariances: Array, precisions_cholesky: Array, n_features: int) -> float:
        deviations = np.sqrt(self.variances(covariances))
        sums = np.matmul(deviations[..., np.newaxis, :], np.abs(precisions_cholesky))
        return float(np.linalg.norm(sums, axis=-1).max())

    def inflation(self, covariances: Array, precisions_cholesky: Array) -> float:
        return float((np.sqrt(self.variances(covariances)) * self.variances(precisions_cholesky)).max())

    def is_flat(self, covariances: Array, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        n_features = len(total)
        if n_features > MAX_EIGH_FEATURES:
            return self._is_flat_by_power_iteration(precisions_cholesky, total, thin, wide)
        values, vectors = np.linalg.eigh(covariances.reshape(-1, n_features, n_features))
        flat = np.zeros(len(thin), dtype=bool)
        for k in range(len(thin)):
            index = min(k, len(values) - 1)
            axes = vectors[index][:, values[index] < thin[k]]
            flat[k] = axes.size > 0 and np.linalg.eigvalsh(axes.T @ total @ axes)[-1] > wide[k]
        return flat

    def _is_flat_by_power_iteration(self, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        """Evaluate `is_flat` in one direction for each component.

        It is the direction in which the mixture as a whole is widest relative to the component: ``P w``, where P is the
        factor of the component's precision and w is the vector that ``P^T total P`` stretches most. A flat component
        stretches that vector so much more than any other that a few steps of power iteration find it.
        """
        flat = np.zeros(len(thin), dtype=bool)
        factors = precisions_cholesky.reshape(-1, *total.shape)
        for k in range(len(thin)):
            P = factors[min(k, len(factors) - 1)]
            w = np.ones(len(total))
            for _ in range(POWER_STEPS):
                w /= np.linalg.norm(w)
                direction = P @ w
                image = total @ direction
                length = direction @ direction
                flat[k] |= 1 / length < thin[k] and direction @ image / length > wide[k]
                w = P.T @ image
        return flat

    def _stored(self, stacked: Array) -> Array:
        """Return matrices (K, D, D), or (1, D, D) for "tied", as stored."""
        return stacked


class Full(_MatrixForm):
    """One matrix for each component: (K, D, D)."""

    name = "full"
    layout = "full"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features, n_features)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        return kernels.lower_triangle(precisions_cholesky.swapaxes(1, 2))

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return covariances

    def scatter(self, full: Array) -> Array:
        return full

    def outer(self, weights: Array, vectors: Array) -> Array:
        return (weights[:, np.newaxis] * vectors)[:, :, np.newaxis] * vectors[:, np.newaxis, :]


class Tied(_MatrixForm):
    """One matrix for all components: (D, D)."""

    name = "tied"
    layout = "tied"
    is_shared = True

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_features, n_features)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        return kernels.lower_triangle(precisions_cholesky.T)[np.newaxis]

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return np.broadcast_to(covariances, (n_components, n_features, n_features))

    def scatter(self, full: Array) -> Array:
        total: Array = full.sum(axis=0)
        return total

    def outer(self, weights: Array, vectors: Array) -> Array:
        return (weights[:, np.newaxis] * vectors).T @ vectors

    def counts(self, weight_sums: Array) -> Array:
        return np.asarray(weight_sums.mean())

    def _stored(self, stacked: Array) -> Array:
        return stacked[0]
