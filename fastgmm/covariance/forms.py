"""The contract of a form: how covariances are stored, and what depends on that.

There are four forms, as in scikit-learn. `scale_forms` has the two without correlations, `matrix_forms` the two with
correlations. A form can factor and invert its covariances, expand them to full matrices, and make the operands of the
kernels. A model (see `models`) says which covariances of a form are allowed. Several models share a form.

The Cholesky factor of a precision is stored as scikit-learn stores it: P is upper triangular with ``Sigma^-1 = P P^T``.
The kernels read ``L = P^T``, which is lower triangular: ``|L (x - m)|^2`` is the squared Mahalanobis distance.
"""

from __future__ import annotations

import abc

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Form(abc.ABC):
    """A way to store the covariances of K components in D dimensions.

    Attributes
    ----------
    name : str
        scikit-learn's name.
    layout : {"full", "diagonal", "tied"}
        The kernels' layout that reads this form.
    has_matrices : bool
        Whether features may be correlated.
    is_shared : bool
        Whether all components have one covariance, stored once.
    """

    name: str
    layout: str
    has_matrices: bool = True
    is_shared: bool = False

    @abc.abstractmethod
    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return the shape of covariances, precisions and precision factors."""

    @abc.abstractmethod
    def precisions_cholesky(self, covariances: Array) -> Array:
        """Return the Cholesky factors of the precisions.

        Raises
        ------
        IllDefinedCovarianceError
            If a covariance is not positive definite or not finite.
        """

    @abc.abstractmethod
    def precisions(self, precisions_cholesky: Array) -> Array:
        """Return the inverses of the covariances."""

    @abc.abstractmethod
    def covariances(self, precisions_cholesky: Array) -> Array:
        """Return the covariances, given the factors of the precisions."""

    @abc.abstractmethod
    def factor_precisions(self, precisions: Array) -> Array:
        """Return the Cholesky factors of precisions, which must be positive definite."""

    def upper_triangular(self, precisions_cholesky: Array) -> Array:
        """Return upper triangular factors of the same precisions.

        A factor P of the precision ``P P^T`` then has a positive diagonal.
        """
        return precisions_cholesky

    @abc.abstractmethod
    def precision_problem(self, precisions: Array) -> str | None:
        """Return the property that the precisions lack, as an adjective, or None."""

    @abc.abstractmethod
    def factor(self, precisions_cholesky: Array, n_components: int, n_features: int) -> Array:
        """Return the operand `factor` of the kernels.

        `fastgmm.kernels.Operands` gives its shape for each layout.
        """

    @abc.abstractmethod
    def log_det(self, precisions_cholesky: Array, n_features: int) -> Array:
        """Return the log-determinant of each precision factor, (K,).

        The result is one number if all components share it.
        """

    @abc.abstractmethod
    def variances(self, covariances: Array) -> Array:
        """Return the features' variances in these covariances, as a view."""

    @abc.abstractmethod
    def full(self, covariances: Array, n_components: int, n_features: int) -> Array:
        """Return the covariances as matrices, (K, D, D)."""

    @abc.abstractmethod
    def scatter(self, full: Array) -> Array:
        """Return the part of scatter matrices (K, D, D) that the layout keeps."""

    def scatter_of(self, covariances: Array, weight_sums: Array, n_features: int) -> Array:
        """Return the scatter, in the layout, of rows with these covariances.

        `weight_sums` are the components' sums of the rows' weights, (K,).
        """
        full = self.full(covariances, len(weight_sums), n_features)
        return self.scatter(weight_sums[:, np.newaxis, np.newaxis] * full)

    @abc.abstractmethod
    def outer(self, weights: Array, vectors: Array) -> Array:
        """Return the scatter ``w_k v_k v_k^T`` in the layout.

        The weights w are (K,), the vectors v (K, D).
        """

    @abc.abstractmethod
    def trace(self, precisions_cholesky: Array, scatter: Array) -> float:
        """Return ``sum_k tr(Sigma_k^-1 S_k)``, with the scatter S in the layout."""

    def counts(self, weight_sums: Array) -> Array:
        """Return the weight of the rows in each component's covariance, (K,).

        If all components share one covariance, it is the mean of the weight sums.
        """
        return weight_sums

    @abc.abstractmethod
    def frame(self, weights: Array, means: Array, covariances: Array) -> Array:
        """Return the scale of the whole mixture.

        That is the standard deviations, (D,), or a root of the covariance, (D, D).
        """

    @abc.abstractmethod
    def coordinates(self, means: Array, covariances: Array, frame: Array) -> tuple[Array, Array]:
        """Return unconstrained numbers for the means and covariances.

        They are relative to a frame.
        Variances become logarithms. Matrices become lower Cholesky factors with the logarithms of their diagonals.
        `from_coordinates` is the inverse.

        Returns
        -------
        means : (K, D)
        shapes : as the covariances; (1, D, D) for "tied"
        """

    @abc.abstractmethod
    def from_coordinates(self, means: Array, shapes: Array, frame: Array) -> tuple[Array, Array]:
        """Return the means and covariances with these coordinates.

        This is the inverse of `coordinates`.
        """

    def sample(self, rng: np.random.RandomState, means: Array, covariances: Array, counts: NDArray) -> Array:
        """Draw ``counts[k]`` rows from each component k, and stack the rows."""
        full = self.full(covariances, *means.shape)
        return np.vstack([rng.multivariate_normal(m, C, int(n)) for m, C, n in zip(means, full, counts, strict=True)])

    def smallest_variance(self, covariances: Array, n_components: int, n_features: int) -> tuple[Array, Array]:
        """Return each component's direction of smallest variance.

        Returns
        -------
        variances : (K,)
        directions : (K, D)
        """
        values, vectors = np.linalg.eigh(self.full(covariances, n_components, n_features))
        return values[:, 0], vectors[:, :, 0]

    @abc.abstractmethod
    def amplification(self, covariances: Array, precisions_cholesky: Array, n_features: int) -> float:
        """Return the largest norm of ``|L| s``.

        L is the factor of a precision, and s are the standard deviations.
        """

    @abc.abstractmethod
    def inflation(self, covariances: Array, precisions_cholesky: Array) -> float:
        """Return the largest ratio of a standard deviation to a conditional one.

        The conditional standard deviation of a feature is that given the features before it.
        """

    @abc.abstractmethod
    def is_flat(self, covariances: Array, precisions_cholesky: Array, total: Array, thin: Array, wide: Array) -> Array:
        """Return whether each component is flat where the whole mixture is not.

        Parameters
        ----------
        covariances, precisions_cholesky : as `shape` says
        total : (D, D)
            The covariance of the whole mixture.
        thin : (K,)
            A component is flat if its variance in some direction is below `thin` ...
        wide : (K,)
            ... and the variance of the whole mixture in the same direction is above `wide`.

        Returns
        -------
        flat : (K,) bool
        """
