"""Starts from means: rows drawn at random, or any points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.random_stream import RandomStream, drawer
from fastgmm.data.sources import Source

from .samples import enough_rows, statistics_about_nearest
from .start_contract import Start, StartRequest

Array = NDArray[np.float64]
# Largest number of draws per row, since draws may repeat rows.
DRAWS_PER_ROW = 20


def from_random_rows(request: StartRequest) -> Start:
    """Start from rows drawn by weight."""
    return start_from_points(random_rows(request.source, request.n_components, request.stream), request)


def start_from_points(points: Array, request: StartRequest) -> Start:
    """Return the start from means, (K, D).

    The weights are equal. All covariances are the pooled one about the nearest mean.

    scikit-learn gives these components the covariance ``reg_covar I``, which makes the first iteration a step of
    k-means, depends on the unit of the data, and does not exist for ``reg_covar=0``.
    """
    source, model = request.source, request.model

    def covariances() -> Array:
        statistics = statistics_about_nearest(points, source, model).recentred(points)
        scatter, weight_sums = statistics.scatter, statistics.weight_sums
        if not model.form.is_shared:
            scatter = np.broadcast_to(scatter.sum(axis=0), scatter.shape)
            weight_sums = np.full(len(points), weight_sums.sum())
        return model.covariances(scatter, weight_sums, reg_covar=request.reg_covar)

    return Start(np.full(len(points), 1 / len(points)), points, covariances, len(points))


def random_rows(source: Source, n_rows: int, stream: RandomStream) -> Array:
    """Draw rows by weight, (n_rows, D).

    Equal rows are drawn once, unless that takes too many draws.
    """
    drawn: dict[bytes, NDArray] = {}
    repeated = []
    sample = enough_rows(source, n_rows, stream)
    draw = drawer(sample, stream)
    for _ in range(DRAWS_PER_ROW * n_rows):
        row = sample.X[draw()]
        if drawn.setdefault(row.tobytes(), row) is not row:
            repeated.append(row)
        if len(drawn) == n_rows:
            break
    return np.array([*drawn.values(), *repeated][:n_rows], dtype=np.float64)
