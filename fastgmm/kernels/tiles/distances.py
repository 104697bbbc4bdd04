"""Squared distances from the columns of a tile to points, and log-probabilities made of them.

What the E-steps of the diagonal and tied layouts and k-means have in common. Distances are sums of squared differences
of centred rows, never an expanded quadratic: one difference and one multiply-add an entry, which run side by side on
today's CPUs. A group of columns stays in L1 while the points (K D numbers, in L1 or L2) go by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Number, Variable, Vector

from .transposition import Ahead

# Vectors of columns in a group, and numbers of points that are gone through together: 16 (8) accumulators.
VECTORS = 4 if MANY_REGISTERS else 2
POINTS = (4, 2, 1)
# With scales every point brings two operands a feature, and two products hide each other's latency. A product and a
# multiply-add an entry are what it takes: ``scale x - (scale point)`` in place of ``scale (x - point)`` took as long.
SCALED_POINTS = (2, 1)


def each_distance(
    e: Emitter,
    x: Matrix,
    places: list[Number],
    points: Matrix,
    scales: Matrix | None = None,
    ahead: Ahead | None = None,
) -> Iterator[tuple[Number, list[Variable]]]:
    """The number of each point, and the squared distances to it from a group of columns, a vector each.

    With `scales` (K, 1, D) those are ``sum_d (scales[k, 0, d] (x[d, i] - points[k, d]))^2``. With `ahead`, the rows of
    the next tile are asked for on the way, each of the first points taking its share.
    """
    n_points, n_features = points.shape
    group = len(places) * e.width
    rows_each = min(group, 32 // e.size)  # so that two points ask for a cache line a feature
    for k, size in e.blocks(0, n_points, POINTS if scales is None else SCALED_POINTS):
        sums = [[e.variable() for _ in places] for _ in range(size)]
        for d in e.each(0, n_features):
            if ahead is not None:
                ahead.prefetch(places[0], k, size, d, group, rows_each)
            row = [x[d, place] for place in places]
            for p in range(size):
                point = points.splat(e.add(k, p), d)
                scale = None if scales is None else scales.splat(e.add(k, p), 0, d)
                for v in range(len(places)):
                    difference = row[v] - point
                    y = difference if scale is None else scale * difference
                    sums[p][v].add_product(y, y)
        for p in range(size):
            yield e.add(k, p), sums[p]


def write_log_prob(
    e: Emitter,
    places: list[Number],
    distances: Iterator[tuple[Number, list[Variable]]],
    log_coef: Matrix,
    top_out: Matrix,
    log_prob_out: Matrix,
    half: Callable[[Number], Vector] | None = None,
) -> None:
    """For a group of columns ``log_prob[k] = log_coef[k] - distance / 2``, and the highest of each column.

    ``half(k)``, if given, is what the distances to point k are multiplied by instead of -1/2.
    """
    top = [e.variable(-np.inf) for _ in places]
    for k, squared in distances:
        coefficient = log_coef.splat(k)
        minus_half = e.constant(-0.5) if half is None else half(k)
        for v, place in enumerate(places):
            value = e.fma(squared[v].get(), minus_half, coefficient)
            log_prob_out[k, place] = value
            top[v].set(highest(e, top[v].get(), value))
    for v, place in enumerate(places):
        top_out[place] = top[v].get()


def highest(e: Emitter, top: Vector, value: Vector) -> Vector:
    """The higher of both, lane by lane; NaN if the value is NaN."""
    return e.choose(value < top, top, value)
