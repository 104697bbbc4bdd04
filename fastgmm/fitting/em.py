"""The EM loop: statistics, update, stop? There is no other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, replace
from itertools import pairwise

import numpy as np

from fastgmm.data.sources import Source
from fastgmm.e_step.complete import accumulate
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .squarem import Accelerator

# Falls that may be rounding, relative to the mean log-likelihood.
NEARLY_ROUNDING = 1e-6


@dataclass
class EMResult:
    """What a run of EM came to.

    Attributes
    ----------
    parameters : MixtureParameters
        After the last M-step.
    lower_bounds : list of float
        Mean log-likelihood in nats per row at each E-step, that is, before each M-step. A pass at a proposal that was
        worse, and so was not gone on from, repeats the one before.
    converged : bool
        Whether the last EM step changed the mean log-likelihood by less than the tolerance.
    last_change : float
        The last change of the mean log-likelihood.
    remaining : float
        About how much higher the limit of the mean log-likelihood is; infinite if there is no telling.
    stopped : bool
        Whether a callback ended the run.
    interrupted : bool
        Whether Ctrl-C did, after at least one pass.
    rounding : float
        Relative to the mean log-likelihood: changes that are none.
    """

    parameters: MixtureParameters
    lower_bounds: list[float] = field(default_factory=list)
    converged: bool = False
    last_change: float = math.inf
    remaining: float = math.inf
    stopped: bool = False
    interrupted: bool = False
    rounding: float = 0.0
    start_bound: InitVar[float] = -math.inf

    def __post_init__(self, start_bound: float) -> None:
        # The bounds of points from each of which an EM step leads to the next, three at most; how rises have shrunk.
        self._steps = [start_bound] if start_bound > -math.inf else []
        self._ratios: list[float] = []

    def record(self, updated: MixtureParameters, lower_bound: float, *, step: bool) -> None:
        """Note a pass: the bound that it found, and the parameters that it leads to.

        `step` says whether an EM step led to where it was.
        """
        before = self._steps[-1] if self._steps else -math.inf
        self._steps = [*self._steps[-2:], lower_bound] if step else [lower_bound]
        self.parameters, self.last_change = updated, lower_bound - before
        self.lower_bounds.append(lower_bound)
        if len(self._steps) == 3:
            previous, rise = (later - earlier for earlier, later in pairwise(self._steps))
            self._ratios = [*self._ratios[-5:], rise / previous if previous > 0 else math.inf]
            self.remaining = remaining_rise(rise, max(self._ratios))
        if step and self._is_rounding(self.last_change):
            self.remaining = 0.0

    def is_settled(self, tol: float, limit_tol: float) -> bool:
        """Return whether the last change is smaller than `tol` and the limit nearer than `limit_tol`.

        The change may be a fall, as in scikit-learn: where `reg_covar` is not small, EM steps converge to a point at
        which the likelihood is not highest, and every step lowers it by less than the one before.
        """
        return abs(self.last_change) < tol and (limit_tol == math.inf or self.remaining < limit_tol)

    def following(self, before: EMResult, *, least: float = -math.inf) -> EMResult:
        """A continuation of another run as one: the passes of both, of the second none with a bound below `least`."""
        bounds = [*before.lower_bounds, *(max(bound, least) for bound in self.lower_bounds)]
        return replace(self, lower_bounds=bounds, start_bound=-math.inf)

    def _is_rounding(self, change: float) -> bool:
        size = max(1.0, abs(self.lower_bound))
        if abs(change) <= self.rounding * size:
            return True
        # Rounding of flat components is larger. Without this fits of fewer rows than features took twice the passes.
        return bool(-NEARLY_ROUNDING * size < change < 0) and -change <= self.rounding * self.parameters.amplification()

    @property
    def n_iter(self) -> int:
        """Passes over the rows."""
        return len(self.lower_bounds)

    @property
    def lower_bound(self) -> float:
        return self.lower_bounds[-1] if self.lower_bounds else -math.inf


@dataclass
class State:
    """All that a run goes on from: what it has come to, where it is, and whether that was proposed by whom.

    `known` are the statistics of the last pass, if the next one reads them: their scatter is another one, in its last
    bits, than that of a pass that begins anew.
    """

    result: EMResult
    point: MixtureParameters
    proposed: bool = False
    accelerator: Accelerator | None = None
    known: SufficientStatistics | None = None


def remaining_rise(rise: float, ratio: float) -> float:
    """The sum of the rises to come if each is `ratio` times the one before, ``rise ratio / (1 - ratio)``.

    Aitken's estimate (for mixtures: Boehning et al., 1994, Annals of the Institute of Statistical Mathematics 46), with
    the slowest of the last six ratios: a step after a proposal first undoes its errors, and such rises shrink fast.
    With three ratios six of 16 fits to ``limit_tol=1e-4`` ended more than 1e-3 from the limit, at most 0.056; with six
    two, 2e-3 from it, and the others within 3e-4; with twelve the same. Infinite if rises do not shrink.
    """
    if rise == 0:
        return 0.0
    return rise * ratio / (1 - ratio) if rise > 0 and ratio < 1 else math.inf


def full_pass(
    source: Source, parameters: MixtureParameters, known: SufficientStatistics | None = None
) -> SufficientStatistics:
    """One pass over all rows. `known` are the statistics of the previous pass."""
    return source.reduce(functools.partial(accumulate, parameters), known=known)


def run(
    source: Source,
    parameters: MixtureParameters,
    *,
    objective: Objective,
    tol: float,
    max_iter: int,
    lower_bound: float = -math.inf,
    statistics: SufficientStatistics | None = None,
    limit_tol: float = math.inf,
    accelerator: Accelerator | None = None,
    on_iteration: Callable[[EMResult], bool | None] | None = None,
    keep: Callable[[State], None] | None = None,
    resumed: State | None = None,
) -> EMResult:
    """Alternate E-steps and M-steps until the mean log-likelihood rises by less than a tolerance.

    A fall by more than the tolerance is not convergence, nor is NaN (see `EMResult.is_settled`).

    Parameters
    ----------
    source : Source
    parameters : MixtureParameters
        Where to start.
    objective : Objective
        The M-step, and the bound that it raises.
    tol : float
        In nats per row, of the rise of an EM step; with 0 the loop runs to `max_iter`.
    max_iter : int
        Passes over the rows, at most.
    lower_bound : float
        The mean log-likelihood of the start, if it is known from an earlier run.
    statistics : SufficientStatistics, optional
        Of all rows under the start, if they are known: its pass has been made.
    limit_tol : float
        In nats per row: so near, by `remaining_rise`, the limit must be as well.
    accelerator : Accelerator, optional
        Proposes points between EM steps. A pass that finds the likelihood lower there than before is lost, and EM goes
        on from where it was.
    on_iteration : callable (result), optional
        Called after each pass with the result so far; if it returns something true, the run ends.
    keep : callable (state), optional
        Called after each pass with all that the run goes on from.
    resumed : State, optional
        Go on from there, in place of `parameters`; the bounds of passes that are over count.

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    """
    rounding = 64 * float(np.finfo(source.dtype).eps)
    at = resumed or State(
        EMResult(parameters, rounding=rounding, start_bound=lower_bound), parameters, accelerator=accelerator
    )
    result, known, ready = at.result, at.known or source.known, statistics
    try:
        while result.n_iter < max_iter and not result.converged:
            statistics = full_pass(source, at.point, known) if ready is None else ready
            known, ready = statistics, None
            at.known = statistics if statistics.layout == "tied" else None
            updated, bound = objective.step(statistics, at.point, result.lower_bound if at.proposed else None)
            if at.accelerator is not None and at.proposed:
                at.accelerator.judge(updated is not None)
            if updated is None:
                result.lower_bounds.append(result.lower_bound)
            else:
                result.record(updated, bound, step=not at.proposed)
            stop = on_iteration is not None and on_iteration(result)
            result.converged = not (stop or at.proposed) and result.is_settled(tol, limit_tol)
            proposal = None
            if at.accelerator is not None and updated is not None and not (at.proposed or result.converged):
                proposal = at.accelerator.propose(at.point, updated, result.last_change)
            at.point, at.proposed = (result.parameters, False) if proposal is None else (proposal, True)
            if keep is not None:
                keep(at)
            if stop:
                result.stopped = True
                break
    except KeyboardInterrupt:
        if not result.lower_bounds:
            raise
        result.interrupted, result.converged = True, False
    return result


def finished(result: EMResult) -> EMResult:
    """The result of a run that nobody will see by itself: an interrupt of it goes on."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result
