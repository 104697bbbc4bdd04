"""Which runs of the EM loop make a fit: short ones from several starts, one on a sample, one on all rows.

    starts -> short runs, the worse half dropped again and again -> samples, each larger -> all rows

Every arrow can be left out. What is left out by default, and the measurements behind it, stands at
`rules.ACCELERATIONS` and at the constants.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from . import em, sample_sizes
from .births import Point, birth
from .covariance import IllDefinedCovarianceError
from .em import EMResult
from .initialization import initial_parameters
from .moves import CAREFUL, QUICK, improve, look_gaussian
from .parameters import MixtureParameters
from .random_stream import Stream, sample, shares
from .rules import Kept, Rules, Watcher
from .sources import Source
from .statistics import SufficientStatistics

# Short runs: EM steps after each of which the worse half of the starts is dropped; how many starts are tried for the
# price of one. Of 20 seeds easy mixtures missed a cluster once with four, three times with two and with three; of rows
# from flights the worst of 20 fits rose by 0.07 nats per row. Five and five steps were no better than three and four.
ROUNDS = (3, 4)
TRIES = 4
# To a tolerance as fine as this all rows are read some tens of times, beside which more steps and a move on samples
# cost little: to 1e-6 fits of flights ended 0.03 nats per row higher in the median of ten seeds, of pixels 0.008, in
# 1.05 and 2 times the time (there are more passes to that end). Two moves: 0.002 higher, for a quarter more.
FINE, FINE_ROUNDS, FINE_MOVES = 1e-5, (10, 20), 1
TRIES_OF = {"small_em": 10, "hc": 1}
# A run from a start pauses, when a step raises the likelihood by less than so many nats per row, for so many moves; of
# fewer than `sample_sizes.ROWS` for one: of 1,797 digits 15 fits ended as high in the median after one as after two.
PAUSE, PAUSE_MOVES, PAUSE_ROWS = 0.1, 2, 1_000
# To a fine tolerance more moves are tried, with more care (`moves.CAREFUL`); on samples that was no better. Of 13 seeds
# rows of clothes (D=64, K=10) then ended 0.4 nats per row higher in the mean, 0.07 in the median, and none by more than
# 0.6 below the median, as three had by 1.3 to 1.7, in 0.9 times the time; diamonds 0.03 and 0.05 higher (ten seeds).
# 1,797 digits ended 0.01 higher after four than after one (24 seeds). Not with many components, of which a move touches
# few: patches with 100 ended 0.02 lower in 1.3 times the time.
FINE_PAUSE_MOVES, FINE_PAUSE_COMPONENTS = 4, 32
# A run on n rows stops when a step raises the likelihood by less than this part of what p parameters gain by chance,
# p / 2n nats per row.
NOISE = 0.002

Result = TypeVar("Result")


@dataclass(frozen=True)
class Starts:
    """How starts are made; the parameters of `initialization.initial_parameters`."""

    n_components: int
    covariance_type: str
    init_params: str
    reg_covar: float
    whiten: bool = False
    given: dict[str, Any] = field(default_factory=dict)
    create: Callable[[SufficientStatistics], MixtureParameters] | None = None
    update: em.Update | None = None

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
            stream = Stream(seed)
            sizes = sample_sizes.growing(source, self.n_components, self.covariance_type, worth=1)
            some = sample(source, sizes[0], stream) if sizes else source
            rules = Rules(0.0, sum(ROUNDS), self.reg_covar, update=self.update)
            return short_runs(some, self, rules, words(stream, self.n_tries), quick=True)
        return initial_parameters(
            source,
            self.n_components,
            covariance_type=self.covariance_type,
            init_params="kmeans" if self.init_params == "small_em" else self.init_params,
            seed=seed,
            reg_covar=self.reg_covar,
            quick=quick,
            whiten=self.whiten,
            create=self.create,
            **self.given,
        )


def fit(
    source: Source, starts: Starts, rules: Rules, *, n_init: int, seeds: Iterator[int], watcher: Watcher
) -> EMResult:
    """The best that some starts lead to.

    Parameters
    ----------
    source : Source
    starts : Starts
    rules : Rules
        Without an acceleration every start is run to its end, and the best of the ends is taken; such fits are kept
        only if there is one.
    n_init : int
        Starts, if there is chance in them; on a sample at least `TRIES` are tried. Of few rows all are run to their
        ends.
    seeds : iterator of int
        One for each start.
    watcher : Watcher

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    ValueError
        If there is a checkpoint for several runs.
    """
    n_init = n_init if starts.by_chance else 1
    few = rules.max_iter == 0 or source.n_samples < sample_sizes.ROWS
    if rules.checkpoint is not None:
        if (few or rules.acceleration is None) and n_init > 1:
            raise ValueError(
                f"checkpoint keeps one run, but here n_init={n_init} are made; with acceleration=None, or of fewer "
                f"than {sample_sizes.ROWS} rows, n_init should be 1"
            )
        rules.checkpoint.begin()
    if few or rules.acceleration is None or not starts.by_chance:
        return _best_of(source, starts, rules, n_init, seeds, watcher)
    watcher.start(0)
    drawn = [next(seeds) for _ in range(n_init)]
    if rules.acceleration.progressive and not starts.given:
        found = from_samples(source, starts, rules, n_init, Stream(drawn[0]), watcher)
        if found is not None:
            # A row far from all others that no sample has seen may be more than where they lead can stand.
            with contextlib.suppress(IllDefinedCovarianceError):
                no_moves = replace(rules, n_moves=0)
                return _finish(source, found.parameters, no_moves, watcher, statistics=found.statistics)
    if n_init > 1:
        start, n_distinct = short_runs(source, starts, rules, drawn)
        watcher.note(f"Best of {n_init} starts after {sum(ROUNDS)} iterations")
    else:
        start, n_distinct = starts.make(source, drawn[0])
    watcher.duplicates(n_distinct)
    return _finish(source, start, rules, watcher, pause=not starts.given)


def go_on(source: Source, parameters: MixtureParameters, rules: Rules, watcher: Watcher, bound: float) -> EMResult:
    """EM from parameters that are known to have a mean log-likelihood of `bound`, or -inf."""
    if rules.checkpoint is not None:
        rules.checkpoint.begin()
    watcher.start(0)
    return _finish(source, parameters, rules, watcher, lower_bound=bound)


def resume(source: Source, kept: Kept, rules: Rules, watcher: Watcher) -> EMResult:
    """The rest of a fit that has been killed."""
    watcher.start(0)
    if kept.pausing:
        return _ended(source, _with_pause(source, kept.state.point, rules, watcher, kept.state), rules, watcher)
    before = EMResult(kept.state.point) if kept.before is None else kept.before
    return _ended(source, _go_on(source, before, rules, watcher, kept.state), rules, watcher)


def short_runs(
    source: Source,
    starts: Starts,
    rules: Rules,
    seeds: Iterable[int],
    *,
    rounds: tuple[int, ...] = ROUNDS,
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
    for steps in rounds:
        run = functools.partial(
            em.run,
            source,
            tol=0.0,
            max_iter=min(steps, rules.max_iter),
            reg_covar=rules.reg_covar,
            update=rules.update,
        )
        results = [em.finished(r) for r in _surviving(functools.partial(run, parameters) for parameters in best)]
        results.sort(key=lambda result: -result.lower_bound)
        best = [result.parameters for result in results[: (len(results) + 1) // 2]]
    return best[0], n_distinct


def is_fine(rules: Rules) -> bool:
    """Whether a fit is to go on for so long that more than the least may be done for its start.

    Without a tolerance nobody knows how long it goes on.
    """
    return 0 < rules.tol <= FINE


def from_samples(
    source: Source, starts: Starts, rules: Rules, n_init: int, stream: Stream, watcher: Watcher
) -> Point | None:
    """Where EM leads on samples, each larger than the one before; None if there are too few rows, or it leads nowhere.

    On 100,000 to 330,000 rows (D 3 to 10, K 10 to 12) nine fits that began so stopped 0.0001 to 0.1 nats per row higher
    in the median than fits of all rows from k-means, after 2 to 5 passes over all rows in place of 2 to 25. Moves, if
    there are to be any, are made on the last sample: of flights to tol=1e-6 one move there raised the median of 15
    fits by 0.007 and the worst by 0.044, one on the first sample neither.
    """
    mixture = starts.n_components, starts.covariance_type
    sizes = sample_sizes.growing(source, *mixture)
    if not sizes:
        return None
    # All are drawn at once: rows that come from a file are read once for it.
    at = shares(sizes[0], stream)
    seeds = words(stream, max(n_init, starts.n_tries))
    n_few = sizes[0]
    if len(seeds) > 1:
        n_few = sample_sizes.enough_for_short_runs(n_few, source.n_features, *mixture)
    some_of_first = [shares(n_few, stream)] if n_few < sizes[0] else []
    first, *larger = source.draw(at, *(shares(size, stream) for size in sizes[1:]))
    few = first.draw(*some_of_first)[0] if some_of_first else first
    try:
        rounds = FINE_ROUNDS if is_fine(rules) else ROUNDS
        parameters, n_distinct = short_runs(few, starts, rules, seeds, rounds=rounds, quick=True)
        watcher.note(f"Best of {len(seeds)} starts after {sum(rounds)} iterations on {len(few.X)} rows")
        if n_distinct < starts.n_components:
            return None
        n_parameters = parameters.model.n_parameters(*parameters.means.shape)
        for some in (first, *larger):
            tol = max(NOISE * n_parameters / (2 * len(some.X)), rules.tol / 10)
            run = functools.partial(rules.run, tol=tol, limit_tol=math.inf)
            if some is first:
                parameters = em.finished(_until_pause(some, parameters, rules, watcher, samples=True)).parameters
            result = em.finished(run(some, parameters))
            n_moves = rules.n_moves if len(some.X) == sizes[-1] else 0
            if len(some.X) == sizes[-1] and n_moves < FINE_MOVES and is_fine(rules):
                n_moves = 0 if look_gaussian(result.parameters, some) else FINE_MOVES
            if n_moves:
                result = em.finished(improve(some, result, run, n_moves, watcher, samples=True))
            watcher.note(f"Sample of {len(some.X)} rows: {result.n_iter} iterations")
            parameters = result.parameters
    except IllDefinedCovarianceError:
        return None
    return birth(source, first, parameters)


def words(stream: Stream, n: int) -> list[int]:
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
    rules: Rules,
    watcher: Watcher,
    *,
    pause: bool = False,
    lower_bound: float = -math.inf,
    statistics: SufficientStatistics | None = None,
) -> EMResult:
    """The run on all rows, with or without a pause for moves, and moves from where it ends."""
    pause = pause and rules.acceleration is not None and rules.acceleration.progressive
    if pause and source.n_samples >= PAUSE_ROWS and parameters.n_components > 2:
        result = _with_pause(source, parameters, rules, watcher)
    else:
        result = rules.run(
            source,
            parameters,
            lower_bound=lower_bound,
            statistics=statistics,
            on_iteration=watcher.iteration,
            keep=rules.keep(),
        )
    return _ended(source, result, rules, watcher)


def _ended(source: Source, result: EMResult, rules: Rules, watcher: Watcher) -> EMResult:
    """What a run on all rows has come to, after moves from there."""
    if rules.n_moves and not (result.stopped or result.interrupted):
        result = improve(source, result, rules.run, rules.n_moves, watcher)
    if rules.max_iter > 0:
        watcher.end(result)
    return result


def _with_pause(
    source: Source, parameters: MixtureParameters, rules: Rules, watcher: Watcher, resumed: em.State | None = None
) -> EMResult:
    """A run from a start with a pause on the way."""
    result = _until_pause(source, parameters, rules, watcher, resumed=resumed)
    if rules.max_iter > result.n_iter and not (result.converged or result.stopped or result.interrupted):
        result = _go_on(source, result, rules, watcher)
    return result


def _until_pause(
    source: Source,
    parameters: MixtureParameters,
    rules: Rules,
    watcher: Watcher,
    *,
    samples: bool = False,
    resumed: em.State | None = None,
) -> EMResult:
    """A run from a start while it rises fast, and a few quick moves."""

    def watch(result: EMResult) -> bool:
        return not samples and watcher.iteration(result)

    run = functools.partial(rules.run, tol=max(PAUSE, rules.tol), limit_tol=math.inf)
    keep = None if samples else rules.keep(pausing=True)
    result = run(source, parameters, on_iteration=watch, keep=keep, resumed=resumed)
    if not (result.stopped or result.interrupted):
        n_moves, effort = PAUSE_MOVES if source.n_samples >= sample_sizes.ROWS else 1, QUICK
        if is_fine(rules) and not samples and parameters.n_components <= FINE_PAUSE_COMPONENTS:
            n_moves, effort = FINE_PAUSE_MOVES, CAREFUL
        # At most half of the passes that are left.
        quick = functools.partial(run, max_iter=(rules.max_iter - result.n_iter) // (2 * n_moves))
        result = improve(source, result, quick, n_moves, watcher, effort=effort, samples=samples)
    result.converged = result.is_settled(rules.tol, rules.limit_tol) and not result.interrupted
    return result


def _go_on(
    source: Source, before: EMResult, rules: Rules, watcher: Watcher, resumed: em.State | None = None
) -> EMResult:
    """A run from where another has ended, as one."""

    def watch(after: EMResult) -> bool:
        return watcher.iteration(after.following(before))

    try:
        after = rules.run(
            source,
            before.parameters,
            max_iter=rules.max_iter - before.n_iter,
            lower_bound=before.lower_bound,
            on_iteration=watch,
            keep=rules.keep(before),
            resumed=resumed,
        )
    except KeyboardInterrupt:  # in its first pass
        if not before.lower_bounds:
            raise
        before.interrupted, before.converged = True, False
        return before
    return after.following(before)


def _best_of(
    source: Source, starts: Starts, rules: Rules, n_init: int, seeds: Iterator[int], watcher: Watcher
) -> EMResult:
    """Each start run to its end, and the best end; an interrupt leaves the best so far."""
    best: EMResult | None = None
    for init in range(n_init):
        watcher.start(init)
        try:
            parameters, n_distinct = starts.make(source, next(seeds))
            watcher.duplicates(n_distinct)
            result = _finish(source, parameters, rules, watcher, pause=starts.by_chance and not starts.given)
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
