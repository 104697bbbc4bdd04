"""Validation of parameters, with scikit-learn's messages where it has them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm.covariance import get_model
from fastgmm.data.conversion import check_array
from fastgmm.data.sources import Source, count_rows

from .annotations import FloatArray

Array = NDArray[np.float64]


def plain(value: Any) -> Any:
    """Return a NumPy scalar or string as Python's type, other values unchanged.

    NumPy's integers have a fixed width, so sizes and seeds computed in ``np.uint8`` or ``np.int64`` overflow.
    Subclasses of `str` are replaced by `str`, since checkpoints store only plain types.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str.__str__(value)  # str(value) of an enumeration's member is not its text
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


class PlainParameters:
    """Read the attributes of an estimator as Python's own types.

    A fit reads its parameters here. The estimator itself keeps them as the user gave them, for `get_params` and
    `clone`.

    Parameters
    ----------
    estimator : object
        The estimator whose attributes are read.
    """

    def __init__(self, estimator: object) -> None:
        self._estimator = estimator

    def __getattr__(self, name: str) -> Any:
        return plain(getattr(self._estimator, name))


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values of a parameter, which may be arrays, are equal."""
    return one is other or bool(np.array_equal(np.asarray(one), np.asarray(other)))


def check_integer(number: Any, smallest: int, name: str) -> int:
    """Return a number as Python's int.

    Raises
    ------
    ValueError
        If it is not an integer, or less than `smallest`.
    """
    if not isinstance(number, Integral) or int(number) < smallest:
        raise ValueError(f"{name} must be an integer of at least {smallest}, got {number!r}.")
    return int(number)


def check_shape(array: NDArray[Any], shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError if an array has another shape."""
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}")


def check_weights(weights: ArrayLike, n_components: int) -> FloatArray:
    """Return weights of the components, validated: numbers from 0 to 1 with sum 1."""
    array: FloatArray = check_array(weights, dtype=[np.float64, np.float32], ensure_2d=False)
    check_shape(array, (n_components,), "weights")
    if (array < 0).any() or (array > 1).any():
        raise ValueError(
            "The parameter 'weights' should be in the range [0, 1], but got max value "
            # scikit-learn swaps the minimum and the maximum here, and its tests match that text.
            f"{array.min():.5f}, min value {array.max():.5f}"
        )
    tolerance = 1e-6 if array.dtype == np.float32 else 1e-8
    if not abs(1 - float(array.sum())) <= tolerance:
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {array.sum():.5f}")
    return array


def check_precisions(precisions: ArrayLike, covariance_type: str, n_components: int, n_features: int) -> FloatArray:
    """Return precisions of the right shape that are positive (definite)."""
    form, name = get_model(covariance_type).form, f"{covariance_type} precision"
    shape = form.shape(n_components, n_features)
    array: NDArray[Any] = check_array(
        precisions, dtype=[np.float64, np.float32], ensure_2d=False, allow_nd=len(shape) > 2
    )
    check_shape(array, shape, name)
    problem = form.precision_problem(array)
    if problem is not None:
        raise ValueError(f"'{name}' should be {problem}")
    return array


def check_covariances(covariances: ArrayLike, covariance_type: str, n_components: int, n_features: int) -> Array:
    """Return covariances, validated: of the right shape and symmetric.

    Whether they are positive definite is checked when they are factored.
    """
    shape = get_model(covariance_type).form.shape(n_components, n_features)
    array: Array = check_array(
        covariances, dtype=np.float64, ensure_2d=False, allow_nd=len(shape) > 2, input_name="covariances"
    )
    check_shape(array, shape, "covariances")
    are_matrices = get_model(covariance_type).form.has_matrices
    if are_matrices and not np.allclose(array, array.swapaxes(-1, -2)):
        raise ValueError("The parameter 'covariances' should be symmetric")
    return array


def check_covariance_prior(prior: ArrayLike, covariance_type: str, n_features: int) -> Array:
    """Return a prior's covariance of one component, positive (definite)."""
    form = get_model(covariance_type).form
    shape = form.shape(1, n_features)
    shape = shape if form.is_shared else shape[1:]
    if not shape:
        number = np.asarray(prior, dtype=np.float64)
        if number.size != 1 or not number > 0:
            raise ValueError(
                f"The parameter 'spherical covariance_prior' should be a number above 0, but got {prior!r}"
            )
        return number.reshape(())
    name = f"{covariance_type} covariance_prior"
    covariance: Array = check_array(prior, dtype=[np.float64, np.float32], ensure_2d=False).astype(np.float64)
    check_shape(covariance, shape, name)
    problem = form.precision_problem(covariance)
    if problem is not None:
        raise ValueError(f"'{covariance_type} precision' should be {problem}")
    return covariance


def check_resp(resp: ArrayLike, n_samples: int, n_components: int) -> NDArray[Any]:
    """Return labels or responsibilities of all rows, validated.

    Parameters
    ----------
    resp : array-like of shape (n_samples,) or (n_samples, n_components)
        Labels or responsibilities.
    n_samples : int
        Number of rows.
    n_components : int
        Number of components.

    Returns
    -------
    ndarray
        Labels as int32, at least one of them not negative, or responsibilities as float64 or float32.

    Raises
    ------
    ValueError
        If labels or responsibilities are invalid.
    """
    resp = check_block_resp(resp, n_samples, n_components)
    check_any_labelled(int(resp.max()) if resp.ndim == 1 else 0)
    return resp


def check_any_labelled(highest: int) -> None:
    """Raise ValueError if the highest of all labels is negative."""
    if highest < 0:
        raise ValueError("The parameter 'resp_init' must give rows to components, but all labels are negative")


def check_block_resp(resp: ArrayLike, n_samples: int, n_components: int) -> NDArray[Any]:
    """Return valid labels, as int32, or responsibilities of a block of rows.

    All labels may be negative.
    """
    if np.ndim(resp) == 1:
        labels = check_array(resp, ensure_2d=False, dtype=None, input_name="resp_init")
        labels = labels.astype(np.int32) if labels.dtype == np.bool_ else labels
        check_shape(labels, (n_samples,), "resp_init")
        if not (np.issubdtype(labels.dtype, np.number) and (labels == np.floor(labels)).all()):
            raise ValueError("The parameter 'resp_init' should hold integer labels, but some are not integers")
        if labels.max() >= n_components:
            raise ValueError(
                f"The parameter 'resp_init' should hold labels below n_components = {n_components}, "
                f"but got {labels.max()}"
            )
        return np.asarray(labels.astype(np.int32))
    array: FloatArray = check_array(resp, dtype=[np.float64, np.float32], input_name="resp_init")
    check_shape(array, (n_samples, n_components), "resp_init")
    if (array < 0).any():
        raise ValueError("The parameter 'resp_init' should not be negative")
    sums = array.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3):
        worst = int(abs(sums - 1).argmax())
        raise ValueError(
            f"The rows of the parameter 'resp_init' should sum to 1, but row {worst} sums to {sums[worst]:.5f}"
        )
    return array


def check_user_start(estimator: Any, n_features: int) -> dict[str, Any]:
    """Return the parameters of the start that the user has given, as float64."""
    shape = (estimator.n_components, n_features)
    user_start: dict[str, Any] = {}
    if estimator.weights_init is not None:
        user_start["weights"] = check_weights(estimator.weights_init, estimator.n_components).astype(np.float64)
    if estimator.means_init is not None:
        means = check_array(estimator.means_init, dtype=[np.float64, np.float32], ensure_2d=False)
        check_shape(means, shape, "means")
        user_start["means"] = means.astype(np.float64)
    if estimator.precisions_init is not None:
        precisions = check_precisions(estimator.precisions_init, estimator.covariance_type, *shape)
        user_start["precisions"] = precisions.astype(np.float64)
    return user_start


def check_enough_rows(source: Source, n_components: int) -> None:
    """Raise ValueError if there are fewer rows than components.

    A row of weight 3 counts as three rows, a row of weight 0 does not count.
    """
    n_samples = float(np.floor(count_rows(source)))
    if n_samples < n_components:
        raise ValueError(
            f"Expected n_samples >= n_components but got n_components = {n_components}, n_samples = {n_samples:.0f}"
        )
