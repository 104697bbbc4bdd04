"""Labels in single precision, and in double precision where that cannot tell.

A label is the component of the highest log-probability. In float32 vectors have twice as many lanes, and a bound on the
error tells for which rows the highest is certain. The others, hardly any unless components are nearly equal, are listed
and done in float64: the labels are those of float64, every one.

The bound. With u = 2^-24, the rounding of float32, an entry of ``y = L (x - m)`` is off by at most ``(D + 4) u s_j``,
``s_j = sum_d |L_jd| (|x_d| + |m_d|)``: x, m and L are rounded, and so are a difference and D sums of products (Higham,
2002, "Accuracy and Stability of Numerical Algorithms", chapter 3). If all these are below `RANGE`, what is too small
for float32 adds less than `UNDERFLOW` for each product. With E the norm of these bounds for the largest rows of a tile,
a log-probability ``c - h``, ``h = |y|^2 / 2``, is off by at most ``E sqrt(2 h) + E^2 / 2 + (D + 16) u (h + |c|)``, in
which ``sqrt(2 h) <= (h / t + t) / sqrt(2)`` for any t > 0; t^2 = D / 2 is where rows of a component are.

Cache: as for the E-step in float32, and the rows in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import Kernel, bind, carve, exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix
from fastgmm.kernels.layouts import passes
from fastgmm.kernels.tiles.rows import RowsView, tiling
from fastgmm.kernels.tiles.tiles import whole_vectors
from fastgmm.kernels.tiles.transposition import NO_PREFETCH, load_listed, load_tile

from . import partial_distance
from .partial_distance import emit_highest_log_prob_tile

ROUNDING = 2.0**-24
# Operands and rows up to which nothing is infinite in float32, and sums of entries up to which no square is.
RANGE, MOST = 1e30, 1e15
# Twice a number up to `RANGE` times half of float32's smallest, 2^-149.
UNDERFLOW = 2e-15
VECTORS = 4 if MANY_REGISTERS else 2
# If one in so many rows is not certain by one bound for all components, each component's own is looked at.
DOUBTFUL = 16
# Features from which on, and components, the nearest component is looked for by half of the features first.
SEARCHED_FEATURES, SEARCHED_COMPONENTS = 20, 6
# If that did not pay in a tile it is not tried again for so many.
TILES = 15
# Multiply-adds a row from which on it pays. 1.4 to 2.2 times as fast with 5,000 to 100,000 of them, 0.85 with 600 (6
# features, 8 components) and 1,500 (10, 10).
WORTH = 2_000


@reducing_leaf
def sum_of_full(k, j, reach, means, factor):
    """``s_j`` of component k for rows that are nowhere larger than `reach` (D,)."""
    total = 0.0
    for d in range(j + 1):
        total += abs(factor[k, j, d]) * (reach[d] + abs(means[k, d]))
    return total


@reducing_leaf
def sum_of_diagonal(k, j, reach, means, factor):
    return abs(factor[k, 0, min(j, factor.shape[2] - 1)]) * (reach[j] + abs(means[k, j]))


@reducing_leaf
def sum_of_tied(k, j, reach, means, factor):
    total = abs(means[k, j])
    for d in range(j + 1):
        total += abs(factor[0, j, d]) * reach[d]
    return total


@exact_leaf
def in_range(numbers):
    largest = 0.0
    for i in range(numbers.shape[0]):
        largest = abs(numbers[i]) if abs(numbers[i]) > largest else largest
    return largest < RANGE


SUMS = {"full": sum_of_full, "diagonal": sum_of_diagonal, "tied": sum_of_tied}
# What `kernel` binds; here for the full layout.
sum_of, log_prob_tile, e_step_tile = sum_of_full, passes.log_prob_tile, passes.e_step_tile


def bound_errors(ordinary, reach, means, factor, log_coef, slope_out, shift_out):
    """Bound the errors of a tile's log-probabilities in float32; whether there is any bound. (A template.)

    `ordinary` says whether means and factors are within `RANGE`.
    A log-probability p of component k is off by at most ``shift[k] - slope[k] p``, and by the last two numbers, of
    which there is one more than components, that of any.
    """
    n_components, n_features = means.shape
    widest, highest, magnitude = 0.0, -np.inf, 0.0
    if not (ordinary > 0 and in_range(reach)):
        return False
    t, unit = np.sqrt(n_features / 2), ROUNDING * (1 + (n_features + 4) * ROUNDING)
    slope_out[n_components] = shift_out[n_components] = 0
    for k in range(n_components):
        squares = 0.0
        for j in range(n_features):
            entry = sum_of(k, j, reach, means, factor)
            if not entry < MOST:
                return False
            squares += entry * entry
        slope_out[k] = shift_out[k] = 0
        if log_coef[k] > -np.inf:  # or the component is nobody's, in any precision
            error = (n_features + 4) * unit * np.sqrt(squares) + n_features**1.5 * UNDERFLOW
            rounding = (n_features + 16) * unit
            slope = error / (t * np.sqrt(2)) + rounding
            offset = error * t / np.sqrt(2) + error * error / 2 + rounding * abs(log_coef[k])
            if not (slope < 1 and offset < MOST):
                return False
            slope_out[k] = (1 + 1e-6) * slope
            shift_out[k] = (1 + 1e-6) * offset + slope_out[k] * log_coef[k] + 2 * ROUNDING * abs(log_coef[k])
            # c - p is no less than 0, so that of any component is at most ``offset + slope (highest c - p)``.
            slope_out[n_components] = max(slope_out[n_components], slope_out[k])
            widest, highest = max(widest, offset), max(highest, log_coef[k])
            magnitude = max(magnitude, abs(log_coef[k]))
    if highest > -np.inf:
        shift_out[n_components] = (1 + 1e-6) * widest + slope_out[n_components] * highest + 2 * ROUNDING * magnitude
    return True


def choose_tile(log_prob, n, slope, shift, label_out, certain_out):
    """Number of the highest log-probability, the first of equals, and whether no other can be as high: 1 or 0.

    The numbers are floating-point ones. A log-probability p is off by at most ``shift[k] - slope[k] p``.
    """
    shift, slope = (bound[: len(log_prob), np.newaxis] for bound in (shift, slope))
    error = shift - slope * log_prob[:, :n]
    error[np.isneginf(log_prob[:, :n])] = 0
    best, columns = log_prob[:, :n].argmax(axis=0), np.arange(n)
    label_out[:n] = best
    others = log_prob[:, :n] + error
    others[best, columns] = -np.inf
    certain_out[:n] = others.max(axis=0) < (log_prob[:, :n] - error)[best, columns]


@tile_operation(choose_tile)
def emit_choose_tile(
    e: Emitter, log_prob: Matrix, n, slope: Matrix, shift: Matrix, label_out: Matrix, certain_out: Matrix
):
    one, zero = e.constant(1.0), e.constant(0.0)
    for places in e.each_group(n, VECTORS):
        # Of the best so far: it, the highest that it can be, the lowest; the highest that any other can be.
        best, high, low, other = ([e.variable(-np.inf) for _ in places] for _ in range(4))
        label = [e.variable() for _ in places]
        for k in e.each(0, log_prob.shape[0]):
            number, a, b = e.splat(e.number(k)), slope.splat(k), shift.splat(k)
            to_high, to_low = one - a, one + a
            for v, place in enumerate(places):
                value = log_prob[k, place]
                highest, lowest = e.fma(value, to_high, b), e.fma(value, to_low, zero - b)
                better = best[v].get() < value
                left = e.choose(better, high[v].get(), highest)
                other[v].set(e.choose(other[v].get() < left, left, other[v].get()))
                label[v].set(e.choose(better, number, label[v].get()))
                high[v].set(e.choose(better, highest, high[v].get()))
                low[v].set(e.choose(better, lowest, low[v].get()))
                best[v].set(e.choose(better, value, best[v].get()))
        for v, place in enumerate(places):
            label_out[place] = label[v].get()
            certain_out[place] = e.choose(other[v].get() < low[v].get(), one, zero)


def choose_tile_by_one_bound(log_prob, n, slope, shift, label_out, certain_out, count_out):
    """Do as `choose_tile`, with the bound for any component; ``count_out[0]`` says how many are not certain.

    By that what is highest but for the best is as high as any but the best can be: half of the operations. Labels of 16
    features and 64 diagonal components came 1.06 times as fast.
    """
    best, columns = log_prob[:, :n].argmax(axis=0), np.arange(n)
    label_out[:n] = best
    high, low = (log_prob[:, :n] * (1 - sign * slope[-1]) + sign * shift[-1] for sign in (1, -1))
    low = low[best, columns]
    high[best, columns] = -np.inf
    certain_out[:n] = high.max(axis=0) < low
    count_out[0] = n - certain_out[:n].sum()


@tile_operation(choose_tile_by_one_bound)
def emit_choose_tile_by_one_bound(
    e: Emitter, log_prob: Matrix, n, slope: Matrix, shift: Matrix, label_out: Matrix, certain_out: Matrix,
    count_out: Matrix,
):  # fmt: skip
    one, zero, doubtful = e.constant(1.0), e.constant(0.0), e.variable()
    last = e.add(slope.shape[0], -1)
    a, b = slope.splat(last), shift.splat(last)
    for places in e.each_group(n, VECTORS):
        best, second = ([e.variable(-np.inf) for _ in places] for _ in range(2))
        label = [e.variable() for _ in places]
        for k in e.each(0, log_prob.shape[0]):
            number = e.splat(e.number(k))
            for v, place in enumerate(places):
                value = log_prob[k, place]
                better = best[v].get() < value
                lower = e.choose(better, best[v].get(), value)
                second[v].set(e.choose(second[v].get() < lower, lower, second[v].get()))
                label[v].set(e.choose(better, number, label[v].get()))
                best[v].set(e.choose(better, value, best[v].get()))
        for v, place in enumerate(places):
            high, low = e.fma(second[v].get(), one - a, b), e.fma(best[v].get(), one + a, zero - b)
            certain = e.choose(high < low, one, zero)
            label_out[place], certain_out[place] = label[v].get(), certain
            doubtful.add(one - certain)
    e.builder.store(e.lane_sum(doubtful.get()), count_out.pointer)


@exact_leaf
def narrow(x, n, single_out):
    """Round a tile to float32."""
    for d in range(x.shape[0]):
        for i in range(n):
            single_out[d, i] = np.float32(x[d, i])


def reach_of_tile(x, n, reach_out):
    """The largest magnitude of each feature; NaN is none: its row is never certain."""
    reach_out[0, :] = np.nanmax(np.abs(x[:, :n]), axis=1, initial=0.0)


@tile_operation(reach_of_tile)
def emit_reach_of_tile(e: Emitter, x: Matrix, n, reach_out: Matrix):
    without_sign = e.integers(2 ** (8 * e.size - 1) - 1)
    for d in e.each(0, x.shape[0]):
        largest = [e.variable(), e.variable()]
        for places in e.each_group(n, len(largest)):
            for so_far, place in zip(largest, places, strict=True):
                magnitude = e.from_bits(e.builder.and_(e.bits(x[d, place]), without_sign))
                so_far.set(e.choose(so_far.get() < magnitude, magnitude, so_far.get()))
        first, second = (so_far.get() for so_far in largest)
        highest = e.lane_maximum(e.choose(first < second, second, first))
        e.builder.store(highest, reach_out.pointer_to(0, d))


@exact_leaf
def note_labels(label, certain, rows, from_start, labels_out, numbers_out, count):
    """Write labels, and list the rows whose labels are not certain, as numbers from the chunk's first row on."""
    for i in range(rows):
        labels_out[i] = np.int64(label[i])
        numbers_out[count] = from_start + i
        count += certain[i] != 1
    return count


def label_listed(
    memory, flat, row_stride, column_stride, start, numbers, rows, origin, means, factor, log_coef, labels_out
):  # fmt: skip
    """The labels of the first rows of a list, in double precision. (A template.)"""
    n_components, n_features = means.shape
    top, penalty, x = memory[0], memory[1], memory[2 : 2 + n_features]
    rest = memory[2 + n_features :]
    r, work = rest[:n_components], rest[n_components:]
    n = whole_vectors(rows)
    for i in range(rows, n):
        numbers[i] = numbers[rows - 1]
    load_listed(flat, row_stride, column_stride, start, numbers, n, origin, x)
    e_step_tile(n, means, factor, log_coef, flat, 0, row_stride, x, r, work, top, penalty)
    for i in range(rows):
        best = 0
        for k in range(n_components - 1, -1, -1):
            best = k if r[k, i] == top[i] else best
        labels_out[start + numbers[i]] = best


def every_component(
    x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out, state
):  # fmt: skip
    """Log-probabilities of a tile. (A template.)"""
    log_prob_tile(x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out)


def nearest_components(
    x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out, state
):  # fmt: skip
    """Those that may be the highest; all in the tiles behind one in which half of them might have been. (A template.)

    ``state`` has that one's count, and how many tiles there are still to come.
    """
    if state[1] > 0:
        log_prob_tile(x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out)
        state[1] -= 1
    else:
        emit_highest_log_prob_tile(
            x, n, means, factor, log_coef, work, flat, ahead, row_stride, top_out, log_prob_out, state
        )
        state[1] = TILES if 2 * state[0] > n * means.shape[0] else 0


tile_of = every_component


def label_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, n_work, ordinary, origin, means, factor,
    log_coef, means_single, factor_single, log_coef_single, nothing, labels_out,
):  # fmt: skip
    """The labels of the rows of chunk c. (A template; `nothing` is an empty int32 array.)"""
    n_components, n_features = means.shape
    numbers = carve(memory, 0, 1, 2 * width, nothing)[0]
    x, other = memory[1 : 1 + n_features], memory[1 + n_features :]
    # Rows of a power of two would compete for the same lines of L1.
    single = carve(other, 0, 3 + n_features + n_components + n_work, width + 16, log_coef_single)
    top, label, certain, x_single = single[0], single[1], single[2], single[3 : 3 + n_features]
    rest = single[3 + n_features :]
    r, work = rest[:n_components], rest[n_components:]
    start, stop, count = c * rows_per_chunk, min((c + 1) * rows_per_chunk, n_rows), 0
    slope, shift = np.empty(n_components + 1, np.float32), np.empty(n_components + 1, np.float32)
    reach, state = np.empty((1, n_features)), np.zeros(2, np.int64)
    for first in range(start, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, NO_PREFETCH)
        narrow(x, n, x_single)
        emit_reach_of_tile(x, n, reach)
        if bound_errors(ordinary, reach[0], means, factor, log_coef, slope, shift):
            ahead = (first + width) * row_stride if column_stride == 1 else 0
            tile_of(
                x_single, n, means_single, factor_single, log_coef_single, work, flat, ahead, row_stride, top, r, state
            )
            emit_choose_tile_by_one_bound(r, n, slope, shift, label, certain, top)
            if DOUBTFUL * top[0] > n:  # a row in double precision takes as long as some looked at again
                emit_choose_tile(r, n, slope, shift, label, certain)
        else:
            for i in range(rows):
                label[i] = certain[i] = 0
        count = note_labels(label, certain, rows, first - start, labels_out[first:], numbers, count)
        if count >= width:
            label_listed(memory[1:], flat, row_stride, column_stride, start, numbers, width, origin, means, factor,
                         log_coef, labels_out)  # fmt: skip
            count -= width
            for i in range(count):
                numbers[i] = numbers[width + i]
    if count > 0:
        label_listed(memory[1:], flat, row_stride, column_stride, start, numbers, count, origin, means, factor,
                     log_coef, labels_out)  # fmt: skip


def pays(dtype: np.dtype, n_samples: int, operations: float) -> bool:
    """Whether labels of rows come sooner this way than with the pass that writes everything."""
    return dtype == np.float64 and operations > max(runtime.WORTH_THREADS, WORTH * n_samples)


def label(layout: str, rows: RowsView, n_samples: int, operands: tuple, labels_out: np.ndarray, operations: float):
    """Write the component of highest responsibility of each row, (N,) int64, the first of equals.

    `operands` are `kernels.Operands` in float64.
    """
    n_components, n_features = operands[1].shape
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    in_parts = layout == "full" and n_features >= SEARCHED_FEATURES and n_components >= SEARCHED_COMPONENTS
    if in_parts:
        n_work = partial_distance.work_rows(n_features)
    # A row of width + 16 numbers in float32 is at most 5/9 of one of width + 8 in float64. In double precision, where
    # little is done, a tile may leave L2.
    in_single = 1 + n_features + -(-5 * (3 + n_features + n_components + n_work) // 9)
    in_double = 1 + 2 + n_features + n_components + n_work
    cut = tiling(n_samples, in_single, rows.flat.dtype, operations=operations)
    with np.errstate(over="ignore"):  # then there is no bound
        single = [operand.astype(np.float32) for operand in operands[1:]]
    _kernel(layout, passes.specialised_n_features(layout, n_features), in_parts)(
        cut.n_chunks,
        *rows,
        n_samples,
        cut.rows_per_chunk,
        cut.width,
        n_work,
        int(all(np.abs(operand).max(initial=0.0) < RANGE for operand in operands[1:3])),
        *operands,
        *single,
        np.empty(0, np.int32),
        labels_out,
        scratch=cut.scratch._replace(rows=max(in_single, in_double)),
        operations=operations,
    )


@functools.cache
def _kernel(layout: str, n_features: int, in_parts: bool) -> Kernel:
    shared = passes.bound_leaves(layout, n_features)
    name = f"{layout}{n_features or ''}"
    tile = nearest_components if in_parts else every_component
    tile_of = exact_leaf(bind(tile, f"{tile.__name__}_{name}", log_prob_tile=shared["log_prob_tile"]))
    errors = exact_leaf(bind(bound_errors, f"bound_errors_{layout}", sum_of=SUMS[layout]))
    listed = exact_leaf(bind(label_listed, f"label_listed_{name}", e_step_tile=shared["e_step_tile"]))
    names: dict[str, Callable | object] = {
        "tile_of": tile_of, "bound_errors": errors, "label_listed": listed,
    }  # fmt: skip
    return Kernel(bind(label_chunk, f"labels_{name}{'_in_parts' if in_parts else ''}", **names))
