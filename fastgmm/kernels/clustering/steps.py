"""The kernels of k-means as functions of plain arrays.

They are a step of k-means++, a Lloyd step, and whole starts on few rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastgmm.kernels.tiles.rows import rows_view, tiling, weights_view

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


class KMeansResults(NamedTuple):
    """Results of k-means for P problems.

    rows : (P, K) int64
        The rows drawn by k-means++, counted from the problem's first.
    centres : (P, K, D) float64
    inertia : (P,) float64
        Weighted sum of squared distances to the nearest centres; undefined without steps.
    labels : (n_labels,) int32
        Number of each row's nearest centre, problem after problem; undefined without steps.
    """

    rows: np.ndarray
    centres: np.ndarray
    inertia: np.ndarray
    labels: np.ndarray


class KMeansLimits(NamedTuple):
    """Limits of k-means; see `quick_kmeans.kmeans_chunk`.

    n_short_steps, n_steps : int
        Lloyd's steps of each of several starts, and of the best.
    tolerance : float
        Lloyd's steps end when the sum of squared moves is at most this part of the mean variance of the features.
    farthest : float
        Upper bound for squared distances, so that their sums are finite.
    """

    n_short_steps: int
    n_steps: int
    tolerance: float
    farthest: float


def kmeans_problems(
    X: np.ndarray,
    sample_weight: ArrayLike | None,
    parts: np.ndarray,
    uniforms: np.ndarray,
    n_clusters: int,
    limits: KMeansLimits,
    *,
    centres: np.ndarray | None = None,
) -> KMeansResults:
    """Run k-means on parts of the rows, each of which fits in cache.

    Flops: 3 N D K (2 + log K) for each start of k-means++, 3 N D K for each Lloyd step. Cache: the rows of a part in
    L2.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) or None
    parts : (P, 2) int
        The first row of each part, and the row after its last. Parts may overlap.
    uniforms : (P, n_starts, 1 + (n_clusters - 1) L)
        Random numbers in [0, 1): the first draws the first centre, then L at a time draw the candidates for the next.
    n_clusters : int
    limits : KMeansLimits
        A cluster that loses all its rows gets the row farthest from its centre.
    centres : (P, K, D) float64, optional
        The centres that Lloyd's steps begin with. No row is drawn.

    Returns
    -------
    KMeansResults
    """
    rows, n_features, n_problems = rows_view(X), X.shape[1], len(parts)
    weights, scale = weights_view(sample_weight, len(X))
    sizes = parts[:, 1] - parts[:, 0]
    n_numbers = uniforms.shape[2] if centres is None else 0
    n_trials = max(1, (n_numbers - 1) // max(1, n_clusters - 1))
    scratch_rows = 4 + n_features + n_trials
    unique, which = (sizes[:1], np.zeros(n_problems, int)) if len(sizes) == 1 else np.unique(sizes, return_inverse=True)
    widths = np.array([tiling(int(n), scratch_rows, rows.flat.dtype, multiply_adds=0).width for n in unique])[which]
    label_ends = np.cumsum(sizes)
    if centres is None:
        centres, uniforms = np.empty((n_problems, n_clusters, n_features)), np.ascontiguousarray(uniforms)
    else:
        centres, uniforms = np.array(centres, np.float64), np.empty((n_problems, 1, 0))
    results = KMeansResults(
        np.empty((n_problems, n_clusters), np.int64), centres, np.empty(n_problems), np.empty(label_ends[-1], np.int32)
    )
    n_starts = uniforms.shape[1]
    quick_kmeans.problems(
        n_problems,
        *rows,
        weights,
        np.ascontiguousarray(parts[:, 0], np.int64),
        np.ascontiguousarray(parts[:, 1], np.int64),
        np.ascontiguousarray(widths, np.int64),
        np.ascontiguousarray(label_ends - sizes, np.int64),
        uniforms,
        limits.n_short_steps,
        limits.n_steps,
        np.array([limits.tolerance, limits.farthest]),
        *results,
        multiply_adds=2 * int(label_ends[-1]) * n_features * n_starts * n_clusters * (n_trials + limits.n_steps / 8),
    )
    return results._replace(inertia=scale * results.inertia)


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
