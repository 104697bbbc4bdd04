"""Losses of merging one cluster with a tile of others.

A tile has `LANES` clusters. Its rows are the weights, the ranks, the terms, the traces, then D rows of means and the
rows of the scatter's lower triangle, in C order (none if only traces count). A single cluster is a column of a tile.

The term of a cluster with weight n and scatter W is what it adds to the criterion (Fraley, 1998, SIAM Journal on
Scientific Computing 20); the loss of a merge is the increase of the criterion. `Criterion` has the formulas.

Flops for each pair: 3 D with traces alone, D^3 / 6 multiply-adds and D^2 more with determinants. Cache: a tile and as
much scratch memory in L1 (D up to 10) or L2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import Emitter, Matrix, Number, Variable, Vector
from fastgmm.kernels.tiles.numerics import log

# Clusters of a tile: two vectors of eight numbers, whose operations hide each other's latency.
LANES = 16
# Rows of a tile; the means begin at row MEAN, the scatter at row MEAN + D.
WEIGHT, RANK, TERM, TRACE, MEAN = range(5)
# Entries of a criterion's constants.
PRIOR, DETERMINANT, SPREAD, ALONE = range(4)
# Bounds of the numbers whose logarithm is computed.
SMALLEST, LARGEST = 1e-290, 1e290
# A pivot counts as zero if it is at most this part of its diagonal entry, times the number of features.
ROUNDING = 2.220446049250313e-16
# Columns that are eliminated together.
PANELS = (4, 1)


def packed(n_features: int) -> int:
    """Return the number of entries of a lower triangle."""
    return n_features * (n_features + 1) // 2


def work_rows(n_features: int) -> int:
    """Return the rows of scratch memory that `determinant_losses` needs: a triangle, a diagonal, a difference."""
    return packed(n_features) + 2 * n_features


def distance_losses(tile, cluster, n_features, losses_out):
    """Write the losses for equal spherical covariances.

    The loss of clusters with weights n and m and means at distance d is ``n m / (n + m) d^2`` (Ward's).
    """
    apart = tile[MEAN : MEAN + n_features] - cluster[MEAN : MEAN + n_features, np.newaxis]
    losses_out[:] = tile[WEIGHT] * cluster[WEIGHT] / (tile[WEIGHT] + cluster[WEIGHT]) * (apart**2).sum(axis=0)


@tile_operation(distance_losses)
def emit_distance_losses(e: Emitter, tile: Matrix, cluster: Matrix, n_features, losses_out: Matrix):
    for i in range(0, LANES, e.width):
        factor, _ = _factor(e, tile, cluster, i)
        losses_out[i] = factor * _distance(e, tile, cluster, n_features, i)


def trace_losses(tile, cluster, n_features, constants, losses_out):
    """Write the losses for spherical covariances: terms ``n log(SPREAD (tr W + ALONE) / n)``."""
    apart = tile[MEAN : MEAN + n_features] - cluster[MEAN : MEAN + n_features, np.newaxis]
    weight = tile[WEIGHT] + cluster[WEIGHT]
    factor = tile[WEIGHT] * cluster[WEIGHT] / weight
    trace = tile[TRACE] + cluster[TRACE] + factor * (apart**2).sum(axis=0)
    value = constants[SPREAD] * (trace + constants[ALONE]) / weight
    term = weight * np.log(np.clip(value, SMALLEST, LARGEST))
    losses_out[:] = term - tile[TERM] - cluster[TERM]


@tile_operation(trace_losses)
def emit_trace_losses(e: Emitter, tile: Matrix, cluster: Matrix, n_features, constants: Matrix, losses_out: Matrix):
    for i in range(0, LANES, e.width):
        factor, weight = _factor(e, tile, cluster, i)
        distance = _distance(e, tile, cluster, n_features, i)
        trace = e.fma(factor, distance, _traces(e, tile, cluster, i))
        losses_out[i] = _loss(e, tile, cluster, constants, e.constant(0.0), trace, weight, i)


def determinant_losses(tile, cluster, n_features, constants, work, losses_out):
    """Write the losses for free covariances.

    The terms are ``n log(DETERMINANT det((W + PRIOR I) / (n + PRIOR)) + SPREAD (tr W + ALONE) / n)``. The determinant
    counts as zero if the rank of W, at most the sum of both ranks and 1, is less than D, or if a pivot of Cholesky's
    method is rounding. Both W and I are those of whole clusters, merged.

    Parameters
    ----------
    tile : (4 + D + D (D + 1) / 2, LANES)
    cluster : (4 + D + D (D + 1) / 2,)
    n_features : int
        D.
    constants : (4,)
    work : (work_rows(D), LANES)
    losses_out : (LANES,)
    """
    rows, columns = np.tril_indices(n_features)
    prior = constants[PRIOR]
    apart = tile[MEAN : MEAN + n_features] - cluster[MEAN : MEAN + n_features, np.newaxis]
    weight = tile[WEIGHT] + cluster[WEIGHT]
    factor = tile[WEIGHT] * cluster[WEIGHT] / weight
    triangle = tile[MEAN + n_features :] + cluster[MEAN + n_features :, np.newaxis]
    triangle = triangle + factor * apart[rows] * apart[columns]
    trace = tile[TRACE] + cluster[TRACE] + factor * (apart**2).sum(axis=0)
    rest = np.zeros((n_features, n_features, LANES))
    rest[rows, columns] = triangle
    rest[columns, rows] = triangle
    for d in range(n_features):
        rest[d, d] += prior
    diagonal = np.array([rest[d, d].copy() for d in range(n_features)])
    product = np.where(tile[RANK] + cluster[RANK] + 1 < n_features, 0.0, 1.0)
    for q in range(n_features):
        pivot = rest[q, q].copy()
        regular = pivot > n_features * ROUNDING * diagonal[q]
        product = product * np.where(regular, pivot, 0.0) / (weight + prior)
        inverse = np.where(regular, 1.0, 0.0) / np.where(regular, pivot, 1.0)
        rest -= inverse * rest[:, q][:, np.newaxis] * rest[q][np.newaxis]
    spread = constants[SPREAD] * (trace + constants[ALONE]) / weight
    value = constants[DETERMINANT] * product + spread
    losses_out[:] = weight * np.log(np.clip(value, SMALLEST, LARGEST)) - tile[TERM] - cluster[TERM]


@tile_operation(determinant_losses)
def emit_determinant_losses(
    e: Emitter, tile: Matrix, cluster: Matrix, n_features, constants: Matrix, work: Matrix, losses_out: Matrix
):
    vectors = max(1, min(2, LANES // e.width))
    scatter = e.add(MEAN, n_features)
    diagonal = _row(e, n_features)
    difference = e.add(diagonal, n_features)
    size_of_all = e.splat(e.to_float(n_features))
    tolerance = size_of_all * e.constant(ROUNDING)
    for first in range(0, LANES, vectors * e.width):
        lanes = range(first, first + vectors * e.width, e.width)
        factors, weights = zip(*(_factor(e, tile, cluster, i) for i in lanes), strict=True)
        distances = [e.variable() for _ in lanes]
        for d in e.each(e.index(0), n_features):
            for i, distance in zip(lanes, distances, strict=True):
                apart = tile[e.add(MEAN, d), i] - cluster.splat(e.add(MEAN, d))
                distance.add_product(apart, apart)
                work[e.add(difference, d), i] = apart
        for r in e.each(e.index(0), n_features):
            start = _row(e, r)
            scaled = [factor * work[e.add(difference, r), i] for i, factor in zip(lanes, factors, strict=True)]
            for s in e.each(e.index(0), e.add(r, 1)):
                entry = e.add(start, s)
                other = cluster.splat(e.add(scatter, entry))
                for i, x in zip(lanes, scaled, strict=True):
                    within = tile[e.add(scatter, entry), i] + other
                    work[entry, i] = e.fma(x, work[e.add(difference, s), i], within)
            entry = e.add(start, r)
            for i in lanes:
                work[entry, i] = work[entry, i] + constants.splat(PRIOR)
                work[e.add(diagonal, r), i] = work[entry, i]
        inverses = [e.constant(1.0) / (weight + constants.splat(PRIOR)) for weight in weights]
        products = [e.variable() for _ in lanes]
        for i, product in zip(lanes, products, strict=True):
            product.set(_with_full_rank(e, tile, cluster, size_of_all, i))
        for q, size in e.blocks(0, n_features, PANELS):
            _eliminate(e, work, lanes, q, size, n_features, diagonal, tolerance, inverses, products)
        for i, factor, weight, distance, product in zip(lanes, factors, weights, distances, products, strict=True):
            trace = e.fma(factor, distance.get(), _traces(e, tile, cluster, i))
            losses_out[i] = _loss(e, tile, cluster, constants, product.get(), trace, weight, i)


def _eliminate(
    e: Emitter, work: Matrix, lanes: Sequence[int], q: Number, size: int, n_features: Number, diagonal: Number,
    tolerance: Vector, inverses: Sequence[Vector], products: Sequence[Variable],
) -> None:  # fmt: skip
    """Eliminate `size` columns of triangles from column q on, and multiply the products by their pivots."""
    stop = e.add(q, size)
    columns = [e.add(q, c) for c in range(size)]
    reciprocals: list[list[Vector]] = []  # negative, by column, then by lane
    for c, column in enumerate(columns):
        reciprocals.append([])
        for i, product, inverse in zip(lanes, products, inverses, strict=True):
            pivot = work[e.add(_row(e, column), column), i]
            regular = tolerance * work[e.add(diagonal, column), i] < pivot
            product.set(product.get() * e.select(regular, pivot * inverse, e.constant(0.0)))
            reciprocal = e.constant(-1.0) / e.select(regular, pivot, e.constant(1.0))
            reciprocals[c].append(e.select(regular, reciprocal, e.constant(0.0)))
        for r in range(c + 1, size):
            _subtract(e, work, lanes, columns[r], [column], reciprocals[c:], columns[c + 1 : r + 1])
        if c + 1 < size:
            for row in e.each(stop, n_features):
                _subtract(e, work, lanes, row, [column], reciprocals[c:], columns[c + 1 :])
    for row in e.each(stop, n_features):
        _subtract(e, work, lanes, row, columns, reciprocals, e.each(stop, e.add(row, 1)))


def _subtract(
    e: Emitter, work: Matrix, lanes: Sequence[int], row: Number, columns: Sequence[Number],
    reciprocals: Sequence[Sequence[Vector]], others: Iterable[Number],
) -> None:  # fmt: skip
    """Subtract from entries of a row of triangles, in the columns `others`, what pivots in `columns` explain."""
    start = _row(e, row)
    shares = [
        [work[e.add(start, column), i] * x for i, x in zip(lanes, by_lane, strict=True)]
        for column, by_lane in zip(columns, reciprocals, strict=True)
    ]
    for other in others:
        entry, other_row = e.add(start, other), _row(e, other)
        for v, i in enumerate(lanes):
            rest = work[entry, i]
            for column, share in zip(columns, shares, strict=True):
                rest = e.fma(share[v], work[e.add(other_row, column), i], rest)
            work[entry, i] = rest


def metric_losses(tile, cluster, n_features, metric, losses_out):
    """Write the losses for equal covariances: ``n m / (n + m) d^T A d``, with the difference d of the means.

    A is a metric (D, D), symmetric. The flops are D^2 multiply-adds.
    """
    apart = tile[MEAN : MEAN + n_features] - cluster[MEAN : MEAN + n_features, np.newaxis]
    factor = tile[WEIGHT] * cluster[WEIGHT] / (tile[WEIGHT] + cluster[WEIGHT])
    losses_out[:] = factor * (apart * (metric @ apart)).sum(axis=0)


@tile_operation(metric_losses)
def emit_metric_losses(e: Emitter, tile: Matrix, cluster: Matrix, n_features, metric: Matrix, losses_out: Matrix):
    for i in range(0, LANES, e.width):
        factor, _ = _factor(e, tile, cluster, i)
        total = e.variable()
        for r in e.each(e.index(0), n_features):
            product = e.variable()
            for s in e.each(e.index(0), n_features):
                apart = tile[e.add(MEAN, s), i] - cluster.splat(e.add(MEAN, s))
                product.add_product(metric.splat(r, s), apart)
            apart = tile[e.add(MEAN, r), i] - cluster.splat(e.add(MEAN, r))
            total.add_product(product.get(), apart)
        losses_out[i] = factor * total.get()


def lowest_of_older(values, births, own, n, lowest_out):
    """Write the lowest of the values whose birth is before `own`, infinity if there is none.

    Only the first n values count, a multiple of `LANES`. Cache: both arrays are read once.
    """
    lowest_out[0] = np.where(births[:n] < own[0], values[:n], np.inf).min(initial=np.inf)


@tile_operation(lowest_of_older)
def emit_lowest_of_older(e: Emitter, values: Matrix, births: Matrix, own: Matrix, n, lowest_out: Matrix):
    limit = own.splat(0)
    variables = [e.variable(np.inf) for _ in range(0, LANES, e.width)]
    for start in e.each(e.index(0), n, LANES):
        for v, variable in enumerate(variables):
            i = e.add(start, v * e.width)
            value = e.select(births[i] < limit, values[i], e.constant(np.inf))
            variable.set(e.select(value < variable.get(), value, variable.get()))
    result = variables[0].get()
    for variable in variables[1:]:
        result = e.select(variable.get() < result, variable.get(), result)
    lowest = e.builder.fneg(e.lane_maximum(e.constant(0.0) - result))
    e.builder.store(lowest, lowest_out.pointer_to(0))


def _factor(e: Emitter, tile: Matrix, cluster: Matrix, i: int) -> tuple[Vector, Vector]:
    """Return ``n m / (n + m)`` and ``n + m`` for the weights n, m of the clusters in lanes from i on."""
    other = cluster.splat(WEIGHT)
    weight = tile[WEIGHT, i] + other
    return tile[WEIGHT, i] * other / weight, weight


def _distance(e: Emitter, tile: Matrix, cluster: Matrix, n_features: Number, i: int) -> Vector:
    """Return the squared distances of means."""
    distance = e.variable()
    for d in e.each(e.index(0), n_features):
        apart = tile[e.add(MEAN, d), i] - cluster.splat(e.add(MEAN, d))
        distance.add_product(apart, apart)
    return distance.get()


def _traces(e: Emitter, tile: Matrix, cluster: Matrix, i: int) -> Vector:
    """Return the sums of the traces of two clusters."""
    return tile[TRACE, i] + cluster.splat(TRACE)


def _with_full_rank(e: Emitter, tile: Matrix, cluster: Matrix, n_features: Vector, i: int) -> Vector:
    """Return 1 where two clusters as one can have full rank, else 0."""
    rank = tile[RANK, i] + cluster.splat(RANK)
    return e.select(n_features - e.constant(1.5) < rank, e.constant(1.0), e.constant(0.0))


def _loss(
    e: Emitter, tile: Matrix, cluster: Matrix, constants: Matrix, determinant: Vector, trace: Vector, weight: Vector,
    i: int,
) -> Vector:  # fmt: skip
    """Return the losses from the determinants, traces and weights of clusters that have merged."""
    spread = constants.splat(SPREAD) * (trace + constants.splat(ALONE)) / weight
    value = e.fma(constants.splat(DETERMINANT), determinant, spread)
    return weight * _log(e, value) - tile[TERM, i] - cluster.splat(TERM)


def _row(e: Emitter, r: Number) -> Number:
    """Return the number of entries of a lower triangle above row r."""
    return e.builder.lshr(e.multiply(r, e.add(r, 1)), e.index(1))


def _log(e: Emitter, value: Vector) -> Vector:
    """Return the logarithm of a number that is moved into the range of `log`; NaN for NaN."""
    low, high = e.constant(SMALLEST), e.constant(LARGEST)
    value = e.select(value < low, low, value)
    return log(e, e.select(high < value, high, value))
