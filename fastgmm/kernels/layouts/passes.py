"""The two passes over the rows, written once for all layouts and dtypes.

`accumulate_chunk` computes sufficient statistics and the log-likelihood. `score_chunk` computes a log-density, a label
or responsibilities for each row. A chunk writes to its own row of the output and is processed tile by tile (see
`tiles`). The boundaries of chunks and tiles depend on the shape of the problem only, so that the same sums are formed
in the same order for any number of threads.

A layout is a module with

* ``log_prob_tile`` and ``add_moments``: naive NumPy functions that define the E-step and the M-step's sums of a tile,
* ``operations(n_features)``: the same two, compiled,
* ``work_rows(n_components, n_features)``: the scratch memory that they need,
* ``uses_sqrt_resp(n_features)``: whether ``add_moments`` reads square roots of responsibilities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, bind, exact_leaf
from fastgmm.kernels.tiles import responsibilities
from fastgmm.kernels.tiles.tiles import (
    add_to,
    any_overflowed,
    assign_overflowed,
    clear,
    copy_to,
    label_tile,
    load_weights,
    rescale_overflowed,
    take_square_roots,
    tile_arrays,
    weigh_labels,
    weigh_resp,
    weighted_sum,
    whole_vectors,
)
from fastgmm.kernels.tiles.transposition import NO_PREFETCH, load_tile, reload_columns, store_transposed

from . import diagonal, full, tied

LAYOUTS = {"full": full, "diagonal": diagonal, "tied": tied}

# Global names of the templates below, which `bound_leaves` replaces; the values here are those of the full layout.
log_prob_tile, add_moments, SQRT_RESP = full.log_prob_tile, full.add_moments, True
normalise_weighted, normalise, log_norm = (
    responsibilities.normalise_weighted_roots,
    responsibilities.normalise,
    responsibilities.log_norm,
)
# Rescalings of an overflowed row: by 2^-32 each, they cover the whole range of float64.
MAX_RESCALINGS = 70


def e_step_tile(n, means, factor, log_coef, flat, next_start, row_stride, x, log_prob, work, top, penalty):
    """Write a tile's log-probabilities, and the highest of each row.

    Returns whether a row overflowed. A template: `log_prob_tile` is the layout's. A row overflows if the squares of all
    its distances do. It belongs to its nearest component, which is found by moving the row towards the origin until one
    square is finite; by then the order of the distances depends on the row's direction only. If a row overflowed, its
    column of `x` has changed, and `penalty` is not 0 there.

    Parameters
    ----------
    n : int
        Columns in use, rounded up to whole vectors.
    means, factor, log_coef
        As in `fastgmm.kernels.Operands`.
    flat, next_start, row_stride
        The rows, where the next tile starts in `flat`, and the distance of two rows; to prefetch the next tile.
    x : (D, T)
        Rows minus the origin.
    log_prob : (K, T)
        Receives the log-probabilities.
    work : (work_rows, T)
        Scratch memory.
    top : (T,)
        Receives the highest log-probability of each row.
    penalty : (T,)
        Receives -inf for an overflowed row and 0 for the others, if there is an overflowed row.
    """
    n_rescalings = 0
    for _ in range(MAX_RESCALINGS):
        log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top, log_prob)
        if not any_overflowed(top, n):
            break
        if n_rescalings == 0:
            clear(penalty, n)
        rescale_overflowed(x, n, top, penalty)
        n_rescalings += 1
    if n_rescalings > 0:
        assign_overflowed(log_prob, n, penalty, top)
    return n_rescalings > 0


def accumulate_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, labels, resp, origin,
    means, factor, log_coef, weight_sums_out, first_out, scatter_out, log_likelihood_out, row_values_out,
):  # fmt: skip
    """Add the sufficient statistics of chunk c to row c of the outputs.

    A template; see `bound_leaves`. Responsibilities come from `labels` or `resp`, or, if both are empty, from the
    E-step.

    Flops per row: those of the layout's ``log_prob_tile`` and ``add_moments`` (see the layout's module), K exponentials
    and one logarithm. Cache: all arrays of a tile, (4 + D + K + work_rows) T numbers, in L2; the parameters in L1 or
    L2; the chunk's sums in L2.

    Parameters
    ----------
    c : int
        The chunk.
    memory : (4 + D + K + work_rows, T or more)
        Scratch memory of the thread.
    flat, row_stride, column_stride
        The rows; see `rows.RowsView`.
    n_rows, rows_per_chunk, width : int
        All rows, rows of a chunk, rows of a tile.
    sample_weight : (N,) or (0,) float64
        Empty if all weights are 1.
    labels : (N,) or (0,) int32
    resp : (N, K) or (0, 0)
    origin, means, factor, log_coef
        As in `fastgmm.kernels.Operands`.
    weight_sums_out, first_out, scatter_out, log_likelihood_out : float64
        Row c receives the sums; see `fastgmm.kernels.accumulate`.
    row_values_out : (0, 2 or 2 + K; N)
        With an E-step, row 0 receives each row's highest log-probability, row 1 the sum of ``exp(log_prob - highest)``,
        and row 2 + k what ``add_moments`` reads for component k: the responsibility times the weight, or its root.
    """
    weight, top, total, penalty, x, r, work = tile_arrays(memory, means.shape)
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        n_tile_rows = min(width, stop - first)
        n = whole_vectors(n_tile_rows)
        resp_given = labels.shape[0] + resp.shape[0]
        # Without an E-step, which prefetches the next tile, loading does.
        load_tile(flat, row_stride, column_stride, first, n_tile_rows, n, origin, x, resp_given)
        load_weights(sample_weight, first, n_tile_rows, n, weight)
        if resp_given > 0:
            if labels.shape[0] > 0:
                weigh_labels(labels, first, n_tile_rows, n, weight, r)
            else:
                weigh_resp(resp, first, n_tile_rows, n, weight, r)
            if SQRT_RESP:
                take_square_roots(r, n)
        else:
            next_start = (first + width) * row_stride if column_stride == 1 else 0  # C order, else no new rows
            overflowed = e_step_tile(n, means, factor, log_coef, flat, next_start, row_stride, x, r, work, top, penalty)
            normalise_weighted(r, n, top, weight, sample_weight.shape[0], total, log_likelihood_out[c : c + 1])
            if overflowed:
                add_to(penalty, n, top)
                reload_columns(flat, row_stride, column_stride, first, n_tile_rows, penalty, origin, x)
            log_likelihood_out[c] += weighted_sum(top, weight, n)
            if row_values_out.shape[0] > 0:
                copy_to(top, n_tile_rows, row_values_out[0, first:])
                copy_to(total, n_tile_rows, row_values_out[1, first:])
                for k in range(row_values_out.shape[0] - 2):
                    copy_to(r[k], n_tile_rows, row_values_out[2 + k, first:])
        add_moments(x, n, r, means, work, weight_sums_out[c], first_out[c], scatter_out[c])


def score_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, origin, means, factor, log_coef,
    log_prob_norm_out, max_log_resp_out, labels_out, resp_out,
):  # fmt: skip
    """Write the requested results for the rows of chunk c.

    A template; see `bound_leaves`. An output that is not requested is empty.

    Flops per row: those of the layout's ``log_prob_tile``, and, unless only labels are requested, K exponentials and
    one logarithm. Cache: as for `accumulate_chunk`.

    Parameters
    ----------
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, origin, means, factor, log_coef
        As for `accumulate_chunk`.
    log_prob_norm_out, max_log_resp_out : (N,) or (0,)
    labels_out : (N,) or (0,) int64
    resp_out : (N, K) or (0, 0)
    """
    _, top, norm, penalty, x, r, work = tile_arrays(memory, means.shape)
    only_labels = log_prob_norm_out.shape[0] + max_log_resp_out.shape[0] + resp_out.shape[0] == 0
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        n_tile_rows = min(width, stop - first)
        n = whole_vectors(n_tile_rows)
        load_tile(flat, row_stride, column_stride, first, n_tile_rows, n, origin, x, NO_PREFETCH)
        next_start = (first + width) * row_stride if column_stride == 1 else 0  # C order, else no new rows
        overflowed = e_step_tile(n, means, factor, log_coef, flat, next_start, row_stride, x, r, work, top, penalty)
        if labels_out.shape[0] > 0:
            label_tile(r, n_tile_rows, top, labels_out[first:])
        if only_labels:
            continue
        if resp_out.shape[0] > 0:
            normalise(r, n, top, norm)
            store_transposed(r, n_tile_rows, resp_out[first:])
        else:
            log_norm(r, n, top, norm)
        if max_log_resp_out.shape[0] > 0:
            for i in range(n_tile_rows):
                max_log_resp_out[first + i] = top[i] - norm[i]
        if log_prob_norm_out.shape[0] > 0:
            if overflowed:
                add_to(penalty, n, norm)
            copy_to(norm, n_tile_rows, log_prob_norm_out[first:])


@functools.cache
def bound_leaves(layout: str, n_features: int) -> dict[str, object]:
    """Return the values of the templates' global names for a layout.

    `n_features` is the number of features that the code is specialised for; 0 for any number.
    """
    names: dict[str, object] = dict(LAYOUTS[layout].operations(n_features))
    shared = responsibilities.operations()
    sqrt_resp = LAYOUTS[layout].uses_sqrt_resp(n_features)
    names["e_step_tile"] = exact_leaf(bind(e_step_tile, f"e_step_{layout}_{n_features}", **names))
    names["SQRT_RESP"] = sqrt_resp
    names["normalise_weighted"] = shared["normalise_weighted_roots" if sqrt_resp else "normalise_weighted"]
    names["normalise"], names["log_norm"] = shared["normalise"], shared["log_norm"]
    return names


def kernel(pass_name: str, layout: str, dtype: np.dtype, n_features: int) -> Kernel:
    """Return the compiled pass of a layout and dtype, specialised for few features.

    `pass_name` is "accumulate" or "score".
    """
    return _kernel(pass_name, layout, dtype, specialised_n_features(layout, n_features))


def specialised_n_features(layout: str, n_features: int) -> int:
    """Return the number of features that the code is specialised for, 0 for any."""
    return n_features if layout == "full" and n_features <= full.UNROLLED_FEATURES else 0


@functools.cache
def _kernel(pass_name: str, layout: str, dtype: np.dtype, n_features: int) -> Kernel:
    templates: dict[str, Callable] = {"accumulate": accumulate_chunk, "score": score_chunk}
    name = f"{pass_name}_{layout}{n_features or ''}_{dtype}"
    return Kernel(bind(templates[pass_name], name, **bound_leaves(layout, n_features)))
