"""Options that all runs of a fit have in common, and the protocols of those who save and watch a fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fastgmm.data.sources import Source, count_rows
from fastgmm.m_step.objective import Objective

from .run_state import CheckpointState, EMResult, RunState
from .squarem import Accelerator, Squarem

# With a tolerance as fine as this, in nats per row, a move that costs little is tried where EM has ended. With samples
# and moves, fits to 1e-4 and 1e-6 end 0.02 nats per row higher than plain EM in the mean, after 1.7 and 2.3 times
# fewer passes (`benchmarks/against_plain.py reporting`).
FINE = 1e-4
# With a tolerance as coarse as this, EM ends a few steps after an acceleration would begin. It saved 3 % of the passes,
# and fits ended up to 0.003 nats per row lower, since the EM step after an extrapolation is small.
COARSE = 1e-3


class Acceleration(NamedTuple):
    """How a fit is made to take fewer passes: the accelerator, and whether samples come first and moves last."""

    accelerator: type[Squarem]
    progressive: bool


ACCELERATIONS = {"progressive": Acceleration(Squarem, True), "squarem": Acceleration(Squarem, False)}


class CheckpointStore(Protocol):
    """Saves the state of the last run of a fit after each pass."""

    def begin(self) -> None:
        """Check, when a fit begins, that its state can be saved; raise an error if not."""

    def save(self, kept: CheckpointState) -> None:
        """Save the state in place of the one before."""


class FitObserver(Protocol):
    """Is told of a fit's progress."""

    def start(self, init: int) -> None:
        """Note that a start begins."""

    def note(self, text: str) -> None:
        """Note work other than passes over all rows."""

    def iteration(self, result: EMResult) -> bool:
        """Note the end of a pass over all rows; return whether to stop."""

    def end(self, result: EMResult) -> None:
        """Note the end of a run on all rows."""

    def duplicates(self, n_distinct: int) -> None:
        """Note how many different clusters a start has found."""


@dataclass(frozen=True)
class FitOptions:
    """Options that all runs of a fit have in common.

    Attributes
    ----------
    objective : Objective
        The M-step, and the bound that it raises.
    tol : float
        A run ends when an EM step changes the bound by less, in nats per row.
    max_iter : int
        At most so many passes over all rows.
    limit_tol : float
        A run ends only if the estimated limit is nearer than this, in nats per row.
    acceleration : Acceleration or None
    n_moves : int
        How often `split_merge.improve` is tried.
    checkpoint : CheckpointStore or None
        Saves the state of the last run.
    """

    objective: Objective
    tol: float
    max_iter: int
    limit_tol: float = math.inf
    acceleration: Acceleration | None = None
    n_moves: int = 0
    checkpoint: CheckpointStore | None = None

    @property
    def tries_light_moves(self) -> bool:
        """Whether moves that the user has not asked for are tried where EM has ended."""
        return self.acceleration is not None and self.acceleration.progressive and 0 < self.tol <= FINE

    def make_accelerator(self, source: Source, tol: float) -> Accelerator | None:
        """Return a new accelerator for a run to some tolerance; None if there is to be none.

        By default, fits to a coarse tolerance have none.
        """
        if self.acceleration is None:
            return None
        if self.acceleration.progressive and min(tol, self.tol) >= COARSE and self.limit_tol == math.inf:
            return None
        return self.acceleration.accelerator(count_rows(source), self.objective.reg_covar)

    def save_state(self, *, light_moves: bool) -> Callable[[RunState], None] | None:
        """Return a function that saves the state of a run; None if there is no checkpoint."""
        checkpoint = self.checkpoint
        return None if checkpoint is None else lambda state: checkpoint.save(CheckpointState(state, light_moves))
