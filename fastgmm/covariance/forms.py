"""Forms in which covariances are stored, and everything that depends on the form alone.

scikit-learn's four shapes, and for each: how to factor and invert it, what of it the kernels read, its full matrices.
A *model* (see `models`) says which covariances of a form are allowed; several models share a form.

A precision's Cholesky factor is stored as scikit-learn has it: P upper triangular with ``Sigma^-1 = P P^T``. The
kernels read ``L = P^T``, lower triangular: ``|L (x - m)|^2`` is the squared Mahalanobis distance.
"""

from __future__ import annotations

import abc

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels

from .errors import IllDefinedCovarianceError

Array = NDArray[np.float64]


# Features up to which the axes of a covariance are computed to see whether it is flat. With more, some power iterations
# find a direction: with 768 features and 5 components 0.04 s in place of 0.4 s.
DENSE_FEATURES, POWER_STEPS = 64, 8


class Form(abc.ABC):
    """One way to store the covariances of K components in D dimensions."""

    name: str
    layout: str
    """The kernels' layout that reads this form."""
    has_matrices: bool = True
    """Whether features may be correlated."""
    is_shared: bool = False
    """Whether all components have one covariance, stored once."""

    @abc.abstractmethod
    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Shape of covariances, precisions and precision factors."""

    @abc.abstractmethod
    def precisions_cholesky(self, covariances: Array) -> Array:
        """Factors of the inverses; IllDefinedCovarianceError if there are none."""

    @abc.abstractmethod
    def precisions(self, precisions_cholesky: Array) -> Array:
        """The inverses of the covariances."""

    @abc.abstractmethod
    def covariances(self, precisions_cholesky: Array) -> Array:
        """The covariances of these precision factors."""

    @abc.abstractmethod
    def factor_precisions(self, precisions: Array) -> Array:
        """Factors of precisions that are known to be positive definite."""

    def upper_triangular(self, precisions_cholesky: Array) -> Array:
        """Return factors P of the same precisions ``P P^T`` that are upper triangular with a positive diagonal."""
        return precisions_cholesky

    @abc.abstractmethod
    def precision_problem(self, precisions: Array) -> str | None:
        """What, if anything, these precisions should be and are not."""

    @abc.abstractmethod
    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        """The kernels' factor operand, of the shape that `fastgmm.kernels.Operands` gives for the layout."""

    @abc.abstractmethod
    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        """Logarithm of the determinant of each precision factor; one number if all components share it."""

    @abc.abstractmethod
    def variances(self, covariances: Array) -> Array:
        """Return the features' variances in these covariances, as a view."""

    @abc.abstractmethod
    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        """The covariances as matrices, (K, D, D)."""

    @abc.abstractmethod
    def scatter(self, full: Array) -> Array:
        """What the layout keeps of matrices of scatter, (K, D, D)."""

    def scatter_of(self, covariances: Array, weight_sums: Array, n_features: int) -> Array:
        """The scatter, as the layout keeps it, of rows with these covariances and weight sums, (K,)."""
        full = self.full(covariances, len(weight_sums), n_features)
        return self.scatter(weight_sums[:, np.newaxis, np.newaxis] * full)

    @abc.abstractmethod
    def outer(self, weights: Array, vectors: Array) -> Array:
        """What the layout keeps of the scatter ``w_k v_k v_k^T``; weights (K,), vectors (K, D)."""

    @abc.abstractmethod
    def trace(self, precisions_cholesky: Array, scatter: Array) -> float:
        """``sum_k tr(Sigma_k^-1 S_k)`` for a scatter as the layout keeps it."""

    def counts(self, weight_sums: Array) -> Array:
        """The weight of the rows in each component's covariance, (K,); the mean, if one is for all."""
        return weight_sums

    @abc.abstractmethod
    def frame(self, weights: Array, means: Array, covariances: Array) -> Array:
        """The scale of the mixture as a whole: standard deviations (D,), or a root of its covariance (D, D)."""

    @abc.abstractmethod
    def coordinates(self, means: Array, covariances: Array, frame: Array) -> tuple[Array, Array]:
        """Means, and covariances as any numbers whatever, both relative to a frame; see `from_coordinates`.

        Variances are logarithms, matrices lower Cholesky factors with the logarithms of their diagonals.

        Returns
        -------
        means : (K, D)
        shapes : as the covariances; (1, D, D) for "tied"
        """

    @abc.abstractmethod
    def from_coordinates(self, means: Array, shapes: Array, frame: Array) -> tuple[Array, Array]:
        """The means and covariances of some coordinates: the inverse of `coordinates`."""

    def sample(self, rng: np.random.RandomState, means: Array, covariances: Array, counts: NDArray) -> Array:
        """Rows drawn from the components, `counts` of each, component after component: (counts.sum(), D)."""
        full = self.full(covariances, *means.shape)
        return np.vstack([rng.multivariate_normal(m, C, int(n)) for m, C, n in zip(means, full, counts, strict=True)])

    def smallest_variance(self, covariances: Array, n_components: int, n_features: int) -> tuple[Array, Array]:
        """The smallest variance of each component in any direction, (K,), and that direction, (K, D)."""
        values, vectors = np.linalg.eigh(self.full(covariances, n_components, n_features))
        return values[:, 0], vectors[:, :, 0]

    @abc.abstractmethod
    def amplification(self, covariances: Array, precisions_cholesky: Array, n_features: int) -> float:
        """The largest norm of ``|L| s`` with L a precision's factor and s the standard deviations."""

    @abc.abstractmethod
    def inflation(self, covariances: Array, precisions_cholesky: Array) -> float:
        """The largest ratio of a feature's standard deviation to that given the features before it."""

    @abc.abstractmethod
    def is_flat(self, covariances: Array, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        """Return whether each component is flat in a direction in which the mixture as a whole is not.

        Parameters
        ----------
        covariances, precisions_cholesky : as `shape` says
        total : (D, D)
            The covariance of the mixture as a whole.
        thin, wide : (K,)
            In that direction a flat component's variance is below `thin`, and that of the whole above `wide`.

        Returns
        -------
        flat : (K,) bool
        """


class _Scales(Form):
    """What the two forms without correlations have in common."""

    layout = "diagonal"
    has_matrices = False

    def precisions_cholesky(self, covariances: Array) -> Array:
        defined = (covariances > 0) & np.isfinite(covariances)
        bad = np.flatnonzero(~defined.reshape(len(covariances), -1).all(axis=1))
        if bad.size:
            raise IllDefinedCovarianceError(bad.tolist(), not np.isfinite(covariances).all())
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


class Spherical(_Scales):
    """One variance a component: (K,)."""

    name = "spherical"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components,)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        scales = precisions_cholesky[:, np.newaxis, np.newaxis]
        # A single scale goes to the sum of the squares, which neither overflows nor underflows then, even in float32.
        ordinary = np.all((scales > 1e-9) & (scales < 1e9))
        return scales if ordinary else np.repeat(scales, n_features, axis=2)

    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return n_features * np.log(precisions_cholesky)

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return covariances[:, np.newaxis, np.newaxis] * np.eye(n_features)


class Diagonal(_Scales):
    """One variance a component and feature: (K, D)."""

    name = "diag"

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        return (n_components, n_features)

    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        return precisions_cholesky[:, np.newaxis, :]

    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        return np.log(precisions_cholesky).sum(axis=1)

    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        return covariances[:, :, np.newaxis] * np.eye(n_features)


class _Matrices(Form):
    """What the two forms with correlations have in common: everything but the number of matrices."""

    def precisions_cholesky(self, covariances: Array) -> Array:
        stacked = covariances.reshape(-1, *covariances.shape[-2:])
        factor, well_defined = kernels.factor_covariances(stacked)
        if not well_defined.all():
            bad = [] if covariances.ndim == 2 else np.flatnonzero(~well_defined).tolist()
            raise IllDefinedCovarianceError(bad, not np.isfinite(self.variances(covariances)).all())
        return np.ascontiguousarray(factor.swapaxes(1, 2)).reshape(covariances.shape)

    def precisions(self, precisions_cholesky: Array) -> Array:
        return precisions_cholesky @ precisions_cholesky.swapaxes(-1, -2)

    def covariances(self, precisions_cholesky: Array) -> Array:
        root = np.linalg.inv(precisions_cholesky)
        return root.swapaxes(-1, -2) @ root

    def factor_precisions(self, precisions: Array) -> Array:
        # Upper times its transpose: Cholesky's factor of the matrix with rows and columns reversed, reversed back.
        return np.ascontiguousarray(np.linalg.cholesky(precisions[..., ::-1, ::-1])[..., ::-1, ::-1])

    def upper_triangular(self, precisions_cholesky: Array) -> Array:
        diagonal = np.einsum("...dd->...d", precisions_cholesky)
        if not np.tril(precisions_cholesky, -1).any() and (diagonal > 0).all():
            return precisions_cholesky
        # P = R Q with Q orthogonal: the QR factors of the transpose with its columns reversed, reversed back.
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
        if n_features > DENSE_FEATURES:
            return self._is_flat_by_power_iteration(precisions_cholesky, total, thin, wide)
        values, vectors = np.linalg.eigh(covariances.reshape(-1, n_features, n_features))
        flat = np.zeros(len(thin), dtype=bool)
        for k in range(len(thin)):
            at = min(k, len(values) - 1)
            axes = vectors[at][:, values[at] < thin[k]]
            flat[k] = axes.size > 0 and np.linalg.eigvalsh(axes.T @ total @ axes)[-1] > wide[k]
        return flat

    def _is_flat_by_power_iteration(self, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        """`is_flat` in the direction in which the whole is widest in units of the component.

        That is ``P w`` for the w that ``P^T total P`` stretches most, P the factor of the precision. Where a component
        is flat it stretches so much more than elsewhere that a few steps find such a direction.
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
        return stacked


class Full(_Matrices):
    """One matrix a component: (K, D, D)."""

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


class Tied(_Matrices):
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
