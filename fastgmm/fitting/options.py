"""What all runs of a fit have in common: tolerances, M-step, acceleration, where they are kept, who is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fastgmm.data.sources import Source, count_rows
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from . import em
from .em import EMResult
from .squarem import Accelerator, Squarem

# To a tolerance as fine as this, in nats per row, a move that costs little is tried where EM has ended. With samples
# and moves, fits to 1e-4 and 1e-6 end 0.02 nats per row higher than plain EM in the mean, after 1.7 and 2.3 times
# fewer passes (`benchmarks/against_plain.py reporting`).
FINE = 1e-4


# With a tolerance as coarse as this EM ends a few steps after an acceleration would begin. It saved 3 % of the passes,
# and fits ended up to 0.003 nats per row lower, since the EM step after an extrapolation is small.
COARSE = 1e-3


class Acceleration(NamedTuple):
    """How a fit is made to take fewer passes: steps, and whether samples come first and moves last."""

    accelerator: type[Squarem]
    progressive: bool


ACCELERATIONS = {"progressive": Acceleration(Squarem, True), "squarem": Acceleration(Squarem, False)}


class CheckpointState(NamedTuple):
    """What a fit that has been killed continues from.

    Attributes
    ----------
    state : em.State
        Of its run on all rows.
    light_moves : bool
        Whether light moves may follow; see `FitOptions.tries_light_moves`.
    """

    state: em.State
    light_moves: bool


class CheckpointStore(Protocol):
    """Where the last run of a fit is kept after each pass."""

    def begin(self) -> None:
        """A fit begins: raise an error if its state could not be saved."""

    def save(self, kept: CheckpointState) -> None: ...


class FitObserver(Protocol):
    """Who is told of a fit's progress."""

    def start(self, init: int) -> None:
        """A start begins."""

    def note(self, text: str) -> None:
        """What has been done besides passes over all rows."""

    def iteration(self, result: EMResult) -> bool:
        """A pass over all rows has ended; whether to stop."""

    def end(self, result: EMResult) -> None:
        """A run on all rows has ended."""

    def duplicates(self, n_distinct: int) -> None:
        """How many different clusters a start found."""


@dataclass(frozen=True)
class FitOptions:
    """What all runs of a fit have in common; see `em.run`.

    `n_moves` is how often `moves.improve` is tried, `checkpoint` where the last run is kept.
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
        """Whether moves that nobody has asked for are tried where EM has ended."""
        return self.acceleration is not None and self.acceleration.progressive and 0 < self.tol <= FINE

    def _is_coarse(self, tol: float) -> bool:
        """Return whether a run to some tolerance is too short to be accelerated by default."""
        by_default = self.acceleration is not None and self.acceleration.progressive
        return by_default and min(tol, self.tol) >= COARSE and self.limit_tol == math.inf

    def keep(self, *, light_moves: bool) -> Callable[[em.State], None] | None:
        """Return what keeps the state of a run, if it is to be kept."""
        checkpoint = self.checkpoint
        return None if checkpoint is None else lambda state: checkpoint.save(CheckpointState(state, light_moves))

    def step(self, statistics: SufficientStatistics, point: MixtureParameters) -> tuple[MixtureParameters, float]:
        """Return where an M-step leads from a point, given the statistics of rows under it, and the point's bound."""
        parameters, bound = self.objective.step(statistics, point)
        assert parameters is not None  # without a bound to reach there always are some
        return parameters, bound

    def run(self, source: Source, parameters: MixtureParameters, **options: Any) -> EMResult:
        """One run; `options` replace those of `em.run`."""
        accelerator: Accelerator | None = None
        if self.acceleration is not None and not self._is_coarse(options.get("tol", self.tol)):
            accelerator = self.acceleration.accelerator(count_rows(source), self.objective.reg_covar)
        options = {"tol": self.tol, "max_iter": self.max_iter, "limit_tol": self.limit_tol, **options}
        return em.run(source, parameters, objective=self.objective, accelerator=accelerator, **options)
