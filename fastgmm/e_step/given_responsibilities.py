"""Sufficient statistics of rows whose labels or responsibilities are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm import kernels
from fastgmm.covariance import get_model
from fastgmm.kernels import thread_limit
from fastgmm.mixture.statistics import (
    SufficientStatistics,
    has_shared_scatter,
    positive_weight_sums,
    scatter_about_means,
)

from .complete_rows import LOSSY_RATIO, pooled, statistics_of
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
    assignment: dict[str, NDArray],
    reference: ArrayLike,
    X: NDArray,
    sample_weight: ArrayLike | None,
    covariance_type: str,
    n_jobs: int | None,
) -> SufficientStatistics:
    """Check labels or responsibilities, and return the statistics under them.

    Parameters
    ----------
    assignment : dict
        One entry, "labels" or "resp".
    reference, X, sample_weight, covariance_type, n_jobs
        As for `accumulate_labels`.
    """
    layout = get_model(covariance_type).layout
    reference = np.asarray(reference, dtype=np.float64)
    if reference.ndim != 2:
        raise ValueError(f"reference must have shape (n_components, n_features), got shape {reference.shape}")
    X = checked_rows(X, reference.shape[1])
    name, values = next(iter(assignment.items()))
    shape = (len(X),) if name == "labels" else (len(X), len(reference))
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got shape {values.shape}")
    if name == "labels":
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"labels must be integers, got dtype {values.dtype}")
        if values.size and values.max() >= len(reference):
            raise ValueError(f"labels must be below the number of components ({len(reference)}), got {values.max()}")
    inputs = {"sample_weight": None if sample_weight is None else np.asarray(sample_weight), **assignment}
    with thread_limit(n_jobs):
        statistics = _accumulate_about(reference, X, inputs, layout)
        if not any(is_bad(statistics, X.dtype) for is_bad in (has_overflowed, has_underflowed, has_lost_digits)):
            return statistics
        return sum_in_double(X, inputs, {}, lambda rows, part: _accumulate_about(reference, rows, part, layout))


def _accumulate_about(reference: NDArray, X: NDArray, inputs: dict[str, Any], layout: str) -> SufficientStatistics:
    """Accumulate about reference points, in the arithmetic of the rows' dtype.

    `inputs` are sample weights, and labels or responsibilities, by their names in `kernels.accumulate`.
    """
    origin = kernels.shift_origin(reference, X.dtype)
    operands = kernels.Operands(
        origin,
        (reference - origin.astype(np.float64)).astype(X.dtype),
        np.zeros((1, 1, 1), X.dtype),
        np.zeros(len(reference), X.dtype),
    )
    sample_weight = inputs["sample_weight"]
    statistics = statistics_of(
        layout, operands, kernels.accumulate(layout, X, operands, **inputs), sample_weight, len(X)
    )
    if has_shared_scatter(statistics):
        within = scatter_about_means(statistics, positive_weight_sums(statistics))
        if (np.diagonal(statistics.scatter) > LOSSY_RATIO[X.dtype] * np.diagonal(within)).any():
            sums = kernels.accumulate("full", X, operands, **inputs)
            return pooled(statistics_of("full", operands, sums, sample_weight, len(X)))
    return statistics
