"""Squared distances from a tile's columns to points, and log-probabilities.

Shared by the E-steps of the diagonal and tied layouts and by k-means. A squared distance is a sum of squared
differences of centred rows, never an expanded quadratic, which would cancel. Flops: one difference and one multiply-add
per row, point and feature. Cache: a group of columns stays in L1 while the points (K D numbers, in L1 or L2) are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Number, Variable, Vector

from .transposition import Prefetcher

# Vectors of columns in a group.
VECTORS = 4 if MANY_REGISTERS else 2
# Points that are processed together: 16 (8) accumulators.
POINTS = (4, 2, 1)
# With scales every point needs two operands per feature, and two products hide each other's latency.
SCALED_POINTS = (2, 1)


def each_distance(
    e: Emitter,
    x: Matrix,
    columns: list[Number],
    points: Matrix,
    scales: Matrix | None = None,
    prefetcher: Prefetcher | None = None,
) -> Iterator[tuple[Number, list[Variable]]]:
    """Emit the squared distances from columns to all points, point by point.

    Parameters
    ----------
    x : (D, T)
    columns : list of numbers
        First column of each vector.
    points : (K, D)
    scales : (K, 1, D), optional
        With it the distance is ``sum_d (scales[k, 0, d] (x[d, i] - points[k, d]))^2``.
    prefetcher : Prefetcher, optional
        Prefetches the rows of the next tile, a share with each of the first points.

    Yields
    ------
    k : number
        The point.
    distances : list of Variable
        One vector for each of `columns`.
    """
    n_points, n_features = points.shape
    group = len(columns) * e.width
    rows_per_point = min(group, 32 // e.size)  # two points prefetch one cache line per feature
    for k, size in e.blocks(0, n_points, POINTS if scales is None else SCALED_POINTS):
        sums = [[e.variable() for _ in columns] for _ in range(size)]
        for d in e.each(0, n_features):
            if prefetcher is not None:
                prefetcher.prefetch(columns[0], k, size, d, group, rows_per_point)
            features = [x[d, column] for column in columns]
            for p in range(size):
                point = points.splat(e.add(k, p), d)
                scale = None if scales is None else scales.splat(e.add(k, p), 0, d)
                for v in range(len(columns)):
                    difference = features[v] - point
                    y = difference if scale is None else scale * difference
                    sums[p][v].add_product(y, y)
        for p in range(size):
            yield e.add(k, p), sums[p]


def write_log_prob(
    e: Emitter,
    columns: list[Number],
    distances: Iterator[tuple[Number, list[Variable]]],
    log_coef: Matrix,
    top_out: Matrix,
    log_prob_out: Matrix,
    factor_of: Callable[[Number], Vector] | None = None,
) -> None:
    """Write log-probabilities from distances, and the highest of each column.

    ``log_prob[k] = log_coef[k] - distance / 2`` for a group of columns. If ``factor_of`` is given, the distances to
    point k are multiplied by ``factor_of(k)`` instead of -1/2.
    """
    top = [e.variable(-np.inf) for _ in columns]
    for k, squared in distances:
        coefficient = log_coef.splat(k)
        factor = e.constant(-0.5) if factor_of is None else factor_of(k)
        for v, column in enumerate(columns):
            value = e.fma(squared[v].get(), factor, coefficient)
            log_prob_out[k, column] = value
            top[v].set(highest(e, top[v].get(), value))
    for v, column in enumerate(columns):
        top_out[column] = top[v].get()


def highest(e: Emitter, top: Vector, value: Vector) -> Vector:
    """Return the higher of two vectors, lane by lane; NaN where `value` is NaN."""
    return e.select(value < top, top, value)
