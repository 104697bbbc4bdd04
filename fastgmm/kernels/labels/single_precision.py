"""Labels in single precision; in double precision where they are uncertain.

A label is the component of the highest log-probability. In float32 a vector has twice as many lanes, and a bound on the
rounding error (see `error_bound`) shows for which rows the highest is certain. The other rows are listed and processed
in float64, so that all labels are those of float64. They are few unless components are nearly equal.

Flops per row: those of the layout's ``log_prob_tile`` in float32 and a few comparisons per component; those of the
E-step in float64 for an uncertain row. Cache: as for the E-step in float32, and the rows of the tile in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import Kernel, bind, carve, exact_leaf
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix
from fastgmm.kernels.layouts import passes
from fastgmm.kernels.tiles.rows import RowsView, tiling
from fastgmm.kernels.tiles.tiles import whole_vectors
from fastgmm.kernels.tiles.transposition import NO_PREFETCH, load_listed, load_tile

from . import partial_distance
from .error_bound import ENTRY_SUMS, MAX_MAGNITUDE, bound_errors, emit_max_abs_tile
from .partial_distance import emit_highest_log_prob_tile

# Vectors of columns that are processed together.
VECTORS = 4 if MANY_REGISTERS else 2
# If more than one in this number of rows is uncertain by one bound for all components, each component's is used.
ROWS_PER_UNCERTAIN = 16
# Features and components from which on the nearest component is searched for by partial distances.
SEARCHED_FEATURES = 20
SEARCHED_COMPONENTS = 6
# Tiles without a search after one in which it did not pay.
TILES_WITHOUT_SEARCH = 15
# Multiply-adds per row from which on single precision pays: 0.85 times as fast with 600 and 1,500 of them, 1.4 to 2.2
# times as fast with 5,000 to 100,000.
MIN_MULTIPLY_ADDS_PER_ROW = 2_000

# Global names of the templates below, which `_kernel` replaces; the values here are those of the full layout.
log_prob_tile, e_step_tile = passes.log_prob_tile, passes.e_step_tile


def label_tile_by_component_bounds(log_prob, n, slope, shift, label_out, certain_out):
    """Write the component of the highest log-probability, and whether it is certain.

    Of equally high components the first counts. It is certain (1, else 0) if no other component can be as high. A
    log-probability p of component k has an error of at most ``shift[k] - slope[k] p``. Labels and flags are
    floating-point numbers.
    """
    shift, slope = (bound[: len(log_prob), np.newaxis] for bound in (shift, slope))
    error = shift - slope * log_prob[:, :n]
    error[np.isneginf(log_prob[:, :n])] = 0
    best, columns = log_prob[:, :n].argmax(axis=0), np.arange(n)
    label_out[:n] = best
    others = log_prob[:, :n] + error
    others[best, columns] = -np.inf
    certain_out[:n] = others.max(axis=0) < (log_prob[:, :n] - error)[best, columns]


@tile_operation(label_tile_by_component_bounds)
def emit_label_tile_by_component_bounds(
    e: Emitter, log_prob: Matrix, n, slope: Matrix, shift: Matrix, label_out: Matrix, certain_out: Matrix
):
    one, zero = e.constant(1.0), e.constant(0.0)
    for columns in e.each_group(n, VECTORS):
        # The best value so far, its upper and lower bound, and the highest upper bound of all others.
        best, high, low, other = ([e.variable(-np.inf) for _ in columns] for _ in range(4))
        label = [e.variable() for _ in columns]
        for k in e.each(0, log_prob.shape[0]):
            number, a, b = e.splat(e.to_float(k)), slope.splat(k), shift.splat(k)
            to_high, to_low = one - a, one + a
            for v, column in enumerate(columns):
                value = log_prob[k, column]
                highest, lowest = e.fma(value, to_high, b), e.fma(value, to_low, zero - b)
                better = best[v].get() < value
                loser = e.select(better, high[v].get(), highest)
                other[v].set(e.select(other[v].get() < loser, loser, other[v].get()))
                label[v].set(e.select(better, number, label[v].get()))
                high[v].set(e.select(better, highest, high[v].get()))
                low[v].set(e.select(better, lowest, low[v].get()))
                best[v].set(e.select(better, value, best[v].get()))
        for v, column in enumerate(columns):
            label_out[column] = label[v].get()
            certain_out[column] = e.select(other[v].get() < low[v].get(), one, zero)


def label_tile_by_one_bound(log_prob, n, slope, shift, label_out, certain_out, count_out):
    """Do as `label_tile_by_component_bounds`, with the bound for any component.

    ``count_out[0]`` receives the number of uncertain rows. With one bound, the second highest log-probability has the
    highest upper bound of all others, which halves the operations.
    """
    best, columns = log_prob[:, :n].argmax(axis=0), np.arange(n)
    label_out[:n] = best
    high, low = (log_prob[:, :n] * (1 - sign * slope[-1]) + sign * shift[-1] for sign in (1, -1))
    low = low[best, columns]
    high[best, columns] = -np.inf
    certain_out[:n] = high.max(axis=0) < low
    count_out[0] = n - certain_out[:n].sum()


@tile_operation(label_tile_by_one_bound)
def emit_label_tile_by_one_bound(
    e: Emitter, log_prob: Matrix, n, slope: Matrix, shift: Matrix, label_out: Matrix, certain_out: Matrix,
    count_out: Matrix,
):  # fmt: skip
    one, zero, n_uncertain = e.constant(1.0), e.constant(0.0), e.variable()
    last = e.add(slope.shape[0], -1)
    a, b = slope.splat(last), shift.splat(last)
    for columns in e.each_group(n, VECTORS):
        best, second = ([e.variable(-np.inf) for _ in columns] for _ in range(2))
        label = [e.variable() for _ in columns]
        for k in e.each(0, log_prob.shape[0]):
            number = e.splat(e.to_float(k))
            for v, column in enumerate(columns):
                value = log_prob[k, column]
                better = best[v].get() < value
                lower = e.select(better, best[v].get(), value)
                second[v].set(e.select(second[v].get() < lower, lower, second[v].get()))
                label[v].set(e.select(better, number, label[v].get()))
                best[v].set(e.select(better, value, best[v].get()))
        for v, column in enumerate(columns):
            high, low = e.fma(second[v].get(), one - a, b), e.fma(best[v].get(), one + a, zero - b)
            certain = e.select(high < low, one, zero)
            label_out[column], certain_out[column] = label[v].get(), certain
            n_uncertain.add(one - certain)
    e.builder.store(e.lane_sum(n_uncertain.get()), count_out.pointer)


@exact_leaf
def round_to_single(x, n, single_out):
    """Write a tile in float32."""
    for d in range(x.shape[0]):
        for i in range(n):
            single_out[d, i] = np.float32(x[d, i])


@exact_leaf
def record_labels(label, certain, n_rows, from_start, labels_out, indices_out, count):
    """Write labels, and append the uncertain rows to a list.

    The list holds indices from the chunk's first row on. Returns the length of the list.
    """
    for i in range(n_rows):
        labels_out[i] = np.int64(label[i])
        indices_out[count] = from_start + i
        count += certain[i] != 1
    return count


def label_listed_rows(
    memory, flat, row_stride, column_stride, start, indices, n_rows, origin, means, factor, log_coef, labels_out
):  # fmt: skip
    """Write the labels of the first rows of a list, in double precision.

    A template: `e_step_tile` is the layout's.
    """
    n_components, n_features = means.shape
    top, penalty, x = memory[0], memory[1], memory[2 : 2 + n_features]
    rest = memory[2 + n_features :]
    r, work = rest[:n_components], rest[n_components:]
    n = whole_vectors(n_rows)
    for i in range(n_rows, n):
        indices[i] = indices[n_rows - 1]
    load_listed(flat, row_stride, column_stride, start, indices, n, origin, x)
    e_step_tile(n, means, factor, log_coef, flat, 0, row_stride, x, r, work, top, penalty)
    for i in range(n_rows):
        best = 0
        for k in range(n_components - 1, -1, -1):
            best = k if r[k, i] == top[i] else best
        labels_out[start + indices[i]] = best


def evaluate_all(
    x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out, state
):  # fmt: skip
    """Write all log-probabilities of a tile.

    A template: `log_prob_tile` is the layout's.
    """
    log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out)


def evaluate_candidates(
    x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out, state
):  # fmt: skip
    """Write the log-probabilities that may be the highest.

    A template: `log_prob_tile` is the layout's. After a tile in which half of them or more had to be computed, the next
    tiles compute all. ``state[0]`` is that tile's number of log-probabilities, ``state[1]`` the number of tiles that
    still compute all.
    """
    if state[1] > 0:
        log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out)
        state[1] -= 1
    else:
        emit_highest_log_prob_tile(
            x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out, state
        )
        state[1] = TILES_WITHOUT_SEARCH if 2 * state[0] > n * means.shape[0] else 0


evaluate_tile = evaluate_all


def label_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, n_work, parameters_in_range, origin,
    means, factor, log_coef, means_single, factor_single, log_coef_single, empty_int32, labels_out,
):  # fmt: skip
    """Write the labels of the rows of chunk c.

    A template; see `_kernel`. Flops and cache: see the top of this file.

    Parameters
    ----------
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, origin, means, factor, log_coef
        As for `passes.accumulate_chunk`, in float64.
    n_work : int
        Rows of scratch for the log-probabilities.
    parameters_in_range : int
        Whether means and factors are below `MAX_MAGNITUDE`.
    means_single, factor_single, log_coef_single
        The parameters in float32.
    empty_int32 : (0,) int32
        Gives a dtype.
    labels_out : (N,) int64
    """
    n_components, n_features = means.shape
    indices = carve(memory, 0, 1, 2 * width, empty_int32)[0]
    x, other = memory[1 : 1 + n_features], memory[1 + n_features :]
    # Rows whose length is a power of two would compete for the same lines of L1.
    single = carve(other, 0, 3 + n_features + n_components + n_work, width + 16, log_coef_single)
    top, label, certain, x_single = single[0], single[1], single[2], single[3 : 3 + n_features]
    rest = single[3 + n_features :]
    r, work = rest[:n_components], rest[n_components:]
    start, stop, count = c * rows_per_chunk, min((c + 1) * rows_per_chunk, n_rows), 0
    slope, shift = np.empty(n_components + 1, np.float32), np.empty(n_components + 1, np.float32)
    max_abs, state = np.empty((1, n_features)), np.zeros(2, np.int64)
    for first in range(start, stop, width):
        n_tile_rows = min(width, stop - first)
        n = whole_vectors(n_tile_rows)
        load_tile(flat, row_stride, column_stride, first, n_tile_rows, n, origin, x, NO_PREFETCH)
        round_to_single(x, n, x_single)
        emit_max_abs_tile(x, n, max_abs)
        if bound_errors(parameters_in_range, max_abs[0], means, factor, log_coef, slope, shift):
            next_start = (first + width) * row_stride if column_stride == 1 else 0
            evaluate_tile(
                x_single, n, means_single, factor_single, log_coef_single, work, flat, next_start, row_stride, top, r,
                state,
            )  # fmt: skip
            emit_label_tile_by_one_bound(r, n, slope, shift, label, certain, top)
            if ROWS_PER_UNCERTAIN * top[0] > n:  # bounding all rows again costs less than these in double precision
                emit_label_tile_by_component_bounds(r, n, slope, shift, label, certain)
        else:
            for i in range(n_tile_rows):
                label[i] = certain[i] = 0
        count = record_labels(label, certain, n_tile_rows, first - start, labels_out[first:], indices, count)
        if count >= width:
            label_listed_rows(memory[1:], flat, row_stride, column_stride, start, indices, width, origin, means, factor,
                              log_coef, labels_out)  # fmt: skip
            count -= width
            for i in range(count):
                indices[i] = indices[width + i]
    if count > 0:
        label_listed_rows(memory[1:], flat, row_stride, column_stride, start, indices, count, origin, means, factor,
                          log_coef, labels_out)  # fmt: skip


def pays(dtype: np.dtype, n_samples: int, multiply_adds: float) -> bool:
    """Return whether labels are faster this way than with the score pass."""
    min_multiply_adds = max(runtime.MIN_PARALLEL_MULTIPLY_ADDS, MIN_MULTIPLY_ADDS_PER_ROW * n_samples)
    return dtype == np.float64 and multiply_adds > min_multiply_adds


def label(layout: str, rows: RowsView, n_samples: int, operands: tuple, labels_out: np.ndarray, multiply_adds: float):
    """Write the component of highest responsibility of each row.

    Of equals the first counts.

    Parameters
    ----------
    layout : {"full", "diagonal", "tied"}
    rows : RowsView
        float64.
    n_samples : int
    operands : Operands
        See `fastgmm.kernels.Operands`; float64.
    labels_out : (N,) int64
    multiply_adds : float
        Approximate number of multiply-adds of all rows together.
    """
    n_components, n_features = operands[1].shape
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    by_search = layout == "full" and n_features >= SEARCHED_FEATURES and n_components >= SEARCHED_COMPONENTS
    if by_search:
        n_work = partial_distance.work_rows(n_features)
    # A row of width + 16 float32 numbers is at most 5/9 of one of width + 8 float64 numbers. The few tiles in double
    # precision may exceed L2.
    rows_single = 1 + n_features + -(-5 * (3 + n_features + n_components + n_work) // 9)
    rows_double = 1 + 2 + n_features + n_components + n_work
    plan = tiling(n_samples, rows_single, rows.flat.dtype, multiply_adds=multiply_adds)
    with np.errstate(over="ignore"):  # infinite parameters have no bound, so that double precision is used
        single = [operand.astype(np.float32) for operand in operands[1:]]
    _kernel(layout, passes.specialised_n_features(layout, n_features), by_search)(
        plan.n_chunks,
        *rows,
        n_samples,
        plan.rows_per_chunk,
        plan.width,
        n_work,
        int(all(np.abs(operand).max(initial=0.0) < MAX_MAGNITUDE for operand in operands[1:3])),
        *operands,
        *single,
        np.empty(0, np.int32),
        labels_out,
        scratch=plan.scratch._replace(rows=max(rows_single, rows_double)),
        multiply_adds=multiply_adds,
    )


@functools.cache
def _kernel(layout: str, n_features: int, by_search: bool) -> Kernel:
    shared = passes.bound_leaves(layout, n_features)
    name = f"{layout}{n_features or ''}"
    evaluate = evaluate_candidates if by_search else evaluate_all
    names: dict[str, Callable] = {
        "evaluate_tile": exact_leaf(
            bind(evaluate, f"{evaluate.__name__}_{name}", log_prob_tile=shared["log_prob_tile"])
        ),
        "bound_errors": exact_leaf(bind(bound_errors, f"bound_errors_{layout}", entry_sum=ENTRY_SUMS[layout])),
        "label_listed_rows": exact_leaf(
            bind(label_listed_rows, f"label_listed_rows_{name}", e_step_tile=shared["e_step_tile"])
        ),
    }
    return Kernel(bind(label_chunk, f"labels_{name}{'_by_search' if by_search else ''}", **names))
