"""Fitted attributes of a mixture estimator, as the engine's parameters."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm.covariance import get_model
from fastgmm.mixture.parameters import MixtureParameters

Array = NDArray[np.float64]
ATTRIBUTES = ("weights_", "means_", "covariances_", "precisions_cholesky_")
# Parameters of at most this number of numbers are kept for the next prediction. Larger ones would take as long to
# compare as to prepare.
MAX_KEPT_NUMBERS = 20_000
_kept: weakref.WeakKeyDictionary[Any, tuple[tuple[Any, ...], MixtureParameters]] = weakref.WeakKeyDictionary()


def kept_parameters(mixture: Any) -> MixtureParameters:
    """Return `fitted_parameters`, and keep them with what E-steps prepare from them.

    They are made again if a fitted attribute has changed, also in place.
    """
    arrays = [getattr(mixture, name, None) for name in ATTRIBUTES]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return fitted_parameters(mixture)
    if sum(array.size for array in arrays if array is not None) > MAX_KEPT_NUMBERS:
        return fitted_parameters(mixture)
    contents = [(array.shape, array.dtype.str, array.tobytes()) for array in arrays if array is not None]
    key = (*contents, mixture.covariance_type, getattr(mixture, "_fitted_as_", {}).get("covariance_type"))
    before = _kept.get(mixture)
    if before is not None and before[0] == key:
        return before[1]
    parameters = fitted_parameters(mixture).keeping_e_steps()
    _kept[mixture] = key, parameters
    return parameters


def fitted_parameters(mixture: Any, weights: ArrayLike | None = None) -> MixtureParameters:
    """Return the parameters of a fitted mixture of fastgmm or scikit-learn.

    scikit-learn's own predictions read `weights_`, `means_` and `precisions_cholesky_`, so these three are enough.
    Missing covariances are computed from them.

    Parameters
    ----------
    mixture : estimator
        A fitted mixture, or an estimator whose fitted attributes were set by the user.
    weights : array-like of shape (n_components,), optional
        Weights to use in place of `weights_`.

    Returns
    -------
    MixtureParameters
        In float64.

    Raises
    ------
    AttributeError
        If an attribute is missing.
    ValueError
        If the shapes of the attributes do not fit together.
    """
    weights = _array(mixture.weights_ if weights is None else weights)
    means = _array(mixture.means_)
    if not hasattr(mixture, "precisions_cholesky_") and hasattr(mixture, "covariances_"):
        covariances = _array(mixture.covariances_)
        covariance_type = _covariance_type(mixture, means, covariances)
        factors = get_model(covariance_type).form.precisions_cholesky(covariances)
        return MixtureParameters(weights, means, covariances, factors, covariance_type)
    factors = _array(mixture.precisions_cholesky_)
    covariance_type = _covariance_type(mixture, means, factors)
    factors = get_model(covariance_type).form.upper_triangular(factors)  # scikit-learn also reads lower triangular ones
    return MixtureParameters(weights, means, _covariances(mixture, factors, covariance_type), factors, covariance_type)


def fitted_moments(mixture: Any) -> tuple[Array, Array, Array, str]:
    """Return weights, means, covariances and the covariance type of a fitted mixture.

    See `fitted_parameters` for the attributes that are read.
    """
    weights, means = _array(mixture.weights_), _array(mixture.means_)
    stored = _array(mixture.covariances_ if hasattr(mixture, "covariances_") else mixture.precisions_cholesky_)
    covariance_type = _covariance_type(mixture, means, stored)
    return weights, means, _covariances(mixture, stored, covariance_type), covariance_type


def _covariances(mixture: Any, factors: Array, covariance_type: str) -> Array:
    """Return the covariances of a mixture, computed from its factors if missing."""
    if hasattr(mixture, "covariances_"):
        return _array(mixture.covariances_)
    return get_model(covariance_type).form.covariances(factors)


def _covariance_type(mixture: Any, means: Array, stored: Array) -> str:
    """Return the covariance type whose shape the fitted arrays have.

    The type of the last fit comes first, since `covariance_type` may have been set to another value after the fit. If
    the arrays have another shape, the user has set them, for the present value of `covariance_type`.
    """
    names: tuple[str | None, str] = (
        getattr(mixture, "_fitted_as_", {}).get("covariance_type"),
        mixture.covariance_type,
    )
    for name in filter(None, names):
        if means.ndim == 2 and stored.shape == get_model(name).form.shape(*means.shape):
            return name
    raise ValueError(
        "The shapes of means_ and of covariances_ or precisions_cholesky_ must be those of one mixture with "
        f"covariance_type={mixture.covariance_type!r}, got {means.shape} and {stored.shape}. Set covariance_type to "
        "that of the arrays."
    )


def _array(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)
