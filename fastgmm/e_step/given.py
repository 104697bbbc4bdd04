"""Sufficient statistics of rows whose labels or responsibilities are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm import kernels
from fastgmm.covariance import get_model
from fastgmm.kernels import thread_limit
from fastgmm.mixture.statistics import SufficientStatistics, positive_weight_sums, scatter_about_means

from .complete import LOSSY_RATIO, pooled, statistics_of
from .float_range import has_lost_digits, has_overflowed, has_underflowed, sum_in_double
from .scores import checked_rows


def accumulate_labels(
    labels: ArrayLike,
    reference: ArrayLike,
    X: NDArray,
    sample_weight: ArrayLike | None = None,
    *,
    covariance_type: str = "full",
    n_jobs: int | None = None,
) -> SufficientStatistics:
    """Compute the sufficient statistics of rows whose labels are given.

    Parameters
    ----------
    labels : array-like of shape (n,), int
        Component of each row. Rows with a negative label are in no component.
    reference : array-like of shape (K, D)
        Reference points near the components.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    sample_weight : array-like of shape (n,), optional
        How often each row counts; by default 1.
    covariance_type : str, default="full"
        Covariance model that will read the statistics.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.

    Returns
    -------
    SufficientStatistics
        Statistics about the reference points. Their log-likelihood is 0.

    Raises
    ------
    ValueError
        If shapes do not fit together, labels are not integers, or a label is not below K.

    See Also
    --------
    accumulate_resp : Statistics of rows whose responsibilities are given.
    accumulate : Statistics of rows under a mixture.
    maximise : M-step, which takes the statistics.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import accumulate_labels
    >>> X = np.array([[0.0], [2.0], [10.0]])
    >>> statistics = accumulate_labels([0, 0, 1], [[0.0], [10.0]], X)
    >>> statistics.weight_sums, statistics.first_moments.ravel()
    (array([2., 1.]), array([2., 0.]))
    """
    return _accumulate_given({"labels": np.asarray(labels)}, reference, X, sample_weight, covariance_type, n_jobs)


def accumulate_resp(
    resp: ArrayLike,
    reference: ArrayLike,
    X: NDArray,
    sample_weight: ArrayLike | None = None,
    *,
    covariance_type: str = "full",
    n_jobs: int | None = None,
) -> SufficientStatistics:
    """Compute the sufficient statistics of rows whose responsibilities are given.

    Parameters
    ----------
    resp : array-like of shape (n, K)
        Responsibilities of each row.
    reference : array-like of shape (K, D)
        Reference points near the components.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    sample_weight : array-like of shape (n,), optional
        How often each row counts; by default 1.
    covariance_type : str, default="full"
        Covariance model that will read the statistics.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.

    Returns
    -------
    SufficientStatistics
        Statistics about the reference points. Their log-likelihood is 0.

    Raises
    ------
    ValueError
        If shapes do not fit together.

    See Also
    --------
    accumulate_labels : Statistics of rows whose labels are given.
    accumulate : Statistics of rows under a mixture.
    maximise : M-step, which takes the statistics.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import accumulate_resp
    >>> X = np.array([[0.0], [2.0]])
    >>> statistics = accumulate_resp([[0.5, 0.5], [1.0, 0.0]], [[0.0], [2.0]], X)
    >>> statistics.weight_sums
    array([1.5, 0.5])
    """
    return _accumulate_given({"resp": np.asarray(resp)}, reference, X, sample_weight, covariance_type, n_jobs)


@np.errstate(over="ignore", invalid="ignore")
def _accumulate_given(
    given: dict[str, Any],
    reference: ArrayLike,
    X: NDArray,
    sample_weight: ArrayLike | None,
    covariance_type: str,
    n_jobs: int | None,
) -> SufficientStatistics:
    """Statistics under labels or responsibilities that are given, about the reference points."""
    layout = get_model(covariance_type).layout
    reference = np.asarray(reference, dtype=np.float64)
    if reference.ndim != 2:
        raise ValueError(f"reference should have shape (n_components, n_features), but has {reference.shape}")
    X = checked_rows(X, reference.shape[1])
    name, values = next(iter(given.items()))
    shape = (len(X),) if name == "labels" else (len(X), len(reference))
    if values.shape != shape:
        raise ValueError(f"{name} should have shape {shape}, but has {values.shape}")
    if name == "labels":
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"labels should be integers, but are {values.dtype}")
        if values.size and values.max() >= len(reference):
            raise ValueError(
                f"labels should be below the number of components, {len(reference)}, but reach {values.max()}"
            )
    given = {"sample_weight": None if sample_weight is None else np.asarray(sample_weight), **given}
    with thread_limit(n_jobs):
        statistics = _accumulate_about(reference, X, given, layout)
        if not any(lost(statistics, X.dtype) for lost in (has_overflowed, has_underflowed, has_lost_digits)):
            return statistics
        return sum_in_double(X, given, {}, lambda rows, part: _accumulate_about(reference, rows, part, layout))


def _accumulate_about(reference: NDArray, X: NDArray, given: dict[str, Any], layout: str) -> SufficientStatistics:
    """Statistics under labels or responsibilities that are given, in the arithmetic of the rows' dtype."""
    origin = kernels.shift_origin(reference, X.dtype)
    operands = kernels.Operands(
        origin,
        (reference - origin.astype(np.float64)).astype(X.dtype),
        np.zeros((1, 1, 1), X.dtype),
        np.zeros(len(reference), X.dtype),
    )
    sample_weight = given["sample_weight"]
    statistics = statistics_of(
        layout, operands, kernels.accumulate(layout, X, operands, **given), sample_weight, len(X)
    )
    if layout == "tied":
        within = scatter_about_means(statistics, positive_weight_sums(statistics))
        if (np.diagonal(statistics.scatter) > LOSSY_RATIO[X.dtype] * np.diagonal(within)).any():
            sums = kernels.accumulate("full", X, operands, **given)
            return pooled(statistics_of("full", operands, sums, sample_weight, len(X)))
    return statistics
