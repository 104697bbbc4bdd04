"""EM without an estimator: passes over blocks of rows, statistics that add, parameters from statistics.

For library authors; nothing here needs scikit-learn. One EM iteration over blocks of rows from anywhere is

>>> import numpy as np
>>> from fastgmm.engine import MixtureParameters, accumulate, maximise
>>> rng = np.random.default_rng(0)
>>> blocks = [rng.normal(size=(1000, 2)) + [6.0 * (i % 2), 0.0] for i in range(4)]
>>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [2.0, 0.0]], np.ones((2, 2)), "diag")
>>> for _ in range(20):
...     statistics = sum(accumulate(parameters, block) for block in blocks)
...     parameters = maximise(statistics, "diag")
>>> parameters.means.round(1) + 0.0
array([[0., 0.],
       [6., 0.]])

Rows are float64 or float32 arrays of shape (n, D), C- or F-ordered, read-only or memory-mapped; the arithmetic is done
in their dtype, sums in float64. Rows are not checked: one NaN makes the log-likelihood NaN.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import kernels
from .covariance import BASIC_TYPES, CovarianceModel, IllDefinedCovarianceError, get_model
from .float_range import has_lost_digits, has_overflowed, has_underflowed, sum_in_double
from .kernels import serial_matmul, thread_limit
from .parameters import MixtureParameters
from .scores import checked_rows, predict, predict_proba, score_samples
from .statistics import SufficientStatistics, positive_weight_sums, scatter_about_means

__all__ = [
    "IllDefinedCovarianceError",
    "MixtureParameters",
    "SufficientStatistics",
    "accumulate",
    "accumulate_labels",
    "accumulate_resp",
    "maximise",
    "predict",
    "predict_proba",
    "score_samples",
    "warmup",
]

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
    """E-step: one pass over rows, giving their sufficient statistics and log-likelihood.

    Parameters
    ----------
    parameters : MixtureParameters
    X : (n, D) float64 or float32
    sample_weight : (n,), optional
        How often each row counts; ones if not given.
    known : SufficientStatistics, optional
        Statistics of the same rows from an earlier pass. The tied layout takes over from them what never changes.
    n_jobs : int, optional
        Threads; None is Numba's own setting.
    log_prob_norm, resp : (n,) and (n, K) of X's dtype, optional
        Receive each row's log-density in nats, and its responsibilities times its weight.
    exact_below : float
        For a row whose log-density is no lower, `log_prob_norm` may receive any number between this and it, which
        takes less time.

    Returns
    -------
    SufficientStatistics
        About the means of the components (in the tied layout: about one point). The same bits for any `n_jobs`.
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
def maximise(
    statistics: SufficientStatistics,
    covariance_type: str = "full",
    *,
    reg_covar: float = 1e-6,
    before: MixtureParameters | None = None,
) -> MixtureParameters:
    """M-step: the parameters of highest likelihood given sufficient statistics.

    Parameters
    ----------
    statistics : SufficientStatistics
        Of the layout that the covariance type needs.
    covariance_type : str
        One of scikit-learn's four or mclust's fourteen; see `fastgmm.GaussianMixture`.
    reg_covar : float
        Added to every variance.
    before : MixtureParameters, optional
        The parameters under which the statistics were taken. Models whose M-step iterates start there, and so never
        lower the likelihood.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance is not positive definite; it names the components.
    """
    model = get_model(covariance_type)
    if not isinstance(statistics, SufficientStatistics):
        raise TypeError(
            f"statistics should be SufficientStatistics, but are {statistics!r} (the sum of no blocks is 0)"
        )
    if not statistics.total_weight > 0:
        raise ValueError(f"the statistics are those of no rows: their total weight is {statistics.total_weight}")
    if np.isnan(statistics.weight_sums).any():
        raise ValueError("the statistics contain NaN, so the rows they are of did, or the parameters")
    if statistics.layout != model.layout:
        raise ValueError(
            f"covariance_type {covariance_type!r} needs statistics of the {model.layout} layout, "
            f"but these are of the {statistics.layout} layout"
        )
    weights, means = estimate_weights_and_means(statistics)
    covariances = estimate_covariances(statistics, model, reg_covar, before=before)
    precisions_cholesky = model.form.precisions_cholesky(covariances)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, covariance_type)


def estimate_weights_and_means(statistics: SufficientStatistics) -> tuple[NDArray, NDArray]:
    """The weights (K,), ``n_k / sum_j n_j``, and means (K, D), ``c_k + f_k / n_k``, of highest likelihood."""
    weight_sums = positive_weight_sums(statistics)
    means = statistics.reference + statistics.first_moments / weight_sums[:, np.newaxis]
    return weight_sums / weight_sums.sum(), means


def estimate_covariances(
    statistics: SufficientStatistics,
    model: CovarianceModel,
    reg_covar: float,
    *,
    before: MixtureParameters | None = None,
) -> NDArray:
    """The covariances of highest likelihood about those means, with `reg_covar` added to every variance."""
    weight_sums = positive_weight_sums(statistics)
    scatter = scatter_about_means(statistics, weight_sums)
    start = before.covariances if before is not None and before.model is model else None
    return model.covariances(scatter, weight_sums, reg_covar=reg_covar, before=start)


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
    statistics = _statistics(layout, operands, kernels.accumulate(layout, X, operands, **given), sample_weight, len(X))
    if layout == "tied":
        within = scatter_about_means(statistics, positive_weight_sums(statistics))
        if (np.diagonal(statistics.scatter) > LOSSY_RATIO[X.dtype] * np.diagonal(within)).any():
            sums = kernels.accumulate("full", X, operands, **given)
            return _pooled(_statistics("full", operands, sums, sample_weight, len(X)))
    return statistics


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
    statistics = _statistics(layout, step.operands, sums, asked["sample_weight"], len(X), known)
    if layout == "tied" and _is_lossy(statistics, parameters, X.dtype):
        return _accumulate_tied_precisely(parameters, X, asked, n_jobs)
    return statistics


def _statistics(
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
    return _pooled(_statistics("full", operands, sums, asked["sample_weight"], len(X)))


def _pooled(statistics: SufficientStatistics) -> SufficientStatistics:
    """Statistics of the full layout as those of the tied layout."""
    return replace(statistics, layout="tied", scatter=statistics.scatter.sum(axis=0))


def warmup(*, n_jobs: int | None = None) -> list[str]:
    """Compile every kernel, or load it from the disk cache, and return the names of what was made ready.

    Worth a line in the recipe of a container image: afterwards no fit on the same machine waits for the compiler.
    """
    ready = []
    for dtype in (np.float64, np.float32):
        # A few rows run on one thread, many on several: those are two loops to compile.
        for n_samples in (128, 131_072):
            for n_features in (*range(1, kernels.UNROLLED_FEATURES + 2), kernels.SEARCHED_FEATURES):
                for name in BASIC_TYPES if n_features in (2, kernels.UNROLLED_FEATURES + 1) else ("full",):
                    _run_every_pass(name, n_samples, n_features, dtype, n_jobs)
            _run_initialization(n_samples, dtype, n_jobs)
        ready += [f"{name} {np.dtype(dtype)}" for name in (*BASIC_TYPES, "k-means and random starts")]
    covariances = np.tile(np.eye(64), (128, 1, 1))
    for some in (covariances[:1], covariances):
        kernels.factor_covariances(some)
    kernels.sum_of_chunks(np.zeros((2, 2**20)))
    return ready


def _run_every_pass(name: str, n_samples: int, n_features: int, dtype: DTypeLike, n_jobs: int | None) -> None:
    form = get_model(name).form
    X = np.linspace(0, 1, n_samples * n_features, dtype=dtype).reshape(n_samples, n_features)
    for n_components in (8, 128):  # labels of many rows and components are found by a kernel of their own
        means = X[:: n_samples // n_components].astype(np.float64)
        ones = np.ones(form.shape(len(means), n_features))
        identity = ones * np.eye(n_features) if form.layout != "diagonal" else ones
        parameters = MixtureParameters(np.full(len(means), 1 / len(means)), means, identity, identity, name)
        predict(parameters, X, n_jobs=n_jobs)
    accumulate(parameters, X, n_jobs=n_jobs)


def _run_initialization(n_samples: int, dtype: DTypeLike, n_jobs: int | None) -> None:
    X = np.linspace(0, 1, n_samples * 2, dtype=dtype).reshape(n_samples, 2)
    points = np.repeat(X[:2], 8, axis=0)
    with thread_limit(n_jobs):
        kernels.random_resp(X, 8, 0, 0, n_samples)
        kernels.seed_step(X, None, points[0], points, points[:1], np.ones(n_samples, dtype))
        kernels.kmeans_starts(X, None, points[0], np.zeros((1, 2)), 2, n_steps=1, farthest=1.0)
        labels, gap = np.full(n_samples, -1, np.int32), np.zeros(n_samples, np.float32)
        kernels.lloyd_step(X, None, points[0], points, np.zeros(len(points), np.float32), labels, gap)
