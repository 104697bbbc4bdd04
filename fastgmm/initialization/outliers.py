"""Outliers: the pass that finds them, and samples that contain all of them.

A sample drawn by weight misses a rare group of rows, or has one or two of its rows. A mixture fitted to the sample then
has no component there, or one at a single row. Therefore a sample contains all rows that are far from the others, each
with its own weight, and rows drawn from the rest.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, IllDefinedCovarianceError
from fastgmm.data.sources import ROWS_PER_SLICE, ArraySource, Source, Weights
from fastgmm.e_step.complete_rows import accumulate
from fastgmm.e_step.given_responsibilities import accumulate_labels
from fastgmm.m_step.maximum_likelihood import maximise
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

# A row is an outlier if its log-density is below that of the `RANK`-th lowest row of a sample. With 300,000 rows and a
# sample of 10,000 rows, these are about 1,500 rows.
RANK = 50
# With more rows the rank is lower, down to this one, so that the expected number of outliers is at most `SHARE` times
# the size of the sample. If even this rank gives more, the bound is lowered by the log of the excess, which is enough
# for Gaussian tails.
MIN_RANK = 3
SHARE = 0.5
# Least `reg_covar` of the Gaussian that finds outliers: a part of the mean variance, or this number if that is zero.
RELATIVE_FLOOR = 1e-6
FLOOR = 1e-30


@dataclass(frozen=True)
class PassWithOutliers:
    """The result of a pass: statistics, and the rows of lowest log-density.

    Attributes
    ----------
    statistics : SufficientStatistics
        Of all rows.
    bound : float
        In nats. Every row with a lower log-density is an outlier.
    max_outliers : int
        If there are more outliers, the bound is lowered.
    rows : (n, D)
        The outliers.
    weights : (n,) or None
        Of the outliers.
    log_prob : (n,)
        Log-densities of the outliers, in nats.
    """

    statistics: SufficientStatistics
    bound: float
    max_outliers: int
    rows: NDArray
    weights: Weights
    log_prob: NDArray

    def __add__(self, other: PassWithOutliers) -> PassWithOutliers:
        """Return the result of a pass over the rows of both; their order does not matter."""
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
        """Return the result with at most `max_outliers` rows, lowering the bound."""
        bound, log_prob = self.bound, self.log_prob
        if (log_prob < bound).sum() > self.max_outliers:
            bound = min(bound, float(np.partition(log_prob, self.max_outliers)[self.max_outliers]))
        below = log_prob < bound
        if below.all():
            return replace(self, bound=bound)
        weights = None if self.weights is None else self.weights[below]
        return replace(self, bound=bound, rows=self.rows[below], weights=weights, log_prob=log_prob[below])

    def in_order(self) -> tuple[NDArray, Weights]:
        """Return the outliers and their weights, sorted by the rows' values.

        So the order does not depend on the blocks in which they were found.
        """
        order = np.lexsort(self.rows.T)
        return self.rows[order], None if self.weights is None else self.weights[order]


def pass_with_outliers(source: Source, parameters: MixtureParameters, sample: ArraySource) -> PassWithOutliers:
    """Make one pass over all rows that also finds the outliers.

    Parameters
    ----------
    source : Source
    parameters : MixtureParameters
        Rows of low density under this mixture are outliers.
    sample : ArraySource
        Rows drawn from the source by weight; its size limits the number of outliers.
    """
    n_rows = len(sample.X)
    ratio = source.n_weighted / n_rows
    rank = min(RANK, max(MIN_RANK, int(SHARE * n_rows / ratio)), n_rows)
    log_prob = np.partition(log_density(parameters, sample), rank - 1)
    excess = math.log(max(1.0, rank * ratio / (SHARE * n_rows)))
    bound = float(log_prob[rank - 1]) - excess
    return source.reduce(functools.partial(_pass, parameters, bound, n_rows))


def log_density(parameters: MixtureParameters, rows: ArraySource) -> NDArray[np.float64]:
    """Return the log-density of each row in nats, (n,)."""
    log_prob = np.empty(len(rows.X), rows.dtype)
    # A pass of EM instead of `score_samples`, so that a fit needs no other kernel to be compiled or loaded.
    accumulate(parameters, rows.X, log_prob_norm=log_prob)
    return np.nan_to_num(log_prob.astype(np.float64), nan=-np.inf)


def with_outliers(sample: ArraySource, parameters: MixtureParameters, found: PassWithOutliers) -> ArraySource:
    """Return a sample in which all outliers replace those that were drawn.

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
        Rows of weight 1, then the outliers with weights relative to these.
    """
    usual = ~(log_density(parameters, sample) < found.bound)
    rows, weights = found.in_order()
    weights = np.ones(len(rows)) if weights is None else weights
    if not len(rows) or not usual.any():
        return sample
    total = found.statistics.total_weight
    unit = (total - weights.sum()) / usual.sum()  # the weight of the rows that one row of the sample represents
    if not unit > 0:
        return sample
    return ArraySource(
        np.concatenate([sample.X[usual], rows]),
        np.concatenate([np.ones(usual.sum()), weights / unit]),
        n_outliers=len(rows),
    )


def representative(source: Source, sample: ArraySource, model: CovarianceModel, reg_covar: float) -> ArraySource:
    """Return a sample that contains all rows far from the others.

    These are the rows of low density under one Gaussian fitted to the sample.
    """
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
        # The floor gives a density to equal rows, and to rows whose features depend on each other.
        floor = reg_covar + RELATIVE_FLOOR * variance
        try:
            return maximise(statistics, model.name, reg_covar=floor or FLOOR)
        except IllDefinedCovarianceError:
            return None


def _pass(
    parameters: MixtureParameters, bound: float, max_outliers: int, X: NDArray, sample_weight: Weights
) -> PassWithOutliers:
    """Make one pass over a block, in slices.

    So no array has an entry for each row of the block.
    """

    def pass_over_slice(rows: NDArray, weights: Weights) -> PassWithOutliers:
        log_prob = np.empty(len(rows), rows.dtype)
        statistics = accumulate(parameters, rows, weights, log_prob_norm=log_prob, exact_below=bound)
        below = ~(log_prob >= bound)
        if weights is not None:
            below &= weights > 0
        low = np.nan_to_num(log_prob[below].astype(np.float64), nan=-np.inf)
        weights_below = None if weights is None else weights[below]
        return PassWithOutliers(statistics, bound, max_outliers, rows[below], weights_below, low).limited()

    source = ArraySource(X, sample_weight)
    first, *others = source.slices(ROWS_PER_SLICE)
    return sum((pass_over_slice(*source.part(rows)) for rows in others), start=pass_over_slice(*source.part(first)))
