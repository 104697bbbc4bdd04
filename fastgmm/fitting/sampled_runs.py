"""EM on growing samples: a cheap way from a start to nearly the end of EM."""

from __future__ import annotations

import contextlib
import functools
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.random_stream import RandomStream, shares
from fastgmm.data.sources import ArraySource, Source
from fastgmm.initialization.outliers import pass_with_outliers, with_outliers
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from . import em, sample_sizes
from .degeneracy import flat_components
from .options import FitObserver, FitOptions
from .run_state import EMResult
from .short_runs import STEPS_PER_ROUND, short_runs
from .starts import Starts, draw_seeds

# Samples, other starts and their comparison cost about as much as this number of passes over all rows. If EM takes no
# more steps than this on the first sample, they would not save time.
MAX_CHEAP_STEPS = 6
# By chance, p parameters fitted to n rows gain p / 2n nats per row. A run on a sample stops when a step raises the
# likelihood by less than this part of it.
TOL_PER_NOISE = 0.002


class StartPoint(NamedTuple):
    """The point from which a run on all rows continues.

    Attributes
    ----------
    parameters : MixtureParameters
    statistics : SufficientStatistics or None
        Of all rows under the parameters, if that pass has been made.
    lower_bound : float
        The bound at the point from which an EM step led to the parameters, in nats per row; -inf if there is none.
    """

    parameters: MixtureParameters
    statistics: SufficientStatistics | None = None
    lower_bound: float = -math.inf


def start_from_samples(
    source: Source,
    starts: Starts,
    start: MixtureParameters,
    options: FitOptions,
    n_init: int,
    stream: RandomStream,
    observer: FitObserver,
) -> StartPoint:
    """Run EM on samples, each larger than the one before, and return the end.

    The first EM step from the start, on all rows, also finds the rows that a sample of moderate size would miss (see
    `initialization.outliers`). Every sample includes all of them. On the first sample, EM runs from that step, and from
    the best of other starts after short runs. Other rows decide which of the two ends is better.

    The result is the point after the first EM step in these cases: EM takes few steps on the first sample, a component
    collapses, or the end has a lower bound on all rows than the start.

    Parameters
    ----------
    source : Source
        It has enough rows for samples: `sample_sizes.growing` returns at least one size.
    starts : Starts
        Makes the other starts.
    start : MixtureParameters
        The start of plain EM.
    options : FitOptions
    n_init : int
        The number of starts, if it is larger than `starts.n_tries`.
    stream : RandomStream
    observer : FitObserver

    Returns
    -------
    StartPoint
    """
    sizes = sample_sizes.growing(source, *starts.mixture)
    # All samples are drawn at once, so that rows in a file are read only once for them.
    drawn = source.draw(*(shares(size, stream) for size in sizes))
    first_pass = pass_with_outliers(source, start, drawn[0])
    first, *larger = (with_outliers(sample, start, first_pass) for sample in drawn)
    stepped, start_bound = _step(options, first_pass.statistics, start)
    after_first_step = StartPoint(stepped, lower_bound=start_bound)
    try:
        result = _run_on_sample(first, stepped, options, observer)
        if _n_steps(result, options.tol) <= MAX_CHEAP_STEPS:
            return after_first_step
        ends = [result.parameters]
        if seeds := draw_seeds(stream, max(n_init, starts.n_tries) - 1):
            n_rows = sample_sizes.enough_for_short_runs(sizes[0], source.n_features, *starts.mixture)
            rows = first.draw(shares(n_rows, stream))[0]
            with contextlib.suppress(IllDefinedCovarianceError):
                other, _ = short_runs(rows, functools.partial(starts.make, rows, quick=True), options, seeds)
                observer.note(
                    f"Best of {len(seeds)} starts after {sum(STEPS_PER_ROUND)} iterations on {len(rows.X)} rows"
                )
                ends.append(_run_on_sample(first, other, options, observer).parameters)
        if larger:
            best = ends[0] if len(ends) == 1 else _highest(larger[0], ends, options)[0].parameters
            for sample in larger:
                best = _run_on_sample(sample, best, options, observer).parameters
            ends = [best]
        point, bound = _highest(source, ends, options)
    except IllDefinedCovarianceError:
        return after_first_step
    return point if bound >= start_bound else after_first_step


def _n_steps(result: EMResult, tol: float) -> float:
    """Return the number of steps until one changed the bound by less than `tol`.

    It is infinite if there was none.
    """
    return next(
        (n for n, (before, after) in enumerate(pairwise(result.lower_bounds)) if abs(after - before) < tol), math.inf
    )


def _run_on_sample(
    sample: ArraySource, point: MixtureParameters, options: FitOptions, observer: FitObserver
) -> EMResult:
    """Run EM on a sample, to a tolerance that suits its noise."""
    n_parameters = point.model.n_parameters(*point.means.shape)
    tol = max(TOL_PER_NOISE * n_parameters / (2 * len(sample.X)), options.tol / 10)
    result = em.finished(em.run(sample, point, options, tol=tol, limit_tol=math.inf))
    observer.note(f"Sample of {len(sample.X)} rows: {result.n_iter} iterations")
    return result


def _highest(source: Source, ends: list[MixtureParameters], options: FitOptions) -> tuple[StartPoint, float]:
    """Return the parameters with the highest bound on some rows, and that bound.

    Parameters with more flat components than the first of `ends` are not considered: the likelihood of a flat
    component depends on `reg_covar` alone.
    """
    n_flat = [len(flat_components(parameters, options.objective.reg_covar)) for parameters in ends]
    ends = [parameters for parameters, n in zip(ends, n_flat, strict=True) if n <= n_flat[0]]
    passes = [em.full_pass(source, parameters) for parameters in ends]
    bounds = [_step(options, statistics, parameters)[1] for statistics, parameters in zip(passes, ends, strict=True)]
    best = int(np.argmax(np.nan_to_num(bounds, nan=-np.inf)))
    return StartPoint(ends[best], passes[best]), bounds[best]


def _step(
    options: FitOptions, statistics: SufficientStatistics, point: MixtureParameters
) -> tuple[MixtureParameters, float]:
    """Return the parameters after an M-step from a point, and the bound at the point."""
    parameters, bound = options.objective.step(statistics, point)
    assert parameters is not None  # only a proposal is rejected
    return parameters, bound
