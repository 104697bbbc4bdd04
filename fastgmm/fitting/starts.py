"""Starts of a fit: the parameters from which EM runs, made from a seed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from fastgmm.data.random_stream import RandomStream, sample
from fastgmm.data.sources import Source
from fastgmm.initialization.registry import INITIALIZATIONS, initial_parameters
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters

from . import sample_sizes
from .options import FitOptions
from .short_runs import STEPS_PER_ROUND, short_runs

# Values of `init_params`: the registered initialisations, and the best of several short runs.
INIT_PARAMS = frozenset({*INITIALIZATIONS, "small_em"})
# Starts that are compared on a sample, the start of plain EM among them. With 4 starts, 1 of 20 seeds missed a cluster
# of an easy mixture; with 2 and with 3 starts, 3 of 20.
N_TRIES = 4
# Starts for other values of `init_params`. "small_em" compares as many to make one start.
N_TRIES_BY_INIT = {"small_em": 10, "hc": 1}


@dataclass(frozen=True)
class Starts:
    """The way in which the starts of a fit are made.

    Attributes
    ----------
    n_components : int
    objective : Objective
    init_params : str
        As for `initialization.registry.initial_parameters`, or "small_em": the best of several short runs.
    whiten : bool
        As for `initial_parameters`.
    user_start : dict
        What the user has set: "weights", "means", "precisions" or "resp", as for `initial_parameters`.
    """

    n_components: int
    objective: Objective
    init_params: str
    whiten: bool = False
    user_start: dict[str, Any] = field(default_factory=dict)

    @property
    def mixture(self) -> tuple[int, str]:
        """The number of components and the covariance type."""
        return self.n_components, self.objective.covariance_type

    @property
    def is_random(self) -> bool:
        """Return whether the start depends on the seed."""
        return "resp" not in self.user_start and len(self.user_start) < 3

    @property
    def n_tries(self) -> int:
        """The number of starts that are compared on a sample."""
        return N_TRIES_BY_INIT.get(self.init_params, N_TRIES)

    def make(self, source: Source, seed: int, *, quick: bool = False) -> tuple[MixtureParameters, int]:
        """Make a start.

        Parameters
        ----------
        source : Source
        seed : int
        quick : bool
            As for `initial_parameters`. A quick start makes no short runs.

        Returns
        -------
        parameters : MixtureParameters
        n_distinct : int
            The number of different clusters that were found.

        Raises
        ------
        IllDefinedCovarianceError
            If a covariance of the start is not positive definite.
        """
        if self.init_params == "small_em" and not quick and self.is_random:
            return self._best_of_short_runs(source, RandomStream(seed))
        return initial_parameters(
            source,
            self.n_components,
            self.objective,
            init_params="kmeans" if self.init_params == "small_em" else self.init_params,
            seed=seed,
            quick=quick,
            whiten=self.whiten,
            **self.user_start,
        )

    def _best_of_short_runs(self, source: Source, stream: RandomStream) -> tuple[MixtureParameters, int]:
        """Return the best of several quick starts, with many rows on a sample."""
        sizes = sample_sizes.growing(source, *self.mixture, min_ratio=1)
        rows = sample(source, sizes[0], stream) if sizes else source
        options = FitOptions(self.objective, tol=0.0, max_iter=sum(STEPS_PER_ROUND))
        make_start = functools.partial(self.make, rows, quick=True)
        return short_runs(rows, make_start, options, draw_seeds(stream, self.n_tries))


def draw_seeds(stream: RandomStream, n_seeds: int) -> list[int]:
    """Return the next seeds of a random stream, of 64 bits each."""
    return [stream.word() for _ in range(n_seeds)]
