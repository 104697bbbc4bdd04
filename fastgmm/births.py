"""A component born where rows fit worst, with the first pass of EM over all rows: what a sample has not seen."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import em
from .covariance import IllDefinedCovarianceError
from .engine import accumulate
from .kmeans import Clusters, quick_start
from .moves import least_merge, merge_and_put
from .parameters import MixtureParameters
from .random_stream import Stream
from .sources import ROWS_A_SLICE, ArraySource, Source, Weights
from .statistics import SufficientStatistics

# Rows fit much worse than a sample if their log-likelihood is by so many nats below that of its third worst row (two
# may be of the component that is missing). Of n rows like the sample's m, with tails like a Gaussian's, these are
# 3 n / m exp(-5); a component is born of `MANY` n / m, and of `LEAST`.
WORSE, RANK, MANY, LEAST = 5.0, 3, 0.1, 10


class Point(NamedTuple):
    """Parameters, and the statistics of all rows under them, if they are known."""

    parameters: MixtureParameters
    statistics: SufficientStatistics | None


@dataclass(frozen=True)
class Swept:
    """What a pass leaves: statistics, and rows that fit badly with their weights, in parts; at most so many rows."""

    statistics: SufficientStatistics
    rows: tuple[NDArray, ...]
    weights: tuple[Weights, ...]
    n_rows: int
    most: float

    def __add__(self, other: Swept) -> Swept:
        """The sum; of the rows, once there are too many, the first."""
        statistics = self.statistics + other.statistics
        if self.n_rows and (self.n_rows >= self.most or not other.n_rows):
            return replace(self, statistics=statistics)
        if not self.n_rows:
            return replace(other, statistics=statistics)
        rows, weights = self.rows + other.rows, self.weights + other.weights
        return Swept(statistics, rows, weights, self.n_rows + other.n_rows, self.most)

    @property
    def worst(self) -> ArraySource:
        """The rows, by their contents: in the same order wherever they have come from."""
        X, weights = np.concatenate(self.rows), [w for w in self.weights if w is not None]
        order = np.lexsort(X.T)
        return ArraySource(X[order], np.concatenate(weights)[order] if weights else None)


def birth(source: Source, some: ArraySource, parameters: MixtureParameters) -> Point:
    """Parameters with a component where rows fit much worse than the sample that the parameters were fitted to.

    A component of few rows may be missing from a sample. If enough rows fit so badly (see `WORSE`), the largest of
    three clusters of them becomes a component, and the two that lose least by it become one (Fraley, Raftery & Wehrens,
    2005, Journal of Computational and Graphical Statistics 14, add components at such rows).

    Returns
    -------
    Point
        With the parameters as they are, if there are no such rows, or the likelihood of all rows would fall.
    """
    n_components, n_features = parameters.means.shape
    if n_components < 2:
        return Point(parameters, None)
    log_prob = np.empty(len(some.X), some.dtype)
    accumulate(parameters, some.X, log_prob_norm=log_prob)
    lowest = np.sort(log_prob)[min(RANK, len(log_prob)) - 1]
    swept = source.reduce(
        functools.partial(_sweep_noting, parameters, float(lowest) - WORSE, most_resident=source.most_resident)
    )
    here, worst = Point(parameters, swept.statistics), swept.worst
    if worst.n_samples < max(MANY * source.n_samples / some.n_samples, LEAST):
        return here
    weights = worst.sample_weight
    clusters = Clusters(worst, worst.point_near().astype(worst.X.dtype), 3)
    clusters.assign(quick_start(worst, 3, Stream(0)))
    chosen = clusters.labels == clusters.weight_sums.argmax()
    X, w = worst.X[chosen].astype(np.float64), np.ones(chosen.sum()) if weights is None else weights[chosen]
    mean = w @ X / w.sum()
    centred = X - mean
    # Few or equal rows alone would make a component that is flat, and of any likelihood.
    prior, count = n_features + 2.0, len(X)
    full = parameters.model.form.full(parameters.covariances, n_components, n_features)
    within = np.tensordot(parameters.weights, full, axes=1)
    covariance = (count * ((w[:, np.newaxis] * centred).T @ centred / w.sum()) + prior * within) / (count + prior)
    try:
        born = merge_and_put(parameters, *least_merge(parameters)[0], w.sum() / source.total_weight, mean, covariance)
    except IllDefinedCovarianceError:
        return here
    statistics = em.sweep(source, born)
    return Point(born, statistics) if statistics.log_likelihood > swept.statistics.log_likelihood else here


def _sweep_noting(
    parameters: MixtureParameters, bound: float, X: NDArray, sample_weight: Weights, *, most_resident: float
) -> Swept:
    """One pass over a block, with the rows of a log-likelihood below a bound."""

    def swept(rows: NDArray, weights: Weights) -> Swept:
        log_prob = np.empty(len(rows), rows.dtype)
        statistics = accumulate(parameters, rows, weights, log_prob_norm=log_prob)
        below = log_prob < bound if weights is None else (weights > 0) & (log_prob < bound)
        worst, theirs = rows[below], None if weights is None else weights[below]
        return Swept(statistics, (worst,), (theirs,), len(worst), most_resident)

    # In slices, so that of all rows at once no number each is kept.
    source = ArraySource(X, sample_weight)
    first, *others = source.slices(ROWS_A_SLICE)
    return sum((swept(*source.part(these)) for these in others), start=swept(*source.part(first)))
