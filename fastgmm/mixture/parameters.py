"""The parameters of a Gaussian mixture, and the operands that the kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.kernels import Operands, lower_triangle, serial_matmul, shift_origin

LOG_2_PI = float(np.log(2 * np.pi))
# The tied layout whitens rows about one point. Its rounding grows with the distance of the components from that point.
# If it is more than this many times the rounding about each component's mean, rows are centred at each component.
TIED_REACH = {np.dtype(np.float64): 1e6, np.dtype(np.float32): 1e2}
# Sums of squares of rows with variances in this range stay in the range of float32, with a wide margin.
SMALLEST_IN_SINGLE = 1e-30
LARGEST_IN_SINGLE = 1e30
# Up to this ratio of a feature's standard deviation to the one given the other features, scatter summed in float32 has
# enough digits for a Cholesky factor: one part in the square of this ratio is left of a variance.
INFLATED_IN_SINGLE = 400


class EStep(NamedTuple):
    """The layout and the operands of an E-step.

    Attributes
    ----------
    layout : str
        The kernels' layout: that of the model, or "full" if the tied layout would lose digits.
    operands : Operands
    is_centred : bool
        Whether the layout is "full" although the model's layout is "tied": its components are far apart.
    """

    layout: str
    operands: Operands
    is_centred: bool = False


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
            raise ValueError("weights and means must be finite, but contain NaN or infinity")
        if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"weights must not be negative and must sum to one, but are {weights}")
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

    def needs_double(self, dtype: np.dtype) -> bool:
        """Whether sums over float32 rows of these components leave the range of float32, or need more digits."""
        if dtype != np.float32:
            return False
        form = self.model.form
        variances = form.variances(self.covariances)
        if variances.min() < SMALLEST_IN_SINGLE or variances.max() > LARGEST_IN_SINGLE:
            return True
        return form.inflation(self.covariances, self.precisions_cholesky) > INFLATED_IN_SINGLE

    def attribute_dtype(self, dtype: np.dtype) -> np.dtype:
        """Return the dtype of fitted attributes for rows of a dtype: float64 where float32 cannot hold them all."""
        single, variances = np.finfo(np.float32), self.model.form.variances(self.covariances)
        with np.errstate(over="ignore"):
            largest_precision = self.n_features * np.square(self.precisions_cholesky).max()
        largest = max(np.abs(self.means).max(), variances.max(), largest_precision)
        fits = dtype != np.float32 or (variances.min() > single.tiny and largest < single.max)
        return np.dtype(dtype if fits else np.float64)

    def e_step(self, dtype: DTypeLike, origin: NDArray | None = None) -> EStep:
        """Choose how to compute an E-step over rows of a dtype, from the parameters alone.

        A fit and the predictions of its result so compute densities in the same way. `origin` is that of `operands`.
        """
        layout, operands = self.model.layout, self.operands(dtype, origin)
        if self.model.form.is_shared and self._tied_components_are_far(operands):
            return EStep("full", self.centred_operands(dtype), is_centred=True)
        return EStep(layout, operands)

    def centred_operands(self, dtype: DTypeLike) -> Operands:
        """What an E-step of the full layout reads, for any form of covariances with matrices."""
        origin = shift_origin(self.means, dtype)
        factor = lower_triangle(np.broadcast_to(self.precisions_cholesky.swapaxes(-1, -2), self._matrices_shape()))
        arrays = origin, self.means - origin.astype(np.float64), factor, self.log_coef()
        return Operands(*(np.ascontiguousarray(a, dtype=dtype) for a in arrays))

    def _matrices_shape(self) -> tuple[int, int, int]:
        return self.n_components, self.n_features, self.n_features

    def _tied_components_are_far(self, operands: Operands) -> bool:
        """Return whether rounding about the tied layout's origin is too large.

        With L the factor, the rounding of ``L (x - origin)`` is proportional to ``|L| |x - origin|``. The rounding of
        ``L (x - mean)`` is proportional to ``|L| |x - mean|``, about ``|L|`` times the standard deviations. The
        absolute values matter: digits that one feature far from zero loses affect all features correlated with it.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # a distance that overflows is far
            centred = np.abs(self.means - operands.origin.astype(np.float64))
            reached = serial_matmul(centred, np.abs(self.precisions_cholesky))
            limit = TIED_REACH[operands.origin.dtype] * self.amplification()
            return not np.linalg.norm(reached, axis=1).max() <= limit

    def amplification(self) -> float:
        """Return how much larger than rows' own the rounding of whitened rows is, the largest of all components.

        That is the norm of ``|L| s`` with L the factor and s the standard deviations: the square root of D without
        correlations, and the larger, the nearer a component is to being flat.
        """
        return self.model.form.amplification(self.covariances, self.precisions_cholesky, self.n_features)

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
        if form.is_shared:
            means = serial_matmul(means, factor[0].T)
        return Operands(*(np.ascontiguousarray(a, dtype=dtype) for a in (origin, means, factor, log_coef)))

    def log_coef(self) -> NDArray[np.float64]:
        """What a component's log-density has besides the distance, (K,): ``log w - D / 2 log 2 pi + log det P``."""
        with np.errstate(divide="ignore"):  # a weight of 0 is -inf
            log_weights = np.log(self.weights)
        log_det = self.model.form.log_det(self.precisions_cholesky, self.n_features)
        return log_weights + log_det - self.n_features / 2 * LOG_2_PI


def _check_shapes(weights: NDArray, means: NDArray, others: dict[str, NDArray], covariance_type: str) -> None:
    """Raise ValueError if the shape of an array does not fit the means.

    `others` are arrays in the form of the covariances.
    """
    if means.ndim != 2:
        raise ValueError(f"means must have shape (n_components, n_features), got shape {means.shape}")
    form_shape = get_model(covariance_type).form.shape(*means.shape)
    shapes = {"weights": (weights, means.shape[:1]), **{name: (array, form_shape) for name, array in others.items()}}
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} for covariance_type {covariance_type!r} and means of shape "
                f"{means.shape}, got shape {array.shape}"
            )
