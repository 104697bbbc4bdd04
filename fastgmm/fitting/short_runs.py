"""Short runs: a few EM steps from several starts, of which the best is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.sources import Source
from fastgmm.mixture.parameters import MixtureParameters

from . import em
from .options import FitOptions

# EM steps of each round. Rounds of five and five steps were no better.
STEPS_PER_ROUND = (3, 4)

# Takes a seed and returns a start and its number of different clusters; see `Starts.make`.
MakeStart = Callable[[int], tuple[MixtureParameters, int]]
Result = TypeVar("Result")


def short_runs(
    source: Source, make_start: MakeStart, options: FitOptions, seeds: Iterable[int]
) -> tuple[MixtureParameters, int]:
    """Return the best of several starts after a few EM steps.

    After each round of steps, the starts with the lower bounds are discarded: half of them, rounded down (Biernacki,
    Celeux & Govaert, 2003, Computational Statistics & Data Analysis 41). A start with a component that collapses is
    discarded too.

    Parameters
    ----------
    source : Source
        The rows on which the starts are compared.
    make_start : callable (seed) -> (MixtureParameters, int)
        Makes a start and returns the number of different clusters that it found.
    options : FitOptions
        The acceleration is not used.
    seeds : iterable of int
        One for each start.

    Returns
    -------
    parameters : MixtureParameters
        After the last round.
    n_distinct : int
        The smallest number of different clusters that a start found.

    Raises
    ------
    IllDefinedCovarianceError
        If a component collapses in every start.
    """
    made = list(_successful(functools.partial(make_start, seed) for seed in seeds))
    n_distinct = min(found for _, found in made)
    best = [parameters for parameters, _ in made]
    plain = replace(options, acceleration=None)
    for n_steps in STEPS_PER_ROUND:
        run = functools.partial(em.run, source, options=plain, tol=0.0, max_iter=min(n_steps, options.max_iter))
        results = [em.finished(r) for r in _successful(functools.partial(run, parameters) for parameters in best)]
        results.sort(key=lambda result: -result.lower_bound)
        best = [result.parameters for result in results[: (len(results) + 1) // 2]]
    return best[0], n_distinct


def _successful(tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Yield the results of the tasks in which no component collapses.

    Raises
    ------
    IllDefinedCovarianceError
        If there is none; it is the error of the last task.
    """
    last_error, succeeded = None, False
    for task in tasks:
        try:
            result = task()
        except IllDefinedCovarianceError as error:
            last_error = error
        else:
            succeeded = True
            yield result
    if not succeeded and last_error is not None:
        raise last_error
