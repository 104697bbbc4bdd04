"""E-step of complete rows: one pass that accumulates their sufficient statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm import kernels
from fastgmm.kernels import serial_matmul, thread_limit
from fastgmm.mixture.layouts import LAYOUTS
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, has_shared_scatter

from .float_range import has_overflowed, sum_in_double
from .scores import checked_rows

# Limit of the ratio of the total scatter to the scatter about the means, in any direction. Above it, computing the
# latter as a difference loses six digits of float64 (for float32 rows, three digits of the first moments).
LOSSY_RATIO = {np.dtype(np.float64): 1e6, np.dtype(np.float32): 1e3}


def accumulate(
    parameters: MixtureParameters,
    X: NDArray,
    sample_weight: ArrayLike | None = None,
    *,
    earlier_pass: SufficientStatistics | None = None,
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
    earlier_pass : SufficientStatistics, optional
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
    inputs = {"sample_weight": None if sample_weight is None else np.asarray(sample_weight)}
    outputs = {"log_prob_norm": log_prob_norm, "resp_out": resp}
    if not parameters.needs_double(X.dtype):
        arguments = inputs | outputs | {"exact_below": exact_below}
        with np.errstate(over="ignore", invalid="ignore"):
            statistics = _accumulate(parameters, X, arguments, earlier_pass, n_jobs)
        if not has_overflowed(statistics, X.dtype):
            return statistics
    with np.errstate(over="ignore", invalid="ignore"):
        return sum_in_double(X, inputs, outputs, lambda rows, part: _accumulate(parameters, rows, part, None, n_jobs))


def _accumulate(
    parameters: MixtureParameters,
    X: NDArray,
    arguments: dict[str, Any],
    earlier_pass: SufficientStatistics | None,
    n_jobs: int | None,
) -> SufficientStatistics:
    """Make an E-step in the arithmetic of the rows' dtype.

    A pass of the tied layout needs the total scatter only, and takes it from `earlier_pass` if it can. The M-step
    computes the scatter about the means as a difference. If that would lose too many digits, the full layout makes the
    pass instead.

    Parameters
    ----------
    parameters, X, earlier_pass, n_jobs
        As for `accumulate`.
    arguments : dict
        The other arguments of `kernels.accumulate`: weights and outputs.
    """
    layout, is_shared = parameters.model.layout, parameters.model.form.is_shared
    if not is_shared or earlier_pass is None or not has_shared_scatter(earlier_pass):
        earlier_pass = None
    if earlier_pass is not None and not _has_common_reference(earlier_pass, X.dtype):
        # The earlier pass was made in the full layout, since the tied layout would have lost digits.
        return _accumulate_tied_precisely(parameters, X, arguments, n_jobs)
    step = parameters.e_step(X.dtype, None if earlier_pass is None else earlier_pass.reference[0])
    if step.is_centred:
        return _accumulate_tied_precisely(parameters, X, arguments, n_jobs)
    with thread_limit(n_jobs):
        sums = kernels.accumulate(layout, X, step.operands, with_scatter=earlier_pass is None, **arguments)
    statistics = statistics_of(layout, step.operands, sums, arguments["sample_weight"], len(X), earlier_pass)
    if is_shared and _is_lossy(statistics, parameters, X.dtype):
        return _accumulate_tied_precisely(parameters, X, arguments, n_jobs)
    return statistics


def statistics_of(
    layout: str,
    operands: kernels.Operands,
    sums: tuple[NDArray, NDArray, NDArray, float],
    sample_weight: ArrayLike | None,
    n_samples: int,
    earlier_pass: SufficientStatistics | None = None,
) -> SufficientStatistics:
    """Return the kernels' sums as statistics.

    Parameters
    ----------
    layout : str
    operands : Operands
        Of the pass.
    sums : tuple
        Weight sums, first moments, scatter and log-likelihood, as `kernels.accumulate` returns them.
    sample_weight : (n,), optional
    n_samples : int
        Number of rows; the total weight if there are no weights.
    earlier_pass : SufficientStatistics, optional
        Their scatter takes the place of the kernel's.
    """
    weight_sums, first_moments, scatter, log_likelihood = sums
    # The kernels used reference points rounded to the rows' dtype, so the statistics are about the rounded ones.
    origin = operands.origin.astype(np.float64)
    reference = LAYOUTS[layout].reference_points(origin, operands.means)
    scatter = LAYOUTS[layout].from_kernel(scatter) if earlier_pass is None else earlier_pass.scatter
    total_weight = n_samples if sample_weight is None else np.sum(sample_weight, dtype=np.float64)
    return SufficientStatistics(
        layout, reference, weight_sums, first_moments, scatter, log_likelihood, float(total_weight)
    )


def _has_common_reference(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether all reference points are equal, and exact in this dtype."""
    point = statistics.reference[0]
    return bool((statistics.reference == point).all() and (point.astype(dtype).astype(np.float64) == point).all())


def _is_lossy(statistics: SufficientStatistics, parameters: MixtureParameters, dtype: np.dtype) -> bool:
    """Return whether the scatter as a difference from the total has lost digits.

    That happens if tied components are far apart.
    """
    root = parameters.precisions_cholesky
    whitened = serial_matmul(serial_matmul(root.T, statistics.scatter), root)
    return bool(np.diagonal(whitened).max() > LOSSY_RATIO[dtype] * statistics.total_weight)


def _accumulate_tied_precisely(
    parameters: MixtureParameters, X: NDArray, arguments: dict[str, Any], n_jobs: int | None
) -> SufficientStatistics:
    """Accumulate tied statistics in the full layout, about each component's mean.

    It costs as much as a pass of the full layout.
    """
    operands = parameters.centred_operands(X.dtype)
    with thread_limit(n_jobs):
        sums = kernels.accumulate("full", X, operands, **arguments)
    return pooled(statistics_of("full", operands, sums, arguments["sample_weight"], len(X)))


def pooled(statistics: SufficientStatistics) -> SufficientStatistics:
    """Return statistics of the full layout in the tied layout."""
    return replace(statistics, layout="tied", scatter=statistics.scatter.sum(axis=0))
