"""Options of all runs of a fit, and protocols of those who save and watch it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fastgmm.data.sources import Source, count_rows
from fastgmm.m_step.objective import Objective

from .run_state import CheckpointState, EMResult, RunState
from .squarem import Accelerator, Squarem

# With a tolerance of at most this, in nats per row, a light move is tried after EM. With samples and moves, fits to
# 1e-4 end 0.02 nats per row higher than plain EM on average (`benchmarks/against_plain.py reporting`).
LIGHT_MOVES_TOL = 1e-4
# With a tolerance of at least this, in nats per row, EM ends a few steps after extrapolation would begin: it saved 3 %
# of the passes, and fits ended up to 0.003 nats per row lower, because the EM step after an extrapolation is small.
UNACCELERATED_TOL = 1e-3


class Acceleration(NamedTuple):
    """A way to make a fit with fewer passes over all rows.

    Attributes
    ----------
    accelerator : type
        Of the runs of EM.
    progressive : bool
        Whether EM runs on samples first, and light moves follow.
    """

    accelerator: type[Squarem]
    progressive: bool


ACCELERATIONS = {"progressive": Acceleration(Squarem, True), "squarem": Acceleration(Squarem, False)}


class CheckpointStore(Protocol):
    """Contract of those who save the state of a fit after each pass of its last run."""

    def begin(self) -> None:
        """Check, when a fit begins, that its state can be saved; raise an error if not."""

    def save(self, state: CheckpointState) -> None:
        """Save a state in place of the one before."""


class FitObserver(Protocol):
    """Contract of those who are told of the progress of a fit."""

    def start(self, init: int) -> None:
        """Note that a start begins."""

    def note(self, text: str) -> None:
        """Note work other than passes over all rows."""

    @property
    def on_iteration(self) -> Callable[[EMResult], bool] | None:
        """A function that notes the end of a pass over all rows and returns whether to stop; None if none is needed."""

    def end(self, result: EMResult) -> None:
        """Note the end of a run on all rows."""

    def duplicates(self, n_distinct: int) -> None:
        """Note the number of different clusters that a start has found."""


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
        Largest number of passes over all rows.
    limit_tol : float
        A run ends only if the estimated limit is nearer than this, in nats per row.
    acceleration : Acceleration or None
    n_moves : int
        Number of moves that the user has asked for; see `split_merge.improve`.
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
        """Return whether light moves are tried after EM, unasked."""
        return self.acceleration is not None and self.acceleration.progressive and 0 < self.tol <= LIGHT_MOVES_TOL

    def make_accelerator(self, source: Source, tol: float) -> Accelerator | None:
        """Return a new accelerator for a run to a tolerance; None for plain EM.

        With the default acceleration, fits to a coarse tolerance are plain EM.
        """
        if self.acceleration is None:
            return None
        if self.acceleration.progressive and min(tol, self.tol) >= UNACCELERATED_TOL and self.limit_tol == math.inf:
            return None
        return self.acceleration.accelerator(count_rows(source), self.objective.reg_covar)

    def save_state(self, *, light_moves: bool) -> Callable[[RunState], None] | None:
        """Return a function that saves the state of a run; None without a checkpoint."""
        checkpoint = self.checkpoint
        return None if checkpoint is None else lambda state: checkpoint.save(CheckpointState(state, light_moves))
