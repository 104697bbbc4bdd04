"""The state of a run of EM: its result so far, and what is needed to continue it."""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, field
from itertools import pairwise
from typing import NamedTuple

from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .convergence import remaining_rise
from .squarem import Accelerator

# A fall of at least this part of the bound is not rounding, even with flat components.
MAX_ROUNDING = 1e-6


@dataclass
class EMResult:
    """The result of a run of EM so far.

    Attributes
    ----------
    parameters : MixtureParameters
        After the last M-step.
    lower_bounds : list of float
        Bound at each E-step, that is, before each M-step, in nats per row. A rejected acceleration step repeats the
        previous value. A run that continues another one begins with its values.
    converged : bool
        Whether the last EM step changed the bound by less than the tolerance.
    last_change : float
        The last change of the bound, in nats per row.
    remaining : float
        Estimate of how far the bound is below its limit, in nats per row; infinite if there is no estimate.
    stopped : bool
        Whether a callback ended the run.
    interrupted : bool
        Whether Ctrl-C ended the run, after at least one pass.
    rounding : float
        Changes of the bound that are smaller than this, relative to the bound, are rounding.
    n_earlier : int
        Number of the values in `lower_bounds` that are from the runs which this one continues.
    floor : float
        Lower values are recorded as this one in `lower_bounds`. While a move is tried, it is the bound to exceed.
    bound : float
        The last bound without the floor, in nats per row; -inf before the first pass.
    start_bound : float
        The bound of the point from which an EM step led to the start, if it is known.
    """

    parameters: MixtureParameters
    lower_bounds: list[float] = field(default_factory=list)
    converged: bool = False
    last_change: float = math.inf
    remaining: float = math.inf
    stopped: bool = False
    interrupted: bool = False
    rounding: float = 0.0
    n_earlier: int = 0
    floor: float = -math.inf
    bound: float = -math.inf
    start_bound: InitVar[float] = -math.inf

    def __post_init__(self, start_bound: float) -> None:
        # The bounds of at most three points, each of which an EM step from the point before led to.
        self._steps = [start_bound] if start_bound > -math.inf else []
        # The last six ratios of a rise to the rise before.
        self._ratios: list[float] = []

    def record(self, updated: MixtureParameters, bound: float, *, step: bool) -> None:
        """Record a pass.

        Parameters
        ----------
        updated : MixtureParameters
            After the M-step.
        bound : float
            At the point before it, in nats per row.
        step : bool
            Whether an EM step led to that point, and not a proposal of an accelerator.
        """
        before = self._steps[-1] if self._steps else -math.inf
        self._steps = [*self._steps[-2:], bound] if step else [bound]
        self.parameters, self.last_change, self.bound = updated, bound - before, bound
        self.lower_bounds.append(max(bound, self.floor))
        if len(self._steps) == 3:
            previous, rise = (later - earlier for earlier, later in pairwise(self._steps))
            self._ratios = [*self._ratios[-5:], rise / previous if previous > 0 else math.inf]
            self.remaining = remaining_rise(rise, max(self._ratios))
        if step and self._is_rounding(self.last_change):
            self.remaining = 0.0

    def reject(self) -> None:
        """Record a pass at a proposal of an accelerator that was rejected."""
        self.lower_bounds.append(max(self.bound, self.floor))

    def is_settled(self, tol: float, limit_tol: float) -> bool:
        """Return whether the run has converged.

        The last change must be smaller than `tol`, and the estimated limit nearer than `limit_tol`. The change may be a
        fall, as in scikit-learn. If `reg_covar` is not small, EM steps converge to a point where the likelihood does
        not have its maximum, and every step lowers it by less than the step before.
        """
        return abs(self.last_change) < tol and (limit_tol == math.inf or self.remaining < limit_tol)

    def _is_rounding(self, change: float) -> bool:
        """Return whether a change of the bound, in nats per row, may be rounding alone."""
        size = max(1.0, abs(self.bound))
        if abs(change) <= self.rounding * size:
            return True
        # With flat components, rounding is larger. Without this, fits with fewer rows than features took twice the
        # passes.
        return bool(-MAX_ROUNDING * size < change < 0) and -change <= self.rounding * self.parameters.amplification()

    @property
    def n_iter(self) -> int:
        """Number of passes over the rows."""
        return len(self.lower_bounds)

    @property
    def lower_bound(self) -> float:
        """The last of `lower_bounds`, in nats per row; -inf before the first pass."""
        return self.lower_bounds[-1] if self.lower_bounds else -math.inf


@dataclass
class RunState:
    """State needed to continue a run.

    Attributes
    ----------
    result : EMResult
        The result so far.
    point : MixtureParameters
        The current parameters: the next pass is made under them.
    proposed : bool
        Whether the accelerator proposed them.
    accelerator : Accelerator or None
    earlier_pass : SufficientStatistics or None
        Of the last pass, if the next one uses them: the tied layout reuses the total scatter, and a pass that computes
        it again differs in the last bits.
    """

    result: EMResult
    point: MixtureParameters
    proposed: bool = False
    accelerator: Accelerator | None = None
    earlier_pass: SufficientStatistics | None = None


class CheckpointState(NamedTuple):
    """State needed to continue a fit that was killed.

    Attributes
    ----------
    run : RunState
        State of its run on all rows.
    light_moves : bool
        Whether light moves may follow; see `FitOptions.tries_light_moves`.
    """

    run: RunState
    light_moves: bool
