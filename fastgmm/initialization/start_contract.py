"""The contract of an initialisation: its request, and the start it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import Source
from fastgmm.m_step.maximum_likelihood import estimate_covariances, estimate_weights_and_means
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StartRequest:
    """The arguments of an initialisation.

    Attributes
    ----------
    source : Source
        The rows. A row of weight w counts as w copies of it.
    n_components : int
    stream : RandomStream
        All random numbers come from it: the same seed gives the same start.
    model : CovarianceModel
    reg_covar : float
        Added to every variance.
    quick : bool
        Whether to make a start of few steps on few rows, since several starts are compared.
    whiten : bool
        Whether distances are those of rows whose covariance is the identity.
    """

    source: Source
    n_components: int
    stream: RandomStream
    model: CovarianceModel
    reg_covar: float
    quick: bool = False
    whiten: bool = False


@dataclass(frozen=True)
class Start:
    """A starting point.

    Attributes
    ----------
    weights : (K,) float64
    means : (K, D) float64
    covariances : callable () -> covariances in the form of the model
        Called only if they are needed: they may be ill-defined where weights and means are not.
    n_distinct : int
        Number of different clusters that k-means has found; the number of components for other initialisations.
    parameters : MixtureParameters or None
        The same as parameters, if they have been computed.
    """

    weights: Array
    means: Array
    covariances: Callable[[], Array]
    n_distinct: int
    parameters: MixtureParameters | None = None


class Initialization(Protocol):
    """A function that makes a start; see `registry.INITIALIZATIONS`."""

    def __call__(self, request: StartRequest, /) -> Start: ...


def start_from_statistics(statistics: SufficientStatistics, request: StartRequest) -> Start:
    """Return the start that is the M-step of statistics."""
    weights, means = estimate_weights_and_means(statistics)

    def covariances() -> Array:
        return estimate_covariances(statistics, request.model, request.reg_covar)

    return Start(weights, means, covariances, len(weights))


def start_from_clusters(statistics: SufficientStatistics, request: StartRequest) -> Start:
    """Return the start that is the M-step of statistics of labelled rows.

    `n_distinct` does not count clusters without rows.
    """
    n_distinct = int(np.count_nonzero(statistics.weight_sums))
    return replace(start_from_statistics(statistics, request), n_distinct=n_distinct)


def start_from_parameters(parameters: MixtureParameters, n_distinct: int) -> Start:
    """Return parameters as a start."""
    return Start(parameters.weights, parameters.means, lambda: parameters.covariances, n_distinct, parameters)
