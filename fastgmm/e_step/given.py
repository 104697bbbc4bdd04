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
    """Statistics of rows whose components are given.

    Parameters
    ----------
    labels : (n,) int
        Component of each row; a negative one belongs to none.
    reference : (K, D)
        Reference points near the components.
    X, sample_weight, n_jobs
        As for `accumulate`.
    covariance_type : str
        For which model.
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
    """Statistics of rows whose responsibilities, (n, K), are given. See `accumulate_labels`."""
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
    if statistics.has_shared_scatter:
        within = scatter_about_means(statistics, positive_weight_sums(statistics))
        if (np.diagonal(statistics.scatter) > LOSSY_RATIO[X.dtype] * np.diagonal(within)).any():
            sums = kernels.accumulate("full", X, operands, **inputs)
            return pooled(statistics_of("full", operands, sums, sample_weight, len(X)))
    return statistics
