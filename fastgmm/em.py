"""The EM loop: statistics, update, stop? There is no other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from .engine import accumulate, maximise, rounding_variance
from .parameters import MixtureParameters
from .sources import ArraySource
from .statistics import SufficientStatistics


@dataclass
class EMResult:
    """What a run of EM came to.

    Attributes
    ----------
    parameters : MixtureParameters
        After the last M-step.
    lower_bounds : list of float
        Mean log-likelihood in nats per row at each E-step, that is, before each M-step.
    converged : bool
        Whether the last change was a rise (to rounding) of less than the tolerance.
    last_change : float
        The last change of the mean log-likelihood.
    """

    parameters: MixtureParameters
    lower_bounds: list[float] = field(default_factory=list)
    converged: bool = False
    last_change: float = math.inf

    @property
    def n_iter(self) -> int:
        """Passes over the rows."""
        return len(self.lower_bounds)

    @property
    def lower_bound(self) -> float:
        return self.lower_bounds[-1] if self.lower_bounds else -math.inf


def sweep(
    source: ArraySource, parameters: MixtureParameters, known: Sequence[SufficientStatistics] = ()
) -> list[SufficientStatistics]:
    """One pass over all rows: the statistics of each block. `known` are those of the previous pass."""
    return [
        accumulate(parameters, X, sample_weight, known=before)
        for (X, sample_weight), before in zip_longest(source.blocks(), known)
    ]


def run(
    source: ArraySource,
    parameters: MixtureParameters,
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    lower_bound: float = -math.inf,
    on_iteration: Callable[[int, float], None] | None = None,
) -> EMResult:
    """Alternate E-steps and M-steps until the mean log-likelihood rises by less than a tolerance.

    A fall is not convergence, nor is NaN; a fall within the rounding of the sum counts as no change.

    Parameters
    ----------
    source : ArraySource
    parameters : MixtureParameters
        Where to start.
    tol : float
        In nats per row; with 0 the loop runs to `max_iter`.
    max_iter : int
        Passes over the rows, at most.
    reg_covar : float
        Added to every variance in the M-step.
    lower_bound : float
        The mean log-likelihood of the start, if it is known from an earlier run.
    on_iteration : callable (n_iter, change), optional
        Called after each M-step.

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    """
    result = EMResult(parameters)
    statistics: list[SufficientStatistics] = []
    rounding = 64 * float(np.finfo(source.X.dtype).eps)
    for n_iter in range(1, max_iter + 1):
        statistics = sweep(source, result.parameters, statistics)
        total = sum(statistics[1:], start=statistics[0])
        previous, lower_bound = lower_bound, total.mean_log_likelihood
        result.parameters = maximise(total, parameters.covariance_type, reg_covar=reg_covar)
        result.lower_bounds.append(lower_bound)
        result.last_change = lower_bound - previous
        if on_iteration is not None:
            on_iteration(n_iter, result.last_change)
        if abs(result.last_change) < tol and result.last_change >= -rounding * max(1.0, abs(lower_bound)):
            result.converged = True
            break
    return result


def degenerate_components(parameters: MixtureParameters, reg_covar: float) -> Iterator[tuple[NDArray[np.intp], str]]:
    """Components that are hardly components any more, and in words what they are.

    Parameters
    ----------
    parameters : MixtureParameters
    reg_covar : float
        What has been added to every variance.

    Yields
    ------
    components : (n,) int
        At least one.
    what : str
    """
    empty = np.flatnonzero(parameters.weights < 1e-12)
    flat = np.setdiff1d(flat_components(parameters, reg_covar), empty)
    if flat.size:
        yield (
            flat,
            (
                "collapsed: their rows are nearly equal in some direction, and only "
                f"{f'reg_covar={reg_covar:g}' if reg_covar else 'rounding'} keeps their variance positive there"
            ),
        )
    if empty.size:
        yield empty, "are empty: no row belongs to them"


def flat_components(parameters: MixtureParameters, reg_covar: float) -> NDArray[np.intp]:
    """Components that are flat in a direction in which the mixture as a whole is not.

    Flat: only `reg_covar`, or with 0 the rounding of the rows, keeps their variance positive there.
    """
    form, (n_components, n_features) = parameters.model.form, parameters.means.shape
    with np.errstate(over="ignore", invalid="ignore"):
        floor = reg_covar + 10 * rounding_variance(parameters.means).max(axis=1)
        # A covariance's smallest eigenvalue is at least 1 / trace(precision): this spares most fits the eigenvectors.
        factor = form.factor(parameters.precisions_cholesky, n_components, n_features)
        if ((factor**2).sum(axis=(1, 2)) * 1.5 * floor < 1).all():
            return np.empty(0, np.intp)
        variance, direction = form.smallest_variance(parameters.covariances, n_components, n_features)
        centred = parameters.means - parameters.weights @ parameters.means
        full = form.full(parameters.covariances, n_components, n_features)
        total = np.einsum("k,kde->de", parameters.weights, full) + (parameters.weights[:, None] * centred).T @ centred
        overall = np.einsum("kd,de,ke->k", direction, total, direction)
        return np.flatnonzero((variance < 1.5 * floor) & (overall > 1000 * floor))
