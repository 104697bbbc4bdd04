"""Starts from responsibilities: random ones, or those of the user."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.data.sources import ArraySource, Weights
from fastgmm.e_step.given_responsibilities import accumulate_labels, accumulate_resp
from fastgmm.m_step.maximum_likelihood import estimate_weights_and_means
from fastgmm.mixture.statistics import SufficientStatistics

from .start_contract import Start, StartRequest, start_from_statistics

Array = NDArray[np.float64]
# Bytes of random responsibilities in memory at a time.
BLOCK_BYTES = 8 * 1024 * 1024
# Smallest number of rows of such a block.
MIN_BLOCK_ROWS = 1024


def from_random_resp(request: StartRequest) -> Start:
    """Start from random responsibilities: every component is nearly like all rows."""
    source, n_components, covariance_type = request.source, request.n_components, request.model.name
    seed, reference = request.stream.word(), np.tile(source.point_near(), (n_components, 1))
    rows_per_block = max(MIN_BLOCK_ROWS, BLOCK_BYTES // (8 * n_components))

    def accumulate_random(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        block, parts = ArraySource(X, sample_weight), []
        for part in block.slices(rows_per_block):
            resp = kernels.random_resp(X, n_components, seed, part.start, part.stop)
            parts.append(accumulate_resp(resp, reference, *block.part(part), covariance_type=covariance_type))
        return sum(parts[1:], start=parts[0])

    return start_from_statistics(source.reduce(accumulate_random), request)


def from_user_resp(user_resp: Any, request: StartRequest) -> Start:
    """Start from the user's labels (N,) or responsibilities (N, K).

    They are in a form that the source accepts.
    """
    source = request.source
    reference = np.tile(source.point_near(), (request.n_components, 1))
    # The first pass finds the means; moments about these have no digits to lose.
    for _ in range(2):
        statistics = source.reduce_with(user_resp, functools.partial(_accumulate, reference, request.model.name))
        reference = estimate_weights_and_means(statistics)[1]
    return start_from_statistics(statistics, request)


def _accumulate(
    reference: Array, covariance_type: str, X: NDArray, sample_weight: Weights, user_resp: NDArray
) -> SufficientStatistics:
    """Return the statistics of a block under labels or responsibilities."""
    accumulate_given = accumulate_labels if user_resp.ndim == 1 else accumulate_resp
    return accumulate_given(user_resp, reference, X, sample_weight, covariance_type=covariance_type)
