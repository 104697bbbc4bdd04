"""Which runs of the EM loop make a fit: short ones from several starts, ones on samples, one on all rows.

    start -> EM on samples, each larger -> EM on all rows -> moves, each kept if EM then ends higher

A fit starts where plain EM with the same seed starts. Samples have all rows that a sample would miss with bad luck, and
moves are tried from where EM has ended: where the default ends is no matter of chance that plain EM does not have.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.random_stream import RandomStream, sample, shares
from fastgmm.data.sources import ArraySource, Source
from fastgmm.initialization.outliers import pass_with_outliers, with_outliers
from fastgmm.initialization.registry import initial_parameters
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from . import em, sample_sizes
from .degeneracy import flat_components
from .options import FitObserver, FitOptions
from .run_state import CheckpointState, EMResult, RunState
from .split_merge import LIGHT, improve

# Short runs: EM steps after each of which the worse half of the starts is dropped. Of 20 seeds easy mixtures missed a
# cluster once with four starts, three times with two and with three; five and five steps were no better.
ROUNDS = (3, 4)
# Starts that are tried on a sample, the one that plain EM has among them; of "small_em" also those of a start.
TRIES, TRIES_OF = 4, {"small_em": 10, "hc": 1}
# Of so many rows and more light moves are tried; with fewer a fit takes a millisecond or two.
FINE_ROWS = 1_000
# Samples, other starts and their comparison cost about as many passes over all rows: where EM takes no more steps on
# the first sample, they are left out.
SHORT = 6
# A run on n rows stops when a step raises the likelihood by less than this part of what p parameters gain by chance,
# p / 2n nats per row.
NOISE = 0.002

Result = TypeVar("Result")


@dataclass(frozen=True)
class Starts:
    """How starts are made; the parameters of `initialization.initial_parameters`."""

    n_components: int
    objective: Objective
    init_params: str
    whiten: bool = False
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def mixture(self) -> tuple[int, str]:
        """The number of components and the covariance type."""
        return self.n_components, self.objective.covariance_type

    @property
    def by_chance(self) -> bool:
        """Whether a second start is another one."""
        return "resp" not in self.given and len(self.given) < 3

    @property
    def n_tries(self) -> int:
        """How many starts are tried on a sample."""
        return TRIES_OF.get(self.init_params, TRIES)

    def make(self, source: Source, seed: int, *, quick: bool = False) -> tuple[MixtureParameters, int]:
        """Parameters to start from, and how many different clusters were found."""
        if self.init_params == "small_em" and not quick and self.by_chance:
            stream = RandomStream(seed)
            sizes = sample_sizes.growing(source, *self.mixture, worth=1)
            some = sample(source, sizes[0], stream) if sizes else source
            options = FitOptions(self.objective, 0.0, sum(ROUNDS))
            return short_runs(some, self, options, words(stream, self.n_tries), quick=True)
        return initial_parameters(
            source,
            self.n_components,
            self.objective,
            init_params="kmeans" if self.init_params == "small_em" else self.init_params,
            seed=seed,
            quick=quick,
            whiten=self.whiten,
            **self.given,
        )


def fit(
    source: Source, starts: Starts, options: FitOptions, *, n_init: int, seeds: Iterator[int], observer: FitObserver
) -> EMResult:
    """The best that some starts lead to.

    Parameters
    ----------
    source : Source
    starts : Starts
    options : FitOptions
        Without an acceleration every start is run to its end, and the best of the ends is taken; such fits are kept
        only if there is one.
    n_init : int
        Starts, if there is chance in them; on a sample at least `TRIES` are tried. Of few rows all are run to their
        ends.
    seeds : iterator of int
        One for each start.
    observer : FitObserver

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    ValueError
        If there is a checkpoint for several runs.
    """
    n_init = n_init if starts.by_chance else 1
    few = options.max_iter == 0 or source.n_samples < sample_sizes.ROWS
    if options.checkpoint is not None:
        if (few or options.acceleration is None) and n_init > 1:
            raise ValueError(
                f"checkpoint keeps one run, but here n_init={n_init} are made; with acceleration=None, or of fewer "
                f"than {sample_sizes.ROWS} rows, n_init should be 1"
            )
        options.checkpoint.begin()
    if few or options.acceleration is None or not starts.by_chance:
        return _best_of(source, starts, options, n_init, seeds, observer)
    observer.start(0)
    drawn = [next(seeds) for _ in range(n_init)]
    sampled = options.acceleration.progressive and not starts.given and sample_sizes.growing(source, *starts.mixture)
    if n_init > 1 and not sampled:
        start, n_distinct = short_runs(source, starts, options, drawn)
        observer.note(f"Best of {n_init} starts after {sum(ROUNDS)} iterations")
    else:
        start, n_distinct = starts.make(source, drawn[0])
    observer.duplicates(n_distinct)
    if sampled:
        point = from_samples(source, starts, start, options, n_init, RandomStream(drawn[0]), observer)
        # A component may still collapse on all rows that did not on a sample.
        with contextlib.suppress(IllDefinedCovarianceError):
            return _finish(
                source,
                point.parameters,
                options,
                observer,
                statistics=point.statistics,
                lower_bound=point.lower_bound,
            )
    return _finish(source, start, options, observer, light_moves=not starts.given)


def go_on(
    source: Source, parameters: MixtureParameters, options: FitOptions, observer: FitObserver, bound: float
) -> EMResult:
    """EM from parameters that are known to have a mean log-likelihood of `bound`, or -inf."""
    if options.checkpoint is not None:
        options.checkpoint.begin()
    observer.start(0)
    return _finish(source, parameters, options, observer, lower_bound=bound, light_moves=False)


def resume(source: Source, kept: CheckpointState, options: FitOptions, observer: FitObserver) -> EMResult:
    """The rest of a fit that has been killed."""
    observer.start(0)
    return _finish(source, kept.run.point, options, observer, resumed=kept.run, light_moves=kept.light_moves)


def short_runs(
    source: Source,
    starts: Starts,
    options: FitOptions,
    seeds: Iterable[int],
    *,
    quick: bool = False,
) -> tuple[MixtureParameters, int]:
    """The best of some starts after rounds of EM steps, after each of which the worse half is dropped.

    Short runs before the long one: Biernacki, Celeux & Govaert, 2003, Computational Statistics & Data Analysis 41. A
    start that collapses is dropped too.

    Returns
    -------
    parameters : MixtureParameters
    n_distinct : int
        The least number of different clusters that a start found.

    Raises
    ------
    IllDefinedCovarianceError
        If all collapse.
    """
    make = functools.partial(starts.make, source, quick=quick)
    made = list(_surviving(functools.partial(make, seed) for seed in seeds))
    n_distinct = min(found for _, found in made)
    best = [parameters for parameters, _ in made]
    plain = replace(options, acceleration=None)
    for steps in ROUNDS:
        run = functools.partial(
            em.run,
            source,
            options=plain,
            tol=0.0,
            max_iter=min(steps, options.max_iter),
        )
        results = [em.finished(r) for r in _surviving(functools.partial(run, parameters) for parameters in best)]
        results.sort(key=lambda result: -result.lower_bound)
        best = [result.parameters for result in results[: (len(results) + 1) // 2]]
    return best[0], n_distinct


class StartPoint(NamedTuple):
    """Where a run on all rows continues.

    Attributes
    ----------
    parameters : MixtureParameters
    statistics : SufficientStatistics or None
        Of the rows under them, if their pass has been made.
    lower_bound : float
        The bound at the point from which an EM step led here, or -inf, in nats per row.
    """

    parameters: MixtureParameters
    statistics: SufficientStatistics | None = None
    lower_bound: float = -math.inf


def from_samples(
    source: Source,
    starts: Starts,
    start: MixtureParameters,
    options: FitOptions,
    n_init: int,
    stream: RandomStream,
    observer: FitObserver,
) -> StartPoint:
    """Return where EM leads on samples, each larger than the one before.

    The first EM step from the start, on all rows, also finds the rows that a sample of moderate size would miss (see
    `outliers`); every sample has all of them. On the first sample EM runs from there and from the best of some other
    starts after short runs. Which of the two ends is better is decided on other rows.

    The result is where the first EM step leads if EM from there takes few steps on the first sample, if a component
    collapses, or if all rows are less likely in the end than at the start.

    Parameters
    ----------
    source : Source
        Of so many rows that there are samples.
    starts : Starts
        How other starts are made.
    start : MixtureParameters
        Where plain EM starts.
    options : FitOptions
    n_init : int
        Starts, if there are more than `starts.n_tries`.
    stream : RandomStream
    observer : FitObserver

    Returns
    -------
    StartPoint
    """
    sizes = sample_sizes.growing(source, *starts.mixture)
    # All samples are drawn at once: rows that come from a file are read once for it.
    drawn = source.draw(*(shares(size, stream) for size in sizes))
    found = pass_with_outliers(source, start, drawn[0])
    first, *larger = (with_outliers(sample, start, found) for sample in drawn)
    stepped, start_bound = _step(options, found.statistics, start)
    here = StartPoint(stepped, lower_bound=start_bound)
    try:
        result = _on_sample(first, stepped, options, observer)
        if _n_steps(result, options.tol) <= SHORT:
            return here
        ends = [result.parameters]
        if seeds := words(stream, max(n_init, starts.n_tries) - 1):
            n_few = sample_sizes.enough_for_short_runs(sizes[0], source.n_features, *starts.mixture)
            few = first.draw(shares(n_few, stream))[0]
            with contextlib.suppress(IllDefinedCovarianceError):
                other, _ = short_runs(few, starts, options, seeds, quick=True)
                observer.note(f"Best of {len(seeds)} starts after {sum(ROUNDS)} iterations on {len(few.X)} rows")
                ends.append(_on_sample(first, other, options, observer).parameters)
        if larger:
            best = ends[0] if len(ends) == 1 else _likeliest(larger[0], ends, options)[0].parameters
            for rows in larger:
                best = _on_sample(rows, best, options, observer).parameters
            ends = [best]
        point, bound = _likeliest(source, ends, options)
    except IllDefinedCovarianceError:
        return here
    return point if bound >= start_bound else here


def _n_steps(result: EMResult, tol: float) -> float:
    """Return how many steps of a run were needed until one changed the bound by less than a tolerance."""
    return next(
        (n for n, (before, after) in enumerate(pairwise(result.lower_bounds)) if abs(after - before) < tol), math.inf
    )


def _on_sample(rows: ArraySource, point: MixtureParameters, options: FitOptions, observer: FitObserver) -> EMResult:
    """Run EM on a sample, to a tolerance that its noise allows."""
    n_parameters = point.model.n_parameters(*point.means.shape)
    tol = max(NOISE * n_parameters / (2 * len(rows.X)), options.tol / 10)
    result = em.finished(em.run(rows, point, options, tol=tol, limit_tol=math.inf))
    observer.note(f"Sample of {len(rows.X)} rows: {result.n_iter} iterations")
    return result


def _likeliest(source: Source, ends: list[MixtureParameters], options: FitOptions) -> tuple[StartPoint, float]:
    """Return the parameters with the highest bound on some rows, and that bound.

    Others than the first are not considered if more of their components are flat: the likelihood of these is only as
    high as `reg_covar` is small.
    """
    flat = [len(flat_components(parameters, options.objective.reg_covar)) for parameters in ends]
    ends = [parameters for parameters, n_flat in zip(ends, flat, strict=True) if n_flat <= flat[0]]
    passes = [em.full_pass(source, parameters) for parameters in ends]
    bounds = [_step(options, statistics, parameters)[1] for statistics, parameters in zip(passes, ends, strict=True)]
    best = int(np.argmax(np.nan_to_num(bounds, nan=-np.inf)))
    return StartPoint(ends[best], passes[best]), bounds[best]


def _step(
    options: FitOptions, statistics: SufficientStatistics, point: MixtureParameters
) -> tuple[MixtureParameters, float]:
    """Return where an M-step leads from a point, and the point's bound."""
    parameters, bound = options.objective.step(statistics, point)
    assert parameters is not None  # only a proposal is rejected
    return parameters, bound


def words(stream: RandomStream, n: int) -> list[int]:
    """Seeds from a stream."""
    return [stream.word() for _ in range(n)]


def _surviving(tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """The results of those tasks in which no component collapses; if all do, the last error."""
    error, survived = None, False
    for task in tasks:
        try:
            result = task()
        except IllDefinedCovarianceError as collapsed:
            error = collapsed
        else:
            survived = True
            yield result
    if not survived and error is not None:
        raise error


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
    """Run EM on all rows, and try moves from where it ends."""
    result = em.run(
        source,
        parameters,
        options,
        lower_bound=lower_bound,
        statistics=statistics,
        on_iteration=observer.iteration,
        save_state=options.save_state(light_moves=light_moves),
        resumed=resumed,
    )
    reg_covar = options.objective.reg_covar
    if options.n_moves and not (result.stopped or result.interrupted):
        run = functools.partial(em.run, options=options)
        result = improve(source, result, run, options.n_moves, observer, reg_covar=reg_covar)
    elif light_moves and options.tries_light_moves and result.converged and source.n_samples >= FINE_ROWS:
        run, left = functools.partial(em.run, options=options), options.max_iter - result.n_iter
        result = improve(source, result, run, 1, observer, budget=LIGHT, max_iter=left, reg_covar=reg_covar)
    if options.max_iter > 0:
        observer.end(result)
    return result


def _best_of(
    source: Source, starts: Starts, options: FitOptions, n_init: int, seeds: Iterator[int], observer: FitObserver
) -> EMResult:
    """Each start run to its end, and the best end; an interrupt leaves the best so far."""
    best: EMResult | None = None
    for init in range(n_init):
        observer.start(init)
        try:
            parameters, n_distinct = starts.make(source, next(seeds))
            observer.duplicates(n_distinct)
            result = _finish(source, parameters, options, observer, light_moves=not starts.given)
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
