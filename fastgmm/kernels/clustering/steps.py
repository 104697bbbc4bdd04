"""The kernels of k-means as functions of plain arrays.

They are a step of k-means++, a Lloyd step, and whole starts on few rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastgmm.kernels.tiles.rows import read_only, rows_view, tiling, weights_view

from . import kmeans, quick_kmeans


def seed_step(
    X: np.ndarray,
    sample_weight: ArrayLike | None,
    origin: np.ndarray,
    candidates: np.ndarray,
    latest: np.ndarray,
    closest: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Return the potential that each candidate of a k-means++ step would leave.

    The potential is the weighted sum of the squared distances to the nearest centre. Flops: a difference and a
    multiply-add per row, point and feature. Cache: a tile and its distances in L2.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) or None
    origin : (D,) of X's dtype
        Subtracted from every row.
    candidates : (L, D) of X's dtype
        Relative to the origin.
    latest : (0 or 1, D) of X's dtype
        The latest centre, if any, relative to the origin.
    closest : (N,) of X's dtype
        Squared distance of every row to the nearest centre so far; updated with `latest`.

    Returns
    -------
    potential : (n_tiles, 1 + L) float64
        Potential by tile: of the centres so far, and of these with each candidate.
    width : int
        Rows of a tile.
    """
    rows = rows_view(X)
    points = np.concatenate([latest, candidates])
    multiply_adds = 2 * X.size * len(points)
    plan = tiling(len(X), 4 + X.shape[1] + len(points), rows.flat.dtype, multiply_adds=multiply_adds)
    rows_per_chunk = -(-plan.rows_per_chunk // plan.width) * plan.width  # whole tiles
    potential = np.zeros((-(-len(X) // plan.width), 1 + len(candidates)))
    weights, scale = weights_view(sample_weight, len(X))
    kmeans.seed(
        -(-len(X) // rows_per_chunk),
        *rows,
        len(X),
        rows_per_chunk,
        plan.width,
        weights,
        origin,
        points,
        len(latest),
        closest,
        potential,
        scratch=plan.scratch,
        multiply_adds=multiply_adds,
    )
    return scale * potential, plan.width


class KMeansStarts(NamedTuple):
    """Starts of k-means on few rows.

    rows : (n_starts, K) int64
        The rows drawn by k-means++.
    centres : (n_starts, K, D) of X's dtype
        Centres after Lloyd's steps, relative to the origin.
    inertia : (n_starts,) float64
        Weighted sum of squared distances to the nearest centre; 0 without steps.
    """

    rows: np.ndarray
    centres: np.ndarray
    inertia: np.ndarray


def kmeans_starts(
    X: np.ndarray,
    sample_weight: ArrayLike | None,
    origin: np.ndarray,
    uniforms: np.ndarray,
    n_clusters: int,
    *,
    n_steps: int,
    farthest: float,
) -> KMeansStarts:
    """Make starts of k-means from rows that fit in cache.

    A start is k-means++ and then Lloyd steps. Flops: 3 N D K (2 + log K) per start for k-means++, 3 N D K for each
    Lloyd step. Cache: all rows in L2.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) or None
    origin : (D,) of X's dtype
        Subtracted from every row.
    uniforms : (n_starts, 1 + (n_clusters - 1) L)
        Random numbers in [0, 1): the first draws the first centre, then L at a time draw the candidates for the next.
    n_clusters : int
    n_steps : int
        Lloyd steps; a cluster that loses all its rows gets the row farthest from its centre.
    farthest : float
        Upper bound for squared distances, so that their sums are finite.

    Returns
    -------
    starts : KMeansStarts
    """
    (n_samples, n_features), dtype = X.shape, origin.dtype
    n_starts, n_trials = len(uniforms), max(1, (uniforms.shape[1] - 1) // max(1, n_clusters - 1))
    plan = tiling(n_samples, 4 + n_features + n_trials, dtype, multiply_adds=0)
    n_tiles = -(-n_samples // plan.width)
    weights, scale = weights_view(sample_weight, n_samples)
    tiles, weight = np.zeros((n_tiles, n_features, plan.width), dtype), np.zeros((n_tiles, plan.width), dtype)
    for t in range(n_tiles):
        rows = slice(t * plan.width, min((t + 1) * plan.width, n_samples))
        np.subtract(X[rows].T, origin[:, np.newaxis], out=tiles[t, :, : rows.stop - rows.start])
        weight[t, : rows.stop - rows.start] = 1 if sample_weight is None else weights[rows]
    starts = KMeansStarts(
        np.empty((n_starts, n_clusters), np.int64),
        np.empty((n_starts, n_clusters, n_features), dtype),
        np.zeros(n_starts),
    )
    quick_kmeans.starts(
        n_starts,
        read_only(tiles),
        read_only(weight),
        read_only(np.ascontiguousarray(uniforms)),
        n_steps,
        np.empty((n_starts, n_trials), np.int64),
        np.empty((n_starts, n_trials, n_features), dtype),
        np.empty((n_starts, n_tiles, n_trials, plan.width), dtype),
        np.full((n_starts, n_tiles, plan.width), farthest, dtype),
        np.empty((n_starts, n_tiles, plan.width), dtype),
        np.empty((n_starts, n_tiles, n_trials)),
        np.empty((n_starts, n_clusters, 1 + n_features)),
        *starts,
        multiply_adds=2 * X.size * n_starts * n_clusters * (n_trials + n_steps),
    )
    return starts._replace(inertia=scale * starts.inertia)


def lloyd_step(
    X: np.ndarray,
    sample_weight: ArrayLike | None,
    origin: np.ndarray,
    centres: np.ndarray,
    gap_decrease: np.ndarray,
    labels: np.ndarray,
    gap: np.ndarray,
    *,
    distances: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Update the rows' labels after the centres have moved.

    Only rows whose label may have changed are recomputed. Flops: a difference and a multiply-add per recomputed row,
    centre and feature. Cache: a tile and its rows in L2, the centres in L1 or L2.

    Parameters
    ----------
    X, sample_weight, origin
        As for `seed_step`.
    centres : (K, D) of X's dtype
        Relative to the origin.
    gap_decrease : (K,) float32
        Decrease of the gap of each centre's rows at this step: the distance that the centre has moved, plus the largest
        that any other centre has moved.
    labels : (N,) int32
        Index of the nearest centre, the first of equals; updated. A negative label marks a new row.
    gap : (N,) float32
        Lower bound for the difference of the distances to the second nearest and the nearest centre; updated.
    distances : (N,) of X's dtype, optional
        Receives the squared distances of recomputed rows to their nearest centre.

    Returns
    -------
    weight_sums : (K,) float64
        Changes of the weights of the centres' rows.
    first : (K, D) float64
        Changes of the weighted sums of the rows' differences from the origin.
    inertia : float
        Weighted sum of squared distances of recomputed rows; of all rows if all are new.
    """
    rows = rows_view(X)
    n_components, n_features = centres.shape
    partial_bytes = 8 * n_components * (n_features + 1)
    multiply_adds = 2 * X.size * n_components
    plan = tiling(len(X), kmeans.lloyd_scratch_rows(n_features), rows.flat.dtype, partial_bytes, multiply_adds)
    weight_sums, first = np.zeros((plan.n_chunks, n_components)), np.zeros((plan.n_chunks, n_components, n_features))
    inertia = np.zeros(plan.n_chunks)
    weights, scale = weights_view(sample_weight, len(X))
    kmeans.lloyd(
        plan.n_chunks,
        *rows,
        len(X),
        plan.rows_per_chunk,
        plan.width,
        weights,
        origin,
        centres,
        gap_decrease,
        labels,
        gap,
        np.empty(0, rows.flat.dtype) if distances is None else distances,
        weight_sums,
        first,
        inertia,
        scratch=plan.scratch,
        multiply_adds=multiply_adds,
    )
    return scale * weight_sums.sum(axis=0), scale * first.sum(axis=0), scale * float(inertia.sum())
