"""What all runs of a fit have in common: tolerances, M-step, acceleration, where they are kept, who is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from . import em
from .acceleration import Accelerator, Squarem
from .em import EMResult
from .parameters import MixtureParameters
from .sources import Source, count_rows


class Acceleration(NamedTuple):
    """How a fit is made to take fewer passes: steps, and whether samples come first."""

    accelerator: type[Squarem]
    progressive: bool


ACCELERATIONS = {"progressive": Acceleration(Squarem, True), "squarem": Acceleration(Squarem, False)}


class Kept(NamedTuple):
    """What a fit goes on from that has been killed: a run, and what came before it as part of the same fit.

    `pausing` if it was the run until the pause, with another one to come.
    """

    state: em.State
    before: EMResult | None
    pausing: bool = False


class Checkpoint(Protocol):
    """Where the last run of a fit is kept after each pass."""

    def begin(self) -> None:
        """A fit begins: raise an error if its state could not be saved."""

    def save(self, kept: Kept) -> None: ...


class Watcher(Protocol):
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
class Rules:
    """What all runs of a fit have in common; see `em.run`.

    `n_moves` is how often `moves.improve` is tried, `checkpoint` where the last run is kept.
    """

    tol: float
    max_iter: int
    reg_covar: float
    limit_tol: float = math.inf
    acceleration: Acceleration | None = None
    n_moves: int = 0
    update: em.Update | None = None
    checkpoint: Checkpoint | None = None

    def keep(self, before: EMResult | None = None, *, pausing: bool = False) -> Callable[[em.State], None] | None:
        """What keeps the state of a run that goes on from another one, if it is to be kept."""
        checkpoint = self.checkpoint
        return None if checkpoint is None else lambda state: checkpoint.save(Kept(state, before, pausing))

    def run(self, source: Source, parameters: MixtureParameters, **options: Any) -> EMResult:
        """One run; `options` replace those of `em.run`."""
        accelerator: Accelerator | None = None
        if self.acceleration is not None:
            accelerator = self.acceleration.accelerator(count_rows(source), self.reg_covar)
        options = {"tol": self.tol, "max_iter": self.max_iter, "limit_tol": self.limit_tol, **options}
        return em.run(
            source, parameters, reg_covar=self.reg_covar, accelerator=accelerator, update=self.update, **options
        )
