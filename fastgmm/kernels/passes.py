"""The two passes over the rows, written once and bound to the arithmetic of each layout and dtype.

`accumulate_chunk` turns rows into sufficient statistics and the log-likelihood; `score_chunk` into a number, a label or
responsibilities for every row. The rows are cut into chunks whose boundaries depend on the shape of the problem alone;
a chunk has its own row of the output and is walked in tiles (see `tiles`). Whatever the number of threads, the same
sums are formed in the same order: the same bits.

A layout is a module with four functions: `work_rows`, `prepare`, `log_prob_tile` and `add_moments`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from . import diagonal, full, numerics, tied, tiles
from .runtime import Kernel, bind, exact_leaf
from .tiles import (
    add_weight_sums,
    draw_lost_nearer,
    highest,
    label_tile,
    load_tile,
    load_weights,
    normalise,
    reload_columns,
    settle_lost,
    store_transposed,
    tile_arrays,
    weigh_labels,
    weigh_resp,
    weighted_sum,
    whole_vectors,
)

LAYOUTS = {"full": full, "diagonal": diagonal, "tied": tied}
NUMERICS = {
    np.dtype(np.float64): (numerics.exp_float64, numerics.log_float64),
    np.dtype(np.float32): (numerics.exp_float32, numerics.log_float32),
}

# The names that `kernel` binds; here they stand for the full layout in float64.
prepare, log_prob_tile, add_moments = full.prepare, full.log_prob_tile, full.add_moments
exponentiate, log_total = tiles.exponentiate, tiles.log_total
# How often a row that is out of range is drawn nearer: 2^-32 at a time crosses the whole range of float64.
N_RESCALE = 70
NO_WEIGHTS = np.empty(0)


def expect(n, means, factor, log_coef, x, log_prob, work, top, penalty):
    """E-step of a tile as far as log-probabilities, the highest of each row on `top`. (A template.)

    A row so far from everything that the squares of all its distances overflow belongs to its nearest component: drawn
    towards the origin until one square does not overflow, the order of its distances, by then that of its direction
    alone, is right. Returns whether there was such a row; `x` is no longer right in its column.
    """
    for i in range(n):
        penalty[i] = 0
    n_drawn = 0
    for _ in range(N_RESCALE):
        prepare(x, n, factor, work)
        log_prob_tile(x, n, means, factor, log_coef, work, log_prob)
        if highest(log_prob, n, top) == 0:
            break
        draw_lost_nearer(x, n, top, penalty)
        n_drawn += 1
    if n_drawn > 0:
        settle_lost(log_prob, n, penalty, top)
    return n_drawn > 0


def accumulate_chunk(
    c, flat, row_stride, column_stride, n_rows, rows_a_chunk, width, n_work, sample_weight, labels, resp, origin, means,
    factor, log_coef, weight_sums_out, first_out, scatter_out, log_likelihood_out,
):  # fmt: skip
    """Sufficient statistics of the rows of chunk c, into row c of the outputs. (A template.)

    Responsibilities are those given by `labels` or `resp`, or, if both are empty, those of the E-step.
    """
    weight, top, total, norm, penalty, x, r, work = tile_arrays(means.shape, n_work, width, flat)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x)
        load_weights(sample_weight, first, rows, n, weight)
        if labels.shape[0] > 0:
            weigh_labels(labels, first, rows, n, weight, r)
        elif resp.shape[0] > 0:
            weigh_resp(resp, first, rows, n, weight, r)
        else:
            if expect(n, means, factor, log_coef, x, r, work, top, penalty):
                reload_columns(flat, row_stride, column_stride, first, rows, penalty, origin, x)
            exponentiate(r, n, top, total)
            log_total(n, top, total, penalty, norm)
            log_likelihood_out[c] += weighted_sum(norm, weight, n)
            normalise(r, n, weight, total)
        add_weight_sums(r, n, weight_sums_out[c])
        add_moments(x, n, r, means, work, first_out[c], scatter_out[c])


def score_chunk(
    c, flat, row_stride, column_stride, n_rows, rows_a_chunk, width, n_work, origin, means, factor, log_coef,
    log_prob_norm_out, max_log_resp_out, labels_out, resp_out,
):  # fmt: skip
    """Log-density, log of the highest responsibility, label and responsibilities of the rows of chunk c. (A template.)

    An empty output is left alone.
    """
    weight, top, total, norm, penalty, x, r, work = tile_arrays(means.shape, n_work, width, flat)
    only_labels = log_prob_norm_out.shape[0] + max_log_resp_out.shape[0] + resp_out.shape[0] == 0
    load_weights(NO_WEIGHTS, 0, width, width, weight)
    stop = min((c + 1) * rows_a_chunk, n_rows)
    for first in range(c * rows_a_chunk, stop, width):
        rows = min(width, stop - first)
        n = whole_vectors(rows)
        load_tile(flat, row_stride, column_stride, first, rows, n, origin, x)
        expect(n, means, factor, log_coef, x, r, work, top, penalty)
        if labels_out.shape[0] > 0:
            label_tile(r, rows, top, labels_out[first:])
        if only_labels:
            continue
        exponentiate(r, n, top, total)
        log_total(n, top, total, penalty, norm)
        if log_prob_norm_out.shape[0] > 0:
            log_prob_norm_out[first : first + rows] = norm[:rows]
        if max_log_resp_out.shape[0] > 0:
            for i in range(rows):
                max_log_resp_out[first + i] = top[i] - norm[i] if penalty[i] == 0 else 0
        if resp_out.shape[0] > 0:
            normalise(r, n, weight, total)
            store_transposed(r, rows, resp_out[first:])


@functools.cache
def bound_leaves(layout: str, dtype: np.dtype) -> dict:
    """What the templates above call, for one layout and dtype."""
    exp, log = NUMERICS[dtype]
    suffix = f"{layout}_{dtype}"
    names = {name: getattr(LAYOUTS[layout], name) for name in ("prepare", "log_prob_tile", "add_moments")}
    names["exponentiate"] = exact_leaf(bind(tiles.exponentiate, f"exponentiate_{dtype}", exp=exp))
    names["log_total"] = exact_leaf(bind(tiles.log_total, f"log_total_{dtype}", log=log))
    names["expect"] = exact_leaf(bind(expect, f"expect_{suffix}", **names))
    return names


@functools.cache
def kernel(operation: str, layout: str, dtype: np.dtype) -> Kernel:
    """The compiled "accumulate" or "score" of one layout and dtype."""
    templates: dict[str, Callable] = {"accumulate": accumulate_chunk, "score": score_chunk}
    return Kernel(bind(templates[operation], f"{operation}_{layout}_{dtype}", **bound_leaves(layout, dtype)))
