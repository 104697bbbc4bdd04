"""The state of a run of EM: its result so far, and what is needed to continue it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .squarem import Accelerator


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
    trend : list of float
        How the bound changed in the last steps; see `kernels.new_trend`.
    """

    parameters: MixtureParameters
    lower_bounds: list[float] = field(default_factory=list)
    converged: bool = False
    stopped: bool = False
    interrupted: bool = False
    rounding: float = 0.0
    n_earlier: int = 0
    floor: float = -math.inf
    trend: list[float] = field(default_factory=kernels.new_trend)

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
        kernels.record_bound(self.trend, bound, step)
        self.parameters = updated
        self.lower_bounds.append(max(bound, self.floor))
        if step:
            amplification = updated.amplification() if kernels.is_small_fall(self.trend) else 0.0
            kernels.mark_rounding(self.trend, self.rounding, amplification)

    def extend(self, parameters: MixtureParameters, bounds: NDArray, trend: NDArray) -> None:
        """Record passes that compiled code has made.

        Parameters
        ----------
        parameters : MixtureParameters
            After the last M-step.
        bounds : (n,) float64
            The bound at each point, in nats per row.
        trend : (kernels trend size,) float64
            The trend after the last of them.
        """
        self.parameters, self.trend = parameters, trend.tolist()
        self.lower_bounds.extend(np.maximum(bounds, self.floor).tolist())

    def reject(self) -> None:
        """Record a pass at a proposal of an accelerator that was rejected."""
        self.lower_bounds.append(max(self.bound, self.floor))

    def is_settled(self, tol: float, limit_tol: float) -> bool:
        """Return whether the run has converged.

        The last change must be smaller than `tol`, and the estimated limit nearer than `limit_tol`. The change may be a
        fall, as in scikit-learn. If `reg_covar` is not small, EM steps converge to a point where the likelihood does
        not have its maximum, and every step lowers it by less than the step before.
        """
        return kernels.is_settled(self.trend, tol, limit_tol)

    @property
    def last_change(self) -> float:
        """The last change of the bound, in nats per row."""
        return self.trend[kernels.LAST_CHANGE]

    @property
    def remaining(self) -> float:
        """Estimate of how far the bound is below its limit, in nats per row; infinite if there is no estimate."""
        return self.trend[kernels.REMAINING]

    @property
    def bound(self) -> float:
        """The last bound without the floor, in nats per row; -inf before the first pass."""
        return self.trend[kernels.BOUND]

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

    def record(self, updated: MixtureParameters | None, bound: float) -> None:
        """Record the M-step from the current point, or reject the point if there is none.

        Parameters
        ----------
        updated : MixtureParameters or None
        bound : float
            At the point, in nats per row.
        """
        if self.accelerator is not None and self.proposed:
            self.accelerator.judge(updated is not None)
        if updated is None:
            self.result.reject()
        else:
            self.result.record(updated, bound, step=not self.proposed)


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
