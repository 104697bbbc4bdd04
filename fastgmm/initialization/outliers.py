"""Rows that a sample of moderate size would miss: a pass that finds them, and samples that have them.

A sample drawn by weight has a rare group of rows with luck only, and then one or two of its rows in place of all.
A mixture fitted to such a sample has no component there, or one at a single row. Rows far from the others are therefore
kept apart: a sample has all of them, each with its own weight, beside rows drawn from the rest.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, IllDefinedCovarianceError
from fastgmm.data.sources import ROWS_PER_SLICE, ArraySource, Source, Weights
from fastgmm.e_step.complete import accumulate
from fastgmm.e_step.given import accumulate_labels
from fastgmm.m_step.maximum_likelihood import maximise
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

# A row is an outlier if its log-density is below that of the `RANK` lowest rows of a sample: of 300,000 rows, and a
# sample of 10,000, about 1,500. Of more rows the rank is lower, so that at most this part of a sample's size is
# expected; below the lowest ranks by so many nats that Gaussian tails have no more rows there.
RANK, LEAST_RANK, SHARE = 50, 3, 0.5


@dataclass(frozen=True)
class PassWithOutliers:
    """The result of a pass over rows: their statistics, and the rows of the lowest log-density.

    Attributes
    ----------
    statistics : SufficientStatistics
    bound : float
        Every row of a log-density below this, in nats, is an outlier.
    max_outliers : int
        The bound is lowered where there would be more.
    rows : (n, D)
        The outliers.
    weights : (n,) or None
    log_prob : (n,)
        Their log-densities, in nats.
    """

    statistics: SufficientStatistics
    bound: float
    max_outliers: int
    rows: NDArray
    weights: Weights
    log_prob: NDArray

    def __add__(self, other: PassWithOutliers) -> PassWithOutliers:
        """Return the pass over the rows of both, whatever their order."""
        weighted = self.weights is not None and other.weights is not None
        both = replace(
            self,
            statistics=self.statistics + other.statistics,
            bound=min(self.bound, other.bound),
            rows=np.concatenate([self.rows, other.rows]),
            weights=np.concatenate([self.weights, other.weights]) if weighted else None,
            log_prob=np.concatenate([self.log_prob, other.log_prob]),
        )
        return both.limited()

    def limited(self) -> PassWithOutliers:
        """Return the same with a bound that so many rows at most are below."""
        bound, log_prob = self.bound, self.log_prob
        if (log_prob < bound).sum() > self.max_outliers:
            bound = min(bound, float(np.partition(log_prob, self.max_outliers)[self.max_outliers]))
        below = log_prob < bound
        if below.all():
            return replace(self, bound=bound)
        weights = None if self.weights is None else self.weights[below]
        return replace(self, bound=bound, rows=self.rows[below], weights=weights, log_prob=log_prob[below])

    def in_order(self) -> tuple[NDArray, Weights]:
        """Return the outliers and their weights sorted by the rows' values, so wherever they came from."""
        order = np.lexsort(self.rows.T)
        return self.rows[order], None if self.weights is None else self.weights[order]


def pass_with_outliers(source: Source, parameters: MixtureParameters, sample: ArraySource) -> PassWithOutliers:
    """Make one pass over all rows that also finds the outliers.

    Parameters
    ----------
    source : Source
    parameters : MixtureParameters
        The mixture whose density says which rows are outliers.
    sample : ArraySource
        Rows drawn from the source by weight; its size limits the number of outliers.
    """
    n_rows = len(sample.X)
    ratio = source.n_weighted / n_rows
    rank = min(RANK, max(LEAST_RANK, int(SHARE * n_rows / ratio)), n_rows)
    log_prob = np.partition(log_density(parameters, sample), rank - 1)
    lower = math.log(max(1.0, rank * ratio / (SHARE * n_rows)))
    bound = float(log_prob[rank - 1]) - lower
    return source.reduce(functools.partial(_pass, parameters, bound, n_rows))


def log_density(parameters: MixtureParameters, rows: ArraySource) -> NDArray[np.float64]:
    """Return the log-density of each row in nats, (n,)."""
    log_prob = np.empty(len(rows.X), rows.dtype)
    # A pass of EM, not `score_samples`: no other kernel has to be compiled, or loaded, for a fit.
    accumulate(parameters, rows.X, log_prob_norm=log_prob)
    return np.nan_to_num(log_prob.astype(np.float64), nan=-np.inf)


def with_outliers(sample: ArraySource, parameters: MixtureParameters, found: PassWithOutliers) -> ArraySource:
    """Return a sample with all outliers in place of those that it happens to have.

    Parameters
    ----------
    sample : ArraySource
        Rows drawn by weight, each of weight 1.
    parameters : MixtureParameters
        The mixture under which the outliers were found.
    found : PassWithOutliers

    Returns
    -------
    ArraySource
        Rows of weight 1, and at its end the outliers with weights relative to those.
    """
    usual = ~(log_density(parameters, sample) < found.bound)
    rows, weights = found.in_order()
    weights = np.ones(len(rows)) if weights is None else weights
    if not len(rows) or not usual.any():
        return sample
    total = found.statistics.total_weight
    unit = (total - weights.sum()) / usual.sum()  # what a row of the sample stands for
    if not unit > 0:
        return sample
    return ArraySource(
        np.concatenate([sample.X[usual], rows]),
        np.concatenate([np.ones(usual.sum()), weights / unit]),
        n_outliers=len(rows),
    )


def representative(source: Source, sample: ArraySource, model: CovarianceModel, reg_covar: float) -> ArraySource:
    """Return a sample with all rows that are far from the others, as one Gaussian fitted to the sample sees them."""
    single = _single_gaussian(sample, model, reg_covar)
    if single is None:
        return sample
    return with_outliers(sample, single, pass_with_outliers(source, single, sample))


def _single_gaussian(sample: ArraySource, model: CovarianceModel, reg_covar: float) -> MixtureParameters | None:
    """Fit one Gaussian to a sample; None if its variances cannot be represented."""
    with np.errstate(all="ignore"):
        variance = float(np.var(sample.X, axis=0, dtype=np.float64).mean())
        if not np.isfinite(variance):
            return None
        labels = np.zeros(len(sample.X), np.int32)
        statistics = accumulate_labels(labels, sample.point_near()[np.newaxis], sample.X, covariance_type=model.name)
        # Equal rows, and features that depend on each other, have a density as well.
        floor = reg_covar + 1e-6 * variance
        try:
            return maximise(statistics, model.name, reg_covar=floor or 1e-30)
        except IllDefinedCovarianceError:
            return None


def _pass(
    parameters: MixtureParameters, bound: float, max_outliers: int, X: NDArray, sample_weight: Weights
) -> PassWithOutliers:
    """Make one pass over a block, in slices, so that of all rows at once no number each is kept."""

    def one(rows: NDArray, weights: Weights) -> PassWithOutliers:
        log_prob = np.empty(len(rows), rows.dtype)
        statistics = accumulate(parameters, rows, weights, log_prob_norm=log_prob, exact_below=bound)
        below = ~(log_prob >= bound)
        if weights is not None:
            below &= weights > 0
        low = np.nan_to_num(log_prob[below].astype(np.float64), nan=-np.inf)
        theirs = None if weights is None else weights[below]
        return PassWithOutliers(statistics, bound, max_outliers, rows[below], theirs, low).limited()

    source = ArraySource(X, sample_weight)
    first, *others = source.slices(ROWS_PER_SLICE)
    return sum((one(*source.part(rows)) for rows in others), start=one(*source.part(first)))
