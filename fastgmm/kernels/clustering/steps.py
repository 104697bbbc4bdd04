"""The kernels of k-means as functions of plain arrays: a step of k-means++, a step of Lloyd's, whole starts."""

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
    """One step of k-means++: what each candidate would leave of the sum of squared distances.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) or None
    origin : (D,) of X's dtype
        Subtracted from every row.
    candidates : (L, D) of X's dtype
        Relative to the origin.
    latest : (0 or 1, D) of X's dtype
        The centre that was chosen last, relative to the origin.
    closest : (N,) of X's dtype
        Squared distance of every row to the nearest centre so far; brought up to date with `latest`.

    Returns
    -------
    potential : (n_tiles, 1 + L) float64
        Weighted sums of squared distances, tile by tile: to the centres so far, and to those and each candidate.
    width : int
        The rows of a tile.
    """
    rows = rows_view(X)
    points = np.concatenate([latest, candidates])
    operations = 2 * X.size * len(points)
    cut = tiling(len(X), 4 + X.shape[1] + len(points), rows.flat.dtype, operations=operations)
    rows_per_chunk = -(-cut.rows_per_chunk // cut.width) * cut.width
    potential = np.zeros((-(-len(X) // cut.width), 1 + len(candidates)))
    weights, scale = weights_view(sample_weight, len(X))
    kmeans.seed(
        -(-len(X) // rows_per_chunk),
        *rows,
        len(X),
        rows_per_chunk,
        cut.width,
        weights,
        origin,
        points,
        len(latest),
        closest,
        potential,
        scratch=cut.scratch,
        operations=operations,
    )
    return scale * potential, cut.width


class KMeansStarts(NamedTuple):
    """Starts of k-means.

    rows : (n_starts, K) int64
        The rows that k-means++ has drawn.
    centres : (n_starts, K, D) of X's dtype
        Where Lloyd's steps lead from there, relative to the origin.
    inertia : (n_starts,) float64
        The weighted sum of squared distances to the nearest of them; 0 without steps.
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
    """Make some starts of k-means from few rows, that fit in cache: k-means++, and some of Lloyd's steps.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) or None
    origin : (D,) of X's dtype
        Subtracted from every row.
    uniforms : (n_starts, 1 + (n_clusters - 1) L)
        Numbers in [0, 1): the first says which row is the first centre, then each L which rows are candidates for the
        next.
    n_clusters : int
    n_steps : int
        Lloyd's steps; a cluster that loses all its rows gets the row farthest from its centre.
    farthest : float
        No squared distance counts for more, so that sums of them are finite.
    """
    (n_samples, n_features), dtype = X.shape, origin.dtype
    n_starts, n_trials = len(uniforms), max(1, (uniforms.shape[1] - 1) // max(1, n_clusters - 1))
    cut = tiling(n_samples, 4 + n_features + n_trials, dtype, operations=0)
    n_tiles = -(-n_samples // cut.width)
    weights, scale = weights_view(sample_weight, n_samples)
    tiles, weight = np.zeros((n_tiles, n_features, cut.width), dtype), np.zeros((n_tiles, cut.width), dtype)
    for t in range(n_tiles):
        rows = slice(t * cut.width, min((t + 1) * cut.width, n_samples))
        np.subtract(X[rows].T, origin[:, np.newaxis], out=tiles[t, :, : rows.stop - rows.start])
        weight[t, : rows.stop - rows.start] = 1 if sample_weight is None else weights[rows]
    found = KMeansStarts(
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
        np.empty((n_starts, n_tiles, n_trials, cut.width), dtype),
        np.full((n_starts, n_tiles, cut.width), farthest, dtype),
        np.empty((n_starts, n_tiles, cut.width), dtype),
        np.empty((n_starts, n_tiles, n_trials)),
        np.empty((n_starts, n_clusters, 1 + n_features)),
        *found,
        operations=2 * X.size * n_starts * n_clusters * (n_trials + n_steps),
    )
    return found._replace(inertia=scale * found.inertia)


def lloyd_step(
    X: np.ndarray,
    sample_weight: ArrayLike | None,
    origin: np.ndarray,
    centres: np.ndarray,
    lost: np.ndarray,
    labels: np.ndarray,
    gap: np.ndarray,
    *,
    distances: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bring the rows' labels up to date with centres that have moved.

    Parameters
    ----------
    X, sample_weight, origin
        As for `seed_step`.
    centres : (K, D) of X's dtype
        Relative to the origin.
    lost : (K,) float32
        What a row of each centre loses of its gap at this step: how far this centre has moved, and how far the one of
        the others that has moved farthest.
    labels : (N,) int32
        The number of the nearest centre, the first of equals; brought up to date. Rows with a negative one are new.
    gap : (N,) float32
        A bound for how much farther the second nearest centre is than the nearest; brought up to date.
    distances : (N,) of X's dtype, optional
        Receives the squared distance to the nearest centre, of the rows that are looked at.

    Returns
    -------
    weight_sums : (K,) float64
        Changes of the weights of the centres' rows.
    first : (K, D) float64
        Changes of the weighted sums of the rows' differences from the origin.
    inertia : float
        Weighted sum of the squared distances of the rows that are looked at: of all, if all are new.
    """
    rows = rows_view(X)
    n_components, n_features = centres.shape
    partial_bytes = 8 * n_components * (n_features + 1)
    operations = 2 * X.size * n_components
    cut = tiling(len(X), kmeans.lloyd_scratch_rows(n_features), rows.flat.dtype, partial_bytes, operations)
    weight_sums, first = np.zeros((cut.n_chunks, n_components)), np.zeros((cut.n_chunks, n_components, n_features))
    inertia = np.zeros(cut.n_chunks)
    weights, scale = weights_view(sample_weight, len(X))
    kmeans.lloyd(
        cut.n_chunks,
        *rows,
        len(X),
        cut.rows_per_chunk,
        cut.width,
        weights,
        origin,
        centres,
        lost,
        labels,
        gap,
        np.empty(0, rows.flat.dtype) if distances is None else distances,
        weight_sums,
        first,
        inertia,
        scratch=cut.scratch,
        operations=operations,
    )
    return scale * weight_sums.sum(axis=0), scale * first.sum(axis=0), scale * float(inertia.sum())
