"""Starts from rows, or micro-clusters of k-means, that are merged; see `hierarchy`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import Source
from fastgmm.e_step.given_responsibilities import accumulate_labels
from fastgmm.m_step.maximum_likelihood import estimate_weights_and_means

from .hierarchy import Hierarchy, hierarchy_of_clusters, hierarchy_of_rows
from .kmeans import lloyd
from .samples import enough_rows
from .seeding import kmeans_plusplus
from .start_contract import Start, StartRequest

Array = NDArray[np.float64]
# Largest number of rows that are merged themselves, and of rows^2 features^3: 0.1 to 0.3 s. More rows form
# micro-clusters.
MERGED_ROWS = 2_000
MERGED_NUMBERS = 1e10
# Number of micro-clusters.
MICRO_CLUSTERS = 500
# Smallest number of micro-clusters per component.
MICRO_CLUSTERS_PER_COMPONENT = 4
# Number of Lloyd's steps that find the micro-clusters.
MICRO_STEPS = 3
# Largest number of entries in the means of the micro-clusters. So with more than 20 features there are fewer than 500.
MICRO_NUMBERS = 10_000


def from_hierarchy(request: StartRequest) -> Start:
    """Start from rows or micro-clusters that are merged to `n_components` clusters."""
    hierarchy = build_hierarchy(request.source, request.n_components, request.stream, request.reg_covar)
    return start_from_hierarchy(hierarchy, request.n_components, request.model, request.reg_covar)


def build_hierarchy(source: Source, n_components: int, stream: RandomStream, reg_covar: float) -> Hierarchy:
    """Return the order in which rows merge, or micro-clusters if there are many rows.

    Parameters
    ----------
    source : Source
    n_components : int
        The largest number of components for which the hierarchy is made; see `hierarchy.shrinkage`.
    stream : RandomStream
        Draws micro-clusters.
    reg_covar : float
    """
    n_rows, n_features = source.n_weighted, source.n_features
    if n_rows > MERGED_ROWS or n_rows**2 * n_features**3 > MERGED_NUMBERS:
        return micro_clusters(source, n_components, stream, reg_covar)
    rows = source.whole()
    return hierarchy_of_rows(rows.X, rows.sample_weight, n_components=n_components, floor=reg_covar)


def micro_clusters(source: Source, n_components: int, stream: RandomStream, reg_covar: float) -> Hierarchy:
    """Return micro-clusters of k-means and the order in which they merge.

    With many rows, they are those of a sample.
    """
    sample = enough_rows(source, n_components, stream, get_model("full"), reg_covar)
    n_micro = min(MICRO_CLUSTERS, MICRO_NUMBERS // source.n_features)
    n_micro = min(max(n_micro, MICRO_CLUSTERS_PER_COMPONENT * n_components), len(sample.X))
    centres, labels = lloyd(sample, kmeans_plusplus(sample, n_micro, stream), max_steps=MICRO_STEPS)
    statistics = accumulate_labels(labels, centres, sample.X, sample.sample_weight, covariance_type="full")
    means = estimate_weights_and_means(statistics)[1]
    scatter = statistics.recentred(means).scatter
    return hierarchy_of_clusters(
        statistics.weight_sums,
        means,
        scatter,
        n_rows=float(sample.n_weighted),
        n_components=n_components,
        floor=reg_covar,
    )


def start_from_hierarchy(hierarchy: Hierarchy, n_components: int, model: CovarianceModel, reg_covar: float) -> Start:
    """Return the start of merged clusters; no row is read."""
    weight_sums, means, scatter = hierarchy.moments(n_components)

    def covariances() -> Array:
        kept = model.form.scatter(scatter)
        return model.covariances(kept, np.maximum(weight_sums, 1e-12), reg_covar=reg_covar)

    return Start(weight_sums / weight_sums.sum(), means, covariances, int(np.count_nonzero(weight_sums)))
