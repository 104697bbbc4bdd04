"""Which runs of EM make a fit: on samples, on all rows, and after moves.

    start -> EM on samples, each larger -> EM on all rows -> moves, each kept if EM then ends higher

A fit starts where plain EM with the same seed starts. Every sample includes the rows that a random sample could miss,
and moves are tried only from the end of EM. So the end of the default fit depends on chance no more than that of
plain EM.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import Source
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from . import em, sample_sizes
from .options import FitObserver, FitOptions
from .run_state import CheckpointState, EMResult, RunState
from .sampled_runs import start_from_samples
from .short_runs import STEPS_PER_ROUND, short_runs
from .split_merge import LIGHT, improve
from .starts import Starts

# Light moves are tried only with at least this number of rows: with fewer, a fit takes 1 or 2 milliseconds.
MIN_ROWS_FOR_LIGHT_MOVES = 1_000


def fit(
    source: Source, starts: Starts, options: FitOptions, *, n_init: int, seeds: Iterator[int], observer: FitObserver
) -> EMResult:
    """Fit a mixture from one or several starts and return the best result.

    With an acceleration and at least `sample_sizes.ROWS` rows, short runs compare the starts and EM runs to its end
    from the best. Otherwise EM runs to its end from each start.

    Parameters
    ----------
    source : Source
    starts : Starts
    options : FitOptions
    n_init : int
        The number of starts; 1 is used if the start does not depend on the seed. On a sample, at least
        `starts.n_tries` are compared.
    seeds : iterator of int
        One for each start.
    observer : FitObserver

    Returns
    -------
    EMResult

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    ValueError
        If there is a checkpoint and EM would run to its end from several starts.
    """
    n_init = n_init if starts.is_random else 1
    is_cheap = options.max_iter == 0 or source.n_samples < sample_sizes.ROWS
    if options.checkpoint is not None:
        if (is_cheap or options.acceleration is None) and n_init > 1:
            raise ValueError(
                f"checkpoint supports one run: set n_init=1 (got {n_init}). More starts need an acceleration, max_iter "
                f"above 0 and at least {sample_sizes.ROWS} rows."
            )
        options.checkpoint.begin()
    if is_cheap or options.acceleration is None or not starts.is_random:
        return _best_of(source, starts, options, n_init, seeds, observer)
    observer.start(0)
    drawn = [next(seeds) for _ in range(n_init)]
    has_samples = (
        options.acceleration.progressive and not starts.user_start and sample_sizes.growing(source, *starts.mixture)
    )
    start = _choose_start(source, starts, options, drawn[:1] if has_samples else drawn, observer)
    if has_samples:
        point = start_from_samples(source, starts, start, options, n_init, RandomStream(drawn[0]), observer)
        # A component that did not collapse on a sample may still collapse on all rows.
        with contextlib.suppress(IllDefinedCovarianceError):
            return _finish(
                source,
                point.parameters,
                options,
                observer,
                statistics=point.statistics,
                lower_bound=point.lower_bound,
            )
    return _finish(source, start, options, observer, light_moves=not starts.user_start)


def continue_from(
    source: Source, parameters: MixtureParameters, options: FitOptions, observer: FitObserver, bound: float
) -> EMResult:
    """Run EM from parameters of an earlier fit.

    Parameters
    ----------
    source : Source
    parameters : MixtureParameters
    options : FitOptions
    observer : FitObserver
    bound : float
        The bound at the end of the earlier fit, in nats per row; -inf if it is unknown.

    Returns
    -------
    EMResult

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    """
    if options.checkpoint is not None:
        options.checkpoint.begin()
    observer.start(0)
    return _finish(source, parameters, options, observer, lower_bound=bound, light_moves=False)


def resume(source: Source, state: CheckpointState, options: FitOptions, observer: FitObserver) -> EMResult:
    """Run the rest of a fit that was killed, from the state in its checkpoint."""
    observer.start(0)
    return _finish(source, state.run.point, options, observer, resumed=state.run, light_moves=state.light_moves)


def _choose_start(
    source: Source, starts: Starts, options: FitOptions, seeds: list[int], observer: FitObserver
) -> MixtureParameters:
    """Return the start of the only seed, or the best of several after short runs."""
    if len(seeds) == 1:
        start, n_distinct = starts.make(source, seeds[0])
    else:
        start, n_distinct = short_runs(source, functools.partial(starts.make, source), options, seeds)
        observer.note(f"Best of {len(seeds)} starts after {sum(STEPS_PER_ROUND)} iterations")
    observer.duplicates(n_distinct)
    return start


def _finish(
    source: Source,
    parameters: MixtureParameters,
    options: FitOptions,
    observer: FitObserver,
    *,
    lower_bound: float = -math.inf,
    statistics: SufficientStatistics | None = None,
    resumed: RunState | None = None,
    light_moves: bool = True,
) -> EMResult:
    """Run EM on all rows, and try moves from its end."""
    result = em.run(
        source,
        parameters,
        options,
        lower_bound=lower_bound,
        statistics=statistics,
        on_iteration=observer.on_iteration,
        save_state=options.save_state(light_moves=light_moves),
        resumed=resumed,
    )
    reg_covar, run = options.objective.reg_covar, functools.partial(em.run, options=options)
    if options.n_moves and not (result.stopped or result.interrupted):
        result = improve(source, result, run, options.n_moves, observer, reg_covar=reg_covar)
    elif (
        light_moves and options.tries_light_moves and result.converged and source.n_samples >= MIN_ROWS_FOR_LIGHT_MOVES
    ):
        remaining = options.max_iter - result.n_iter
        result = improve(source, result, run, 1, observer, budget=LIGHT, max_iter=remaining, reg_covar=reg_covar)
    if options.max_iter > 0:
        observer.end(result)
    return result


def _best_of(
    source: Source, starts: Starts, options: FitOptions, n_init: int, seeds: Iterator[int], observer: FitObserver
) -> EMResult:
    """Run EM to its end from each start and return the best result.

    After an interrupt, it is the best so far.
    """
    best: EMResult | None = None
    for init in range(n_init):
        observer.start(init)
        try:
            parameters, n_distinct = starts.make(source, next(seeds))
            observer.duplicates(n_distinct)
            result = _finish(source, parameters, options, observer, light_moves=not starts.user_start)
        except KeyboardInterrupt:
            if best is None:
                raise
            best.interrupted = True
            break
        if best is None or not result.lower_bound <= best.lower_bound:
            best = result
        if result.interrupted or result.stopped:
            best.interrupted |= result.interrupted
            break
    assert best is not None
    best.converged &= not best.interrupted
    return best
