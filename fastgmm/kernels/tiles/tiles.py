"""What every layout does with a tile: a few hundred rows, transposed, so that a SIMD lane is a row.

A tile's arrays are ``(something, T)`` with T the tile's width; its first ``n`` columns hold rows. Everything runs over
the first ``m``, which is n rounded up to whole vectors: the columns between hold zeros, with weight 0. With T chosen by
`rows.tiling` all of a tile's arrays together stay in the L2 cache, so nothing of the order of rows x
components ever reaches main memory.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import COLUMN_MULTIPLE

from .numerics import mix64, uniform

NO_RESP = np.int64(0)  # typed, or a leaf is compiled anew for it
RESCALE = np.float32(2.0**-32)


@exact_leaf
def tile_arrays(memory, shape):
    """The arrays of a tile: four rows of one number a column, the features, the responsibilities, and the rest."""
    n_components, n_features = shape
    x, rest = memory[4 : 4 + n_features], memory[4 + n_features :]
    return memory[0], memory[1], memory[2], memory[3], x, rest[:n_components], rest[n_components:]


@exact_leaf
def whole_vectors(n):
    """Round n up to whole vectors of either dtype."""
    return (n + COLUMN_MULTIPLE - 1) // COLUMN_MULTIPLE * COLUMN_MULTIPLE


@exact_leaf
def load_weights(sample_weight, start, n, m, weight_out):
    """The rows' weights (an empty `sample_weight` stands for ones), 0 from n up to m."""
    for i in range(n):
        weight_out[i] = sample_weight[start + i] if sample_weight.shape[0] > 0 else 1
    for i in range(n, m):
        weight_out[i] = 0


@exact_leaf
def weigh_labels(labels, start, n, m, weight, resp_out):
    """Responsibilities from labels: the row's weight at its label, 0 elsewhere; a negative label belongs nowhere."""
    for k in range(resp_out.shape[0]):
        for i in range(m):
            resp_out[k, i] = 0
    for i in range(n):
        if labels[start + i] >= 0:
            resp_out[labels[start + i], i] = weight[i]


@exact_leaf
def weigh_resp(resp, start, n, m, weight, resp_out):
    """Responsibilities as given, times the rows' weights."""
    for k in range(resp_out.shape[0]):
        for i in range(n):
            resp_out[k, i] = resp[start + i, k] * weight[i]
        for i in range(n, m):
            resp_out[k, i] = 0


@exact_leaf
def root_of(resp, n):
    """Replace responsibilities by their square roots."""
    for k in range(resp.shape[0]):
        for i in range(n):
            resp[k, i] = np.sqrt(resp[k, i])


@exact_leaf
def any_lost(top, n):
    """Whether a column has nothing above -inf."""
    lost = 0
    for i in range(n):
        lost += top[i] == -np.inf
    return lost > 0


# Assignments to slices take Numba three seconds to compile: they can fail, with a message to be put together.
@exact_leaf
def copy_to(values, n, copy_out):
    for i in range(n):
        copy_out[i] = values[i]


@exact_leaf
def clear(values_out, n):
    for i in range(n):
        values_out[i] = 0


@exact_leaf
def add_to(values, n, sum_out):
    """``sum_out[i] += values[i]``."""
    for i in range(n):
        sum_out[i] += values[i]


@reducing_leaf
def weighted_sum(values, weight, n):
    """``sum_i weight[i] values[i]`` in float64; a row of weight 0 adds 0 whatever its value."""
    result = 0.0
    for i in range(n):
        result += np.float64(weight[i]) * np.float64(values[i]) if weight[i] != 0 else 0.0
    return result


@exact_leaf
def draw_lost_nearer(x, n, top, penalty_out):
    """Where nothing is above -inf, multiply the row by 2^-32; its log-density is -inf in this dtype: its penalty."""
    for i in range(n):
        if top[i] == -np.inf:
            penalty_out[i] = -np.inf
            for d in range(x.shape[0]):
                x[d, i] *= RESCALE


@exact_leaf
def settle_lost(log_prob, n, penalty, top):
    """Give a row with a penalty to its nearest component alone: log-probability 0 there, -inf elsewhere, 0 on top."""
    for i in range(n):
        if penalty[i] != 0:
            nearest = 0
            for k in range(log_prob.shape[0]):
                if log_prob[k, i] > log_prob[nearest, i]:
                    nearest = k
            for k in range(log_prob.shape[0]):
                log_prob[k, i] = -np.inf
            log_prob[nearest, i] = 0
            top[i] = 0


@exact_leaf
def label_tile(log_prob, n, top, labels_out):
    """``labels_out[i] = argmax_k log_prob[k, i]``, the first of equals; 0 for a row of NaN."""
    for i in range(n):
        labels_out[i] = 0
    for k in range(log_prob.shape[0] - 1, -1, -1):
        for i in range(n):
            labels_out[i] = k if log_prob[k, i] == top[i] else labels_out[i]


@exact_leaf
def hash_row(flat, row_stride, column_stride, row, n_features, seed):
    """A 64-bit word made of a row's contents and a seed: equal rows have equal words, in either dtype and any order."""
    word = seed
    for d in range(n_features):
        value = np.float64(flat[row * row_stride + d * column_stride]) + 0.0  # -0.0 becomes 0.0
        word = mix64(word ^ np.float64(value).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    return word


@exact_leaf
def uniform_of(word, counter):
    """The random number number `counter` of the stream that a 64-bit word starts."""
    return uniform(mix64(word + np.uint64(counter + 1) * np.uint64(0x9E3779B97F4A7C15)))
