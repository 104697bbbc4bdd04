"""Forms without correlations: scales in place of matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import IllDefinedCovarianceError
from .forms import Form

Array = NDArray[np.float64]
# A scale (an inverse standard deviation) whose square is in the range of float32, with a wide margin.
MIN_SCALE = 1e-9
MAX_SCALE = 1e9


class _ScaleForm(Form):
    """The operations that the two forms without correlations share."""

    layout = "diagonal"
    has_matrices = False

    def precisions_cholesky(self, covariances: Array) -> Array:
        defined = (covariances > 0) & np.isfinite(covariances)
        components = np.flatnonzero(~defined.reshape(len(covariances), -1).all(axis=1))
        if components.size:
            raise IllDefinedCovarianceError(components.tolist(), not np.isfinite(covariances).all())
        return 1 / np.sqrt(covariances)

    def precisions(self, precisions_cholesky: Array) -> Array:
        with np.errstate(over="ignore"):
            return precisions_cholesky**2

    def covariances(self, precisions_cholesky: Array) -> Array:
        return 1 / precisions_cholesky**2

    def factor_precisions(self, precisions: Array) -> Array:
        return np.sqrt(precisions)

    def precision_problem(self, precisions: Array) -> str | None:
        return None if np.all(precisions > 0) else "positive"

    def variances(self, covariances: Array) -> Array:
        return covariances

    def scatter(self, full: Array) -> Array:
        return np.einsum("kdd->kd", full)

    def outer(self, weights: Array, vectors: Array) -> Array:
        return weights[:, np.newaxis] * vectors**2

    def trace(self, precisions_cholesky: Array, scatter: Array) -> float:
        return float((precisions_cholesky.reshape(len(scatter), -1) ** 2 * scatter).sum())

    def frame(self, weights: Array, means: Array, covariances: Array) -> Array:
        between = weights @ (means - weights @ means) ** 2
        return np.sqrt(weights @ covariances.reshape(len(weights), -1) + between)

    def coordinates(self, means: Array, covariances: Array, frame: Array) -> tuple[Array, Array]:
        return means / frame, np.log(covariances)

    def from_coordinates(self, means: Array, shapes: Array, frame: Array) -> tuple[Array, Array]:
        return means * frame, np.exp(shapes)

    def sample(self, rng: np.random.RandomState, means: Array, covariances: Array, counts: NDArray) -> Array:
        draws = (rng.standard_normal(size=(n, means.shape[1])) for n in counts)
        return np.vstack([m + z * np.sqrt(c) for m, z, c in zip(means, draws, covariances, strict=True)])

    def smallest_variance(self, covariances: Array, n_components: int, n_features: int) -> tuple[Array, Array]:
        scales = np.broadcast_to(covariances.reshape(n_components, -1), (n_components, n_features))
        axis = scales.argmin(axis=1)
        return scales.min(axis=1), np.eye(n_features)[axis]

    def amplification(self, covariances: Array, precisions_cholesky: Array, n_features: int) -> float:
        return float(np.sqrt(n_features))

    def inflation(self, covariances: Array, precisions_cholesky: Array) -> float:
        return 1.0

    def is_flat(self, covariances: Array, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        scales = covariances.reshape(len(thin), -1)
        return np.any((scales < thin[:, np.newaxis]) & (np.diagonal(total) > wide[:, np.newaxis]), axis=1)


class Spherical(_ScaleForm):
    """One variance for each component: (K,)."""

    name = "spherical"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components,)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        scales = precisions_cholesky[:, np.newaxis, np.newaxis]
        # With one scale for all features, the kernels multiply the sum of squares by the square of the scale. That must
        # not overflow or underflow, even in float32.
        in_range = np.all((scales > MIN_SCALE) & (scales < MAX_SCALE))
        return scales if in_range else np.repeat(scales, n_features, axis=2)

    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return n_features * np.log(precisions_cholesky)

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return covariances[:, np.newaxis, np.newaxis] * np.eye(n_features)


class Diagonal(_ScaleForm):
    """One variance for each component and feature: (K, D)."""

    name = "diag"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        return precisions_cholesky[:, np.newaxis, :]

    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.log(precisions_cholesky).sum(axis=1)

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return covariances[:, :, np.newaxis] * np.eye(n_features)
