"""The two passes over the rows, written once and bound to the arithmetic of each layout and dtype.

`accumulate_chunk` turns rows into sufficient statistics and the log-likelihood; `score_chunk` into a number, a label or
responsibilities for every row. The rows are cut into chunks whose boundaries depend on the shape of the problem alone;
a chunk has its own row of the output and is walked in tiles (see `tiles`). Whatever the number of threads, the same
sums are formed in the same order: the same bits.

A layout is a module with `work_rows`, the scratch it wants; `operations`, its compiled `log_prob_tile` and
`add_moments`, beside their naive twins; and `uses_sqrt_resp`, whether its moments read square roots of
responsibilities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, bind, exact_leaf
from fastgmm.kernels.tiles import responsibilities
from fastgmm.kernels.tiles.tiles import (
    add_to,
    any_lost,
    clear,
    copy_to,
    draw_lost_nearer,
    label_tile,
    load_weights,
    root_of,
    settle_lost,
    tile_arrays,
    weigh_labels,
    weigh_resp,
    weighted_sum,
    whole_vectors,
)
from fastgmm.kernels.tiles.transposition import NO_PREFETCH, load_tile, reload_columns, store_transposed

from . import diagonal, full, tied

LAYOUTS = {"full": full, "diagonal": diagonal, "tied": tied}

# The names that `kernel` binds, by layout; here they stand for the full one.
log_prob_tile, add_moments, ROOT = full.log_prob_tile, full.add_moments, True
normalise_weighted, normalise, log_norm = (
    responsibilities.share_out_roots,
    responsibilities.normalise,
    responsibilities.log_norm,
)
# How often a row that is out of range is drawn nearer: 2^-32 at a time crosses the whole range of float64.
N_RESCALE = 70


def e_step_tile(n, means, factor, log_coef, flat, ahead, row_stride, x, log_prob, work, top, penalty):
    """E-step of a tile as far as log-probabilities, the highest of each row on `top`. (A template.)

    A row so far from everything that the squares of all its distances overflow belongs to its nearest component: drawn
    towards the origin until one square does not overflow, the order of its distances, by then that of its direction
    alone, is right. Returns whether there was such a row; `x` is no longer right in its column, and `penalty` says
    which.
    """
    n_drawn = 0
    for _ in range(N_RESCALE):
        log_prob_tile(x, n, means, factor, log_coef, work, flat, ahead, row_stride, top, log_prob)
        if not any_lost(top, n):
            break
        if n_drawn == 0:
            clear(penalty, n)
        draw_lost_nearer(x, n, top, penalty)
        n_drawn += 1
    if n_drawn > 0:
        settle_lost(log_prob, n, penalty, top)
    return n_drawn > 0


def accumulate_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, sample_weight, labels, resp, origin,
    means, factor, log_coef, weight_sums_out, first_out, scatter_out, log_likelihood_out, rows_out,
):  # fmt: skip
    """Sufficient statistics of the rows of chunk c, into row c of the outputs. (A template.)

    Responsibilities are those given by `labels` or `resp`, or, if both are empty, those of the E-step. Of this
    `rows_out`, of nothing, two or 2 + K rows, receives each row's highest log-probability, the sum of all relative to
    that, and what the M-step weighs it by for each component.
    """
    weight, top, total, penalty, x, r, work = tile_arrays(memory, means.shape)
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        given = labels.shape[0] + resp.shape[0]
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, given)  # or the E-step prefetches
        load_weights(sample_weight, first, rows, n, weight)
        if given > 0:
            if labels.shape[0] > 0:
                weigh_labels(labels, first, rows, n, weight, r)
            else:
                weigh_resp(resp, first, rows, n, weight, r)
            if ROOT:
                root_of(r, n)
        else:
            ahead = (first + width) * row_stride if column_stride == 1 else 0  # C order, or nothing new
            lost = e_step_tile(n, means, factor, log_coef, flat, ahead, row_stride, x, r, work, top, penalty)
            normalise_weighted(r, n, top, weight, sample_weight.shape[0], total, log_likelihood_out[c : c + 1])
            if lost:
                add_to(penalty, n, top)
                reload_columns(flat, row_stride, column_stride, first, rows, penalty, origin, x)
            log_likelihood_out[c] += weighted_sum(top, weight, n)
            if rows_out.shape[0] > 0:
                copy_to(top, rows, rows_out[0, first:])
                copy_to(total, rows, rows_out[1, first:])
                for k in range(rows_out.shape[0] - 2):
                    copy_to(r[k], rows, rows_out[2 + k, first:])
        add_moments(x, n, r, means, work, weight_sums_out[c], first_out[c], scatter_out[c])


def score_chunk(
    c, memory, flat, row_stride, column_stride, n_rows, rows_per_chunk, width, origin, means, factor, log_coef,
    log_prob_norm_out, max_log_resp_out, labels_out, resp_out,
):  # fmt: skip
    """Log-density, log of the highest responsibility, label and responsibilities of the rows of chunk c. (A template.)

    An empty output is left alone.
    """
    _, top, norm, penalty, x, r, work = tile_arrays(memory, means.shape)
    only_labels = log_prob_norm_out.shape[0] + max_log_resp_out.shape[0] + resp_out.shape[0] == 0
    stop = min((c + 1) * rows_per_chunk, n_rows)
    for first in range(c * rows_per_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x, NO_PREFETCH)
        ahead = (first + width) * row_stride if column_stride == 1 else 0  # C order, or nothing new
        lost = e_step_tile(n, means, factor, log_coef, flat, ahead, row_stride, x, r, work, top, penalty)
        if labels_out.shape[0] > 0:
            label_tile(r, rows, top, labels_out[first:])
        if only_labels:
            continue
        if resp_out.shape[0] > 0:
            normalise(r, n, top, norm)
            store_transposed(r, rows, resp_out[first:])
        else:
            log_norm(r, n, top, norm)
        if max_log_resp_out.shape[0] > 0:
            for i in range(rows):
                max_log_resp_out[first + i] = top[i] - norm[i]
        if log_prob_norm_out.shape[0] > 0:
            if lost:
                add_to(penalty, n, norm)
            copy_to(norm, rows, log_prob_norm_out[first:])


@functools.cache
def bound_leaves(layout: str, n_features: int) -> dict[str, object]:
    """What the templates above call, for one layout and number of features (0 for any)."""
    names: dict[str, object] = dict(LAYOUTS[layout].operations(n_features))
    shared = responsibilities.operations()
    root = LAYOUTS[layout].uses_sqrt_resp(n_features)
    names["e_step_tile"] = exact_leaf(bind(e_step_tile, f"expect_{layout}_{n_features}", **names))
    names["ROOT"] = root
    names["normalise_weighted"] = shared["share_out_roots" if root else "normalise_weighted"]
    names["normalise"], names["log_norm"] = shared["normalise"], shared["log_norm"]
    return names


def kernel(operation: str, layout: str, dtype: np.dtype, n_features: int) -> Kernel:
    """The compiled "accumulate" or "score" of one layout and dtype, made for a number of features if it is small."""
    return _kernel(operation, layout, dtype, specialised_n_features(layout, n_features))


def specialised_n_features(layout: str, n_features: int) -> int:
    """For how many features the code is made that runs: 0 for any number."""
    return n_features if layout == "full" and n_features <= full.UNROLLED else 0


@functools.cache
def _kernel(operation: str, layout: str, dtype: np.dtype, n_features: int) -> Kernel:
    templates: dict[str, Callable] = {"accumulate": accumulate_chunk, "score": score_chunk}
    name = f"{operation}_{layout}{n_features or ''}_{dtype}"
    return Kernel(bind(templates[operation], name, **bound_leaves(layout, n_features)))
