"""The contract of an M-step: what a run of EM raises, and how."""

from __future__ import annotations

from typing import Protocol

from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics


class Update(Protocol):
    """An M-step, and the bound of the likelihood that it is meant to raise."""

    def __call__(
        self, statistics: SufficientStatistics, point: MixtureParameters, least: float | None, /
    ) -> tuple[MixtureParameters | None, float]: ...
