"""Rows that an initialisation reads: samples, and rows nearest to points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.covariance import CovarianceModel
from fastgmm.data.random_stream import RandomStream, at_most
from fastgmm.data.sources import ArraySource, Source, Weights, in_range, squares_leave_range
from fastgmm.e_step.given_responsibilities import accumulate_labels
from fastgmm.mixture.statistics import SufficientStatistics

from .kmeans import Clusters
from .outliers import representative

Array = NDArray[np.float64]
# Number of rows, in all and per component, of a sample. From k-means of such a sample EM reached the likelihood that it
# reaches from k-means of all rows: 200,000 to 273,280 rows, D 3 to 16, K 10 to 64, five seeds.
ENOUGH = 10_000
ENOUGH_PER_COMPONENT = 256


def enough_rows(
    source: Source,
    n_components: int,
    stream: RandomStream,
    model: CovarianceModel | None = None,
    reg_covar: float = 0.0,
) -> ArraySource:
    """Return the rows that an initialisation reads: all, or a sample of many.

    The size of the sample depends on the number of components. Rows are counted, not their weights, which may be in
    any unit; rows of weight 0 are left out.

    Parameters
    ----------
    source : Source
    n_components : int
    stream : RandomStream
    model : CovarianceModel, optional
        If it is given, the sample also has all rows that are far from the others, with weights; see `outliers`.
    reg_covar : float
        Added to the variances of the Gaussian that decides which rows are far.
    """
    enough = max(ENOUGH, ENOUGH_PER_COMPONENT * n_components)
    if source.n_weighted <= enough:
        return in_range(source.whole())
    sample = at_most(source, enough, stream)
    return in_range(sample if model is None else representative(source, sample, model, reg_covar))


def nearest_centres(source: ArraySource, centres: Array) -> NDArray[np.int32]:
    """Return the number of the centre (K, D) nearest to each row, (N,)."""
    if source.X.dtype == np.float32 and squares_leave_range(centres.astype(np.float32)):
        parts = source.each(lambda X, _: nearest_centres(ArraySource(X.astype(np.float64)), centres))
        return np.concatenate(list(parts))
    clusters = Clusters(source, kernels.shift_origin(centres, source.X.dtype), len(centres))
    clusters.assign(centres)
    return clusters.labels


def nearest_rows(source: ArraySource, points: Array) -> NDArray[np.intp]:
    """Return the number of the first row nearest to each point, (K,).

    The points are (K, D).
    """
    rows = np.empty(len(points), np.intp)
    for k, point in enumerate(points):
        rows[k] = ((source.X - point) ** 2).sum(axis=1).argmin()
    return rows


def statistics_about_nearest(centres: Array, source: Source, model: CovarianceModel) -> SufficientStatistics:
    """Return the statistics of rows labelled with the nearest centre.

    The centres are (K, D).
    """

    def accumulate_nearest(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        labels = nearest_centres(ArraySource(X, sample_weight), centres)
        return accumulate_labels(labels, centres, X, sample_weight, covariance_type=model.name)

    return source.reduce(accumulate_nearest)


def total_scatter(source: Source) -> SufficientStatistics:
    """Return the statistics of all rows as one component, in the tied layout.

    They are the same in every pass.
    """
    point = source.point_near()[np.newaxis]

    def accumulate_all(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        return accumulate_labels(np.zeros(len(X), np.int32), point, X, sample_weight, covariance_type="EEE")

    return source.reduce(accumulate_all)
