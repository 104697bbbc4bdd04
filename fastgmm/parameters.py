"""The parameters of a Gaussian mixture, and what the kernels read of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .covariance import CovarianceModel, get_model
from .kernels import Operands, serial_matmul, shift_origin

LOG_2_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class MixtureParameters:
    """Weights, means and covariances of K Gaussian components in D dimensions; float64 throughout.

    Attributes
    ----------
    weights : (K,)
        Sum to one.
    means : (K, D)
    covariances : (K, D, D) for "full", (D, D) for "tied", (K, D) for "diag", (K,) for "spherical"
    precisions_cholesky : as `covariances`
        Upper triangular P with ``Sigma^-1 = P P^T``; inverse standard deviations for "diag" and "spherical".
    covariance_type : str

    Raises
    ------
    ValueError
        If the arrays' shapes do not fit together.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    precisions_cholesky: NDArray[np.float64]
    covariance_type: str

    @classmethod
    def create(
        cls, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, covariance_type: str = "full"
    ) -> MixtureParameters:
        """Parameters from weights, means and covariances.

        Raises
        ------
        ValueError
            If a shape is wrong, a number is not finite, or the weights are negative or do not sum to one.
        IllDefinedCovarianceError
            If a covariance is not positive definite; a ValueError that names the components.
        """
        model = get_model(covariance_type)
        weights, means, covariances = (np.array(a, dtype=np.float64) for a in (weights, means, covariances))
        _check_shapes(weights, means, {"covariances": covariances}, covariance_type)
        model.check_features(means.shape[1])
        if not (np.isfinite(means).all() and np.isfinite(weights).all()):
            raise ValueError("weights and means should be finite")
        if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"weights should not be negative and should sum to one, but are {weights}")
        return cls(weights, means, covariances, model.form.precisions_cholesky(covariances), covariance_type)

    def __post_init__(self) -> None:
        others = {"covariances": self.covariances, "precisions_cholesky": self.precisions_cholesky}
        _check_shapes(self.weights, self.means, others, self.covariance_type)

    @property
    def model(self) -> CovarianceModel:
        """The covariance model."""
        return get_model(self.covariance_type)

    @property
    def n_components(self) -> int:
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        return self.means.shape[1]

    def operands(self, dtype: DTypeLike, origin: NDArray | None = None) -> Operands:
        """What an E-step over rows of a dtype reads.

        Parameters
        ----------
        dtype : float64 or float32
        origin : (D,), optional
            The point that is subtracted from rows and means; by default `kernels.shift_origin` of the means.
        """
        form = self.model.form
        origin = shift_origin(self.means, dtype) if origin is None else origin.astype(dtype)
        means = self.means - origin.astype(np.float64)
        factor = form.factor(self.precisions_cholesky, self.n_components, self.n_features)
        log_coef = self.log_coef()
        if form.layout == "tied":
            means = serial_matmul(means, factor[0].T)
        return Operands(*(np.ascontiguousarray(a, dtype=dtype) for a in (origin, means, factor, log_coef)))

    def log_coef(self) -> NDArray[np.float64]:
        """What a component's log-density has besides the distance, (K,): ``log w - D / 2 log 2 pi + log det P``."""
        with np.errstate(divide="ignore"):  # a weight of 0 is -inf
            log_weights = np.log(self.weights)
        log_det = self.model.form.log_det(self.precisions_cholesky, self.n_features)
        return log_weights + log_det - self.n_features / 2 * LOG_2_PI


def _check_shapes(weights: NDArray, means: NDArray, others: dict[str, NDArray], covariance_type: str) -> None:
    if means.ndim != 2:
        raise ValueError(f"means should have shape (n_components, n_features), but have {means.shape}")
    form_shape = get_model(covariance_type).form.shape(*means.shape)
    shapes = {"weights": (weights, means.shape[:1]), **{name: (array, form_shape) for name, array in others.items()}}
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(
                f"{name} should have shape {shape} for {covariance_type!r} and means of shape {means.shape}, "
                f"but have {array.shape}"
            )
