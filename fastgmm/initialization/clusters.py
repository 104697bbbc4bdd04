"""Starts from k-means and k-means++."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.sources import ArraySource, in_range
from fastgmm.e_step.given_responsibilities import accumulate_labels
from fastgmm.m_step.compiled_problem import CompiledProblem
from fastgmm.m_step.maximum_likelihood import estimate_weights_and_means

from .kmeans import few_rows, kmeans, quick_start
from .points import start_from_points
from .samples import enough_rows, nearest_centres, nearest_rows, statistics_about_nearest
from .seeding import kmeans_plusplus
from .start_contract import Start, StartRequest, start_from_clusters, start_from_parameters
from .whitening import whitened

Array = NDArray[np.float64]
# Number of Lloyd's steps of a quick start.
QUICK_STEPS = 2


def from_kmeans(request: StartRequest) -> Start:
    """Start from the clusters of k-means.

    With many rows the centres are those of a sample, and the clusters those of all rows about these centres. With
    `request.whiten`, the clusters are those of the sample.
    """
    source, n_components, stream, model = request.source, request.n_components, request.stream, request.model
    if request.quick:
        sample = in_range(source.whole())
    else:
        sample = enough_rows(source, n_components, stream, model, request.reg_covar)
    clustered = whitened(sample) if request.whiten else sample
    if request.quick:
        centres = quick_start(few_rows(clustered, n_components, stream), n_components, stream, steps=QUICK_STEPS)
        labels = nearest_centres(clustered, centres)
    else:
        centres, labels = kmeans(clustered, n_components, stream)
    if request.whiten:
        return _from_labels(labels, _means_of(labels, sample, request), sample, request)
    if sample.n_samples == source.n_samples and not sample.n_outliers:
        return _from_labels(labels, centres, sample, request)
    return start_from_clusters(statistics_about_nearest(centres, source, model), request)


def from_kmeans_plusplus(request: StartRequest) -> Start:
    """Start from rows drawn as k-means++ draws them."""
    source, n_components, stream = request.source, request.n_components, request.stream
    sample = enough_rows(source, n_components, stream, request.model, request.reg_covar)
    if not request.whiten:
        return start_from_points(kmeans_plusplus(sample, n_components, stream), request)
    clustered = whitened(sample)
    rows = nearest_rows(clustered, kmeans_plusplus(clustered, n_components, stream))
    return start_from_points(sample.X[rows].astype(np.float64), request)


def _from_labels(labels: NDArray, reference: Array, rows: ArraySource, request: StartRequest) -> Start:
    """Return the start of labelled rows.

    `reference` are points near the components, (K, D).
    """
    problem = CompiledProblem.of(rows, request.model, len(reference)) if request.model.only_averages else None
    if problem is not None:
        problems = problem.problems
        if problems.start_from_labels(labels, reference[np.newaxis], request.reg_covar)[0]:
            problem.keep()
            return start_from_parameters(problem.parameters(), int(np.count_nonzero(problems.weight_sums)))
    covariance_type = request.model.name
    statistics = accumulate_labels(labels, reference, rows.X, rows.sample_weight, covariance_type=covariance_type)
    return start_from_clusters(statistics, request)


def _means_of(labels: NDArray, rows: ArraySource, request: StartRequest) -> Array:
    """Return the means of labelled rows, (K, D)."""
    reference = np.tile(rows.point_near(), (request.n_components, 1))
    covariance_type = request.model.name
    statistics = accumulate_labels(labels, reference, rows.X, rows.sample_weight, covariance_type=covariance_type)
    return estimate_weights_and_means(statistics)[1]
