"""E-step of complete rows: one pass that gives their sufficient statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm import kernels
from fastgmm.kernels import serial_matmul, thread_limit
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .float_range import has_overflowed, sum_in_double
from .scores import checked_rows

# When the scatter about the means is this much smaller than the total scatter in some direction, computing it as a
# difference has lost six digits of float64 (or, for float32 rows, three of the digits of the first moments).
LOSSY_RATIO = {np.dtype(np.float64): 1e6, np.dtype(np.float32): 1e3}


@np.errstate(over="ignore", invalid="ignore")
def accumulate(
    parameters: MixtureParameters,
    X: NDArray,
    sample_weight: ArrayLike | None = None,
    *,
    known: SufficientStatistics | None = None,
    n_jobs: int | None = None,
    log_prob_norm: NDArray | None = None,
    exact_below: float = math.inf,
    resp: NDArray | None = None,
) -> SufficientStatistics:
    """Do the E-step: compute the sufficient statistics of rows in one pass.

    Parameters
    ----------
    parameters : MixtureParameters
        Parameters of the mixture.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    sample_weight : array-like of shape (n,), optional
        How often each row counts; by default 1.
    known : SufficientStatistics, optional
        Statistics of the same rows from an earlier pass. The tied layout reuses their total scatter, which does not
        depend on the parameters.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.
    log_prob_norm : ndarray of shape (n,), optional
        Output array, of the dtype of `X`, for the log-density of each row in nats.
    exact_below : float, default=inf
        For rows whose log-density is at least `exact_below`, `log_prob_norm` may receive any number between the two,
        which is faster.
    resp : ndarray of shape (n, K), optional
        Output array, of the dtype of `X`, for the responsibilities of each row times its weight.

    Returns
    -------
    SufficientStatistics
        Statistics about the means of the components, or about one point in the tied layout. They are bit for bit equal
        for every `n_jobs`.

    Raises
    ------
    ValueError
        If `X` has another number of features than the parameters.

    See Also
    --------
    maximise : M-step, which takes the statistics.
    accumulate_labels : Statistics of rows whose labels are given.
    accumulate_resp : Statistics of rows whose responsibilities are given.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import MixtureParameters, accumulate
    >>> X = np.array([[-1.0], [1.0], [9.0], [11.0]])
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0], [10.0]], [1.0, 1.0], "spherical")
    >>> statistics = accumulate(parameters, X)
    >>> statistics.weight_sums, round(statistics.mean_log_likelihood, 3)
    (array([2., 2.]), -2.112)
    """
    X = checked_rows(X, parameters.n_features)
    given = {"sample_weight": None if sample_weight is None else np.asarray(sample_weight)}
    outputs = {"log_prob_norm": log_prob_norm, "resp_out": resp}
    if not parameters.needs_double(X.dtype):
        asked = given | outputs | {"exact_below": exact_below}
        statistics = _accumulate(parameters, X, asked, known, n_jobs)
        if not has_overflowed(statistics, X.dtype):
            return statistics
    return sum_in_double(X, given, outputs, lambda rows, part: _accumulate(parameters, rows, part, None, n_jobs))


def _accumulate(
    parameters: MixtureParameters,
    X: NDArray,
    asked: dict[str, Any],
    known: SufficientStatistics | None,
    n_jobs: int | None,
) -> SufficientStatistics:
    """Statistics of an E-step, in the arithmetic of the rows' dtype."""
    layout = parameters.model.layout
    if layout != "tied" or known is None or known.layout != "tied":
        known = None
    if known is not None and not _has_common_reference(known, X.dtype):  # this fit has found the short way lossy before
        return _accumulate_tied_precisely(parameters, X, asked, n_jobs)
    step = parameters.e_step(X.dtype, None if known is None else known.reference[0])
    if step.layout != layout:
        return _accumulate_tied_precisely(parameters, X, asked, n_jobs)
    with thread_limit(n_jobs):
        sums = kernels.accumulate(layout, X, step.operands, with_scatter=known is None, **asked)
    statistics = statistics_of(layout, step.operands, sums, asked["sample_weight"], len(X), known)
    if layout == "tied" and _is_lossy(statistics, parameters, X.dtype):
        return _accumulate_tied_precisely(parameters, X, asked, n_jobs)
    return statistics


def statistics_of(
    layout: str,
    operands: kernels.Operands,
    sums: tuple[NDArray, NDArray, NDArray, float],
    sample_weight: ArrayLike | None,
    n_samples: int,
    known: SufficientStatistics | None = None,
) -> SufficientStatistics:
    """The statistics that the kernels' sums are; `known` lends its scatter if they have none."""
    weight_sums, first_moments, scatter, log_likelihood = sums
    # The kernels' reference points are rounded to the rows' dtype: what they were exactly is what counts.
    origin = operands.origin.astype(np.float64)
    if layout == "tied":
        reference = np.repeat(origin[np.newaxis], len(weight_sums), axis=0)
        scatter = scatter[0] if known is None else known.scatter
    else:
        reference = origin + operands.means
        scatter = scatter[:, 0] if layout == "diagonal" else scatter
    total_weight = n_samples if sample_weight is None else np.sum(sample_weight, dtype=np.float64)
    return SufficientStatistics(
        layout, reference, weight_sums, first_moments, scatter, log_likelihood, float(total_weight)
    )


def _has_common_reference(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Whether all reference points are one point, and one that rows of this dtype can be shifted by exactly."""
    point = statistics.reference[0]
    return bool((statistics.reference == point).all() and (point.astype(dtype).astype(np.float64) == point).all())


def _is_lossy(statistics: SufficientStatistics, parameters: MixtureParameters, dtype: np.dtype) -> bool:
    """Whether tied components are so far apart that a difference from the total scatter keeps too few digits."""
    root = parameters.precisions_cholesky
    whitened = serial_matmul(serial_matmul(root.T, statistics.scatter), root)
    return bool(np.diagonal(whitened).max() > LOSSY_RATIO[dtype] * statistics.total_weight)


def _accumulate_tied_precisely(
    parameters: MixtureParameters, X: NDArray, asked: dict[str, Any], n_jobs: int | None
) -> SufficientStatistics:
    """Statistics of the tied layout by way of the full one, about each component's mean: as precise, and as dear."""
    operands = parameters.centred_operands(X.dtype)
    with thread_limit(n_jobs):
        sums = kernels.accumulate("full", X, operands, **asked)
    return pooled(statistics_of("full", operands, sums, asked["sample_weight"], len(X)))


def pooled(statistics: SufficientStatistics) -> SufficientStatistics:
    """Statistics of the full layout as those of the tied layout."""
    return replace(statistics, layout="tied", scatter=statistics.scatter.sum(axis=0))
