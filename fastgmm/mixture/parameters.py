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
# The name under which parameters keep their E-steps, if they do.
KEPT = "_e_steps"


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
    """Weights, means and covariances of K Gaussian components in D dimensions.

    Use `create` to make an instance. The parameters of the constructor are also its attributes; they cannot be
    replaced.

    Parameters
    ----------
    weights : ndarray of shape (K,), float64
        Weights of the components; they sum to 1.
    means : ndarray of shape (K, D), float64
        Means of the components.
    covariances : ndarray, float64
        Covariances. Shape (K, D, D) for "full", (D, D) for "tied", (K, D) for "diag", (K,) for "spherical". mclust's
        models are stored like one of these; see `fastgmm.GaussianMixture`.
    precisions_cholesky : ndarray, float64
        Upper triangular factors P with ``Sigma^-1 = P P^T``, in the shape of the covariances. Inverse standard
        deviations for "diag" and "spherical".
    covariance_type : str
        Covariance model.

    Raises
    ------
    ValueError
        If the shapes of the arrays do not fit together.

    See Also
    --------
    SufficientStatistics : Statistics of rows under a mixture.
    engine.accumulate : E-step, which takes parameters.
    engine.maximise : M-step, which gives parameters.

    Examples
    --------
    >>> from fastgmm import MixtureParameters
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0], [4.0]], [1.0, 4.0], "spherical")
    >>> parameters.n_components, parameters.n_features
    (2, 1)
    >>> parameters.precisions_cholesky
    array([1. , 0.5])
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
        """Make parameters from weights, means and covariances.

        Parameters
        ----------
        weights : array-like of shape (K,)
            Weights; they must sum to 1.
        means : array-like of shape (K, D)
            Means.
        covariances : array-like
            Covariances, in the shape that the covariance type has.
        covariance_type : str, default="full"
            Covariance model.

        Returns
        -------
        MixtureParameters
            The parameters, in float64.

        Raises
        ------
        ValueError
            If a shape is wrong, a number is not finite, or the weights are negative or do not sum to 1.
        IllDefinedCovarianceError
            If a covariance is not positive definite. It is a ValueError that names the components.
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
        """Number of components K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.means.shape[1]

    def needs_double(self, dtype: np.dtype) -> bool:
        """Decide whether an E-step over rows of a dtype must be computed in float64.

        Parameters
        ----------
        dtype : dtype
            Dtype of the rows.

        Returns
        -------
        bool
            True for float32 rows if sums over rows of these components leave the range of float32, or need more digits.
        """
        if dtype != np.float32:
            return False
        form = self.model.form
        variances = form.variances(self.covariances)
        if variances.min() < SMALLEST_IN_SINGLE or variances.max() > LARGEST_IN_SINGLE:
            return True
        return form.inflation(self.covariances, self.precisions_cholesky) > INFLATED_IN_SINGLE

    def attribute_dtype(self, dtype: np.dtype) -> np.dtype:
        """Choose the dtype of fitted attributes for rows of a dtype.

        Parameters
        ----------
        dtype : dtype
            Dtype of the rows.

        Returns
        -------
        dtype
            The dtype of the rows, or float64 if float32 cannot hold all parameters.
        """
        single, variances = np.finfo(np.float32), self.model.form.variances(self.covariances)
        with np.errstate(over="ignore"):
            largest_precision = self.n_features * np.square(self.precisions_cholesky).max()
        largest = max(np.abs(self.means).max(), variances.max(), largest_precision)
        fits = dtype != np.float32 or (variances.min() > single.tiny and largest < single.max)
        return np.dtype(dtype if fits else np.float64)

    def e_step(self, dtype: DTypeLike, origin: NDArray | None = None) -> EStep:
        """Choose how to compute an E-step over rows of a dtype.

        The choice depends on the parameters alone, so a fit and the predictions of its result compute densities in the
        same way.

        Parameters
        ----------
        dtype : float64 or float32
            Dtype of the rows.
        origin : ndarray of shape (D,), optional
            Point that is subtracted from rows and means; see `operands`.

        Returns
        -------
        EStep
            Layout and operands of the kernels.
        """
        kept = self.__dict__.get(KEPT) if origin is None else None
        if kept is None:
            return self._e_step(dtype, origin)
        if dtype not in kept:
            kept[dtype] = self._e_step(dtype, origin)
        e_step: EStep = kept[dtype]
        return e_step

    def keeping_e_steps(self) -> MixtureParameters:
        """Copy the parameters so that each `e_step` is prepared once.

        Returns
        -------
        MixtureParameters
            Copies of all arrays, which must not be changed.
        """
        parameters = MixtureParameters(
            self.weights.copy(),
            self.means.copy(),
            self.covariances.copy(),
            self.precisions_cholesky.copy(),
            self.covariance_type,
        )
        parameters.__dict__[KEPT] = {}
        return parameters

    def _e_step(self, dtype: DTypeLike, origin: NDArray | None) -> EStep:
        layout, operands = self.model.layout, self.operands(dtype, origin)
        if self.model.form.is_shared and self._tied_components_are_far(operands):
            return EStep("full", self.centred_operands(dtype), is_centred=True)
        return EStep(layout, operands)

    def centred_operands(self, dtype: DTypeLike) -> Operands:
        """Compute the operands of an E-step of the full layout, for matrices.

        Parameters
        ----------
        dtype : float64 or float32
            Dtype of the rows.

        Returns
        -------
        Operands
            Arrays that the kernels read.
        """
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
        """Compute by how much whitening amplifies the rounding of rows.

        It is the norm of ``|L| s``, with L the factor and s the standard deviations: the square root of D without
        correlations, and more for a component that is nearly flat. The largest of all components counts.

        Returns
        -------
        float
            Rounding of whitened rows in units of the rounding of rows.
        """
        return self.model.form.amplification(self.covariances, self.precisions_cholesky, self.n_features)

    def operands(self, dtype: DTypeLike, origin: NDArray | None = None) -> Operands:
        """Compute the operands of an E-step over rows of a dtype.

        Parameters
        ----------
        dtype : float64 or float32
            Dtype of the rows.
        origin : ndarray of shape (D,), optional
            Point that is subtracted from rows and means; by default `kernels.shift_origin` of the means.

        Returns
        -------
        Operands
            Arrays that the kernels read.
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
        """Compute the constant part of each component's log-density.

        It does not depend on the row: ``log w - D / 2 log 2 pi + log det P``, with P the precision factor.

        Returns
        -------
        ndarray of shape (K,)
            Logarithms in nats; minus infinity for a weight of 0.
        """
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
