"""Rows in coordinates in which their covariance is the identity."""

from __future__ import annotations

import numpy as np

from fastgmm.data.sources import ArraySource

# A direction counts as without variance if its variance is at most this part of the largest.
SMALLEST_VARIANCE = 1e-12


def whitened(source: ArraySource) -> ArraySource:
    """Return the rows in coordinates in which their covariance is the identity.

    k-means of them finds the same clusters in any units, and finds long parallel clusters that it would cut in pieces
    otherwise (Murtagh & Raftery, 1984, Pattern Recognition 17; mclust's default since version 5.4 is the same).
    Directions without variance are left out.
    """
    X, weights = source.X.astype(np.float64), source.sample_weight
    centred = X - source.point_near()
    # First to standard deviations, by way of numbers that can be squared: units may be anything.
    for scale in (np.abs(centred).max(axis=0), None):
        centred -= np.average(centred, axis=0, weights=weights)
        scale = np.sqrt(np.average(centred**2, axis=0, weights=weights)) if scale is None else scale
        centred /= np.where(scale > 0, scale, 1.0)
    total = (centred if weights is None else weights[:, np.newaxis] * centred).T @ centred / source.total_weight
    values, vectors = np.linalg.eigh(total)
    has_variance = values > SMALLEST_VARIANCE * values[-1]
    if not has_variance.any():
        return source
    root = vectors[:, has_variance] / np.sqrt(values[has_variance])
    X = np.ascontiguousarray(centred @ root, dtype=source.X.dtype)
    return ArraySource(X, weights, n_outliers=source.n_outliers)
