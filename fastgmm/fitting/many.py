"""Many small fits at once: every problem is one chunk of compiled code.

A fit of 500 rows takes tens of microseconds of arithmetic. Made one by one from Python, it takes ten times as long.
Here k-means of all problems is one call, and EM of all problems is another. The results are those of single fits, bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.covariance import CovarianceModel
from fastgmm.data.random_stream import RandomStream
from fastgmm.initialization.kmeans import MAX_STEPS, SHORT_STEPS, TOLERANCE, is_quick_shape, n_starts_for
from fastgmm.initialization.seeding import FARTHEST, n_trials_per_seed
from fastgmm.m_step.compiled_problem import packed, unpacked
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from fastgmm.mixture.parameters import MixtureParameters

from . import sample_sizes
from .options import FitOptions
from .run_state import EMResult

Array = NDArray[np.float64]
# Problems and numbers of bounds in a call: then Ctrl-C and progress are noticed in time, and memory is bounded.
PROBLEMS_PER_CALL = 2_000
BOUNDS_PER_CALL = 4_000_000


class RowParts(NamedTuple):
    """Rows of many problems.

    Attributes
    ----------
    X : (N, D) float64 or float32
        The rows of all problems, one after the other.
    sample_weight : (N,) float64 or None
    parts : (P, 2) int64
        The first row of each problem, and the row after its last.
    """

    X: NDArray
    sample_weight: Array | None
    parts: NDArray[np.int64]

    def total_weights(self) -> Array:
        """Return the sum of each problem's weights, (P,)."""
        if self.sample_weight is None:
            return (self.parts[:, 1] - self.parts[:, 0]).astype(np.float64)
        return np.array([self.sample_weight[begin:end].sum() for begin, end in self.parts])

    def some(self, problems: slice) -> RowParts:
        """Return some of the problems."""
        return self._replace(parts=self.parts[problems])


class ManyResults(NamedTuple):
    """Results of many fits.

    Attributes
    ----------
    arrays : ParameterArrays
        The parameters of all problems, as compiled code keeps them.
    lower_bounds : list of (n,) float64
        The bounds of each problem's iterations, in nats per row.
    trends : (P, n) float64
        See `kernels.new_trend`.
    converged : (P,) bool
    n_distinct : (P,) int
        Number of different clusters that k-means has found.
    handed_over : (P,) bool
        Problems without a result, which must be fitted one by one.
    """

    arrays: kernels.ParameterArrays
    lower_bounds: list[Array]
    trends: Array
    converged: NDArray[np.bool_]
    n_distinct: NDArray[np.intp]
    handed_over: NDArray[np.bool_]

    def result(self, problem: int, model: CovarianceModel) -> EMResult:
        """Return the result of one problem as that of a run of EM."""
        parameters = unpacked(model, *(array[problem] for array in self.arrays))
        return EMResult(
            parameters,
            self.lower_bounds[problem].tolist(),
            converged=bool(self.converged[problem]),
            trend=self.trends[problem].tolist(),
        )


def is_many(model: CovarianceModel, n_components: int, n_features: int, n_rows: int, dtype: np.dtype) -> bool:
    """Return whether problems of this shape are fitted together, and not one by one.

    A fit of more rows looks for its start in a sample.
    """
    return (
        model.only_averages
        and n_rows < sample_sizes.ROWS
        and kernels.is_small(model.layout, n_rows, n_components, n_features)
        and is_quick_shape((n_rows, n_features), dtype, n_components)
    )


def fit_many(
    rows: RowParts,
    model: CovarianceModel,
    n_components: int,
    options: FitOptions,
    seeds: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
) -> ManyResults:
    """Fit a mixture to each problem: k-means, then plain EM.

    Parameters
    ----------
    rows : RowParts
        See `is_many` for the shapes of the problems.
    model : CovarianceModel
    n_components : int
    options : FitOptions
        The objective is maximum likelihood.
    seeds : sequence of int
        One for each problem.
    on_progress : callable (n_problems), optional
        Called after some problems with their number.
    """
    assert type(options.objective) is MaximumLikelihood
    n_problems = len(rows.parts)
    per_call = max(1, min(PROBLEMS_PER_CALL, BOUNDS_PER_CALL // max(1, options.max_iter)))
    results = []
    for first in range(0, n_problems, per_call):
        some = slice(first, min(first + per_call, n_problems))
        results.append(_fit_some(rows.some(some), model, n_components, options, seeds[some]))
        if on_progress is not None:
            on_progress(some.stop - some.start)
    arrays = kernels.ParameterArrays(
        *(np.concatenate(parts) for parts in zip(*(r.arrays for r in results), strict=True))
    )
    return ManyResults(
        arrays,
        [bounds for result in results for bounds in result.lower_bounds],
        *(np.concatenate([getattr(result, name) for result in results]) for name in ManyResults._fields[2:]),
    )


def _fit_some(
    rows: RowParts, model: CovarianceModel, n_components: int, options: FitOptions, seeds: Sequence[int]
) -> ManyResults:
    """Fit the problems of one call."""
    # Only the rows of these problems, so that a conversion to float64 copies no others.
    begin, end = int(rows.parts[:, 0].min()), int(rows.parts[:, 1].max())
    X, parts = rows.X[begin:end], rows.parts - begin
    weight = None if rows.sample_weight is None else rows.sample_weight[begin:end]
    clusters = kernels.kmeans_problems(
        X,
        weight,
        parts,
        uniforms_for(seeds, n_components),
        n_components,
        kernels.KMeansLimits(SHORT_STEPS, MAX_STEPS, TOLERANCE, FARTHEST[X.dtype]),
    )
    problems = kernels.EMProblems(
        model.code, n_components, X.astype(np.float64, copy=False), weight, parts, rows.total_weights()
    )
    started = problems.start_from_labels(clusters.labels, clusters.centres, options.objective.reg_covar)
    n_distinct = np.count_nonzero(problems.weight_sums[:, 0], axis=1)
    problems.trend[:] = kernels.new_trend()
    rounding = 64 * float(np.finfo(X.dtype).eps)
    run_options = kernels.RunOptions(options.tol, options.limit_tol, options.objective.reg_covar, rounding)
    bounds, ended = problems.run(run_options, options.max_iter)
    handed_over = ~started | (ended[:, 1] == kernels.HANDED_OVER)
    return ManyResults(
        problems.parameters,
        [bounds[p, :n].copy() for p, n in enumerate(ended[:, 0])],
        problems.trend,
        (ended[:, 1] == kernels.CONVERGED) & ~handed_over,
        n_distinct,
        handed_over,
    )


def fit_from(
    rows: RowParts, starts: Sequence[MixtureParameters], options: FitOptions, *, weight_begins: NDArray | None = None
) -> tuple[ManyResults, Array]:
    """Run plain EM for each problem from parameters of one model.

    Parameters
    ----------
    rows : RowParts
        The weights of problems with the same rows may differ: those of problem p begin at ``weight_begins[p]``.
    starts : sequence of MixtureParameters
        One for each problem.
    options : FitOptions
        The objective is maximum likelihood.
    weight_begins : (P,) int64, optional

    Returns
    -------
    results : ManyResults
    ends : (P,) float64
        The mean log-likelihood of each problem's rows at its end, in nats per row.
    """
    model, n_problems, weight = starts[0].model, len(rows.parts), rows.sample_weight
    sizes = rows.parts[:, 1] - rows.parts[:, 0]
    totals = rows.total_weights() if weight_begins is None else _sums_of(weight, weight_begins, sizes)
    problems = kernels.EMProblems(
        model.code,
        starts[0].n_components,
        np.asarray(rows.X, np.float64),
        weight,
        rows.parts,
        totals,
        weight_begins,
    )
    for p, start in enumerate(starts):
        packed(start, *(array[p] for array in problems.parameters))
    problems.trend[:] = kernels.new_trend()
    run_options = kernels.RunOptions(
        options.tol, options.limit_tol, options.objective.reg_covar, 64 * float(np.finfo(rows.X.dtype).eps)
    )
    bounds, ended = problems.run(run_options, options.max_iter)
    results = ManyResults(
        kernels.ParameterArrays(*(array.copy() for array in problems.parameters)),
        [bounds[p, :n].copy() for p, n in enumerate(ended[:, 0])],
        problems.trend.copy(),
        ended[:, 1] == kernels.CONVERGED,
        np.full(n_problems, starts[0].n_components),
        ended[:, 1] == kernels.HANDED_OVER,
    )
    ends, _ = problems.run(run_options, 1)
    return results, ends[:, 0]


def _sums_of(values: Array | None, begins: NDArray, sizes: NDArray) -> Array:
    """Return the sums of parts of an array, (P,)."""
    assert values is not None
    return np.array([values[begin : begin + size].sum() for begin, size in zip(begins, sizes, strict=True)])


def uniforms_for(seeds: Sequence[int], n_clusters: int) -> Array:
    """Return the random numbers of each problem's starts of k-means, (P, n_starts, n_numbers).

    They are those of a `RandomStream` of each seed.
    """
    n_starts, n_numbers = n_starts_for(n_clusters), 1 + (n_clusters - 1) * n_trials_per_seed(n_clusters)
    streams = {seed: RandomStream(seed).uniforms(n_starts * n_numbers) for seed in set(seeds)}
    return np.array([streams[seed] for seed in seeds]).reshape(len(seeds), n_starts, n_numbers)
