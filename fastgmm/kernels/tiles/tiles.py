"""Operations on a tile that every layout uses.

A tile is a few hundred rows, transposed, so that a SIMD lane is a row. Its arrays have the shape ``(..., T)``, where T
is the tile's width. The first ``n`` columns hold rows. Everything runs over the first ``m`` columns, which is n rounded
up to whole vectors; the columns from n to m hold zeros of weight 0.

Cache: `rows.tiling` chooses T so that all arrays of a tile together stay in L2. Nothing of the size of rows times
components is ever written to main memory.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import COLUMN_MULTIPLE

from .numerics import mix64, uniform

NO_RESP = np.int64(0)  # typed: Numba compiles a leaf again for every literal integer
RESCALE = np.float32(2.0**-32)


@exact_leaf
def tile_arrays(memory, shape):
    """Return a tile's arrays in scratch memory.

    These are four arrays (T,), the features (D, T), the responsibilities (K, T), and the remaining rows. `shape` is (K,
    D).
    """
    n_components, n_features = shape
    x, rest = memory[4 : 4 + n_features], memory[4 + n_features :]
    return memory[0], memory[1], memory[2], memory[3], x, rest[:n_components], rest[n_components:]


@exact_leaf
def whole_vectors(n):
    """Return n rounded up to whole vectors of either dtype."""
    return (n + COLUMN_MULTIPLE - 1) // COLUMN_MULTIPLE * COLUMN_MULTIPLE


@exact_leaf
def load_weights(sample_weight, start, n, m, weight_out):
    """Write the rows' weights (1 if `sample_weight` is empty), and 0 from n to m."""
    for i in range(n):
        weight_out[i] = sample_weight[start + i] if sample_weight.shape[0] > 0 else 1
    for i in range(n, m):
        weight_out[i] = 0


@exact_leaf
def weigh_labels(labels, start, n, m, weight, resp_out):
    """Write responsibilities from labels.

    They are the row's weight at its label, else 0; all 0 for a negative label.
    """
    for k in range(resp_out.shape[0]):
        for i in range(m):
            resp_out[k, i] = 0
    for i in range(n):
        if labels[start + i] >= 0:
            resp_out[labels[start + i], i] = weight[i]


@exact_leaf
def weigh_resp(resp, start, n, m, weight, resp_out):
    """Write the responsibilities that the user gave times the rows' weights."""
    for k in range(resp_out.shape[0]):
        for i in range(n):
            resp_out[k, i] = resp[start + i, k] * weight[i]
        for i in range(n, m):
            resp_out[k, i] = 0


@exact_leaf
def take_square_roots(resp, n):
    """Replace responsibilities by their square roots."""
    for k in range(resp.shape[0]):
        for i in range(n):
            resp[k, i] = np.sqrt(resp[k, i])


@exact_leaf
def any_overflowed(top, n):
    """Return whether all log-probabilities of some column are -inf."""
    n_overflowed = 0
    for i in range(n):
        n_overflowed += top[i] == -np.inf
    return n_overflowed > 0


# Loops instead of assignments to slices, which take Numba three seconds to compile because they can raise.
@exact_leaf
def copy_to(values, n, copy_out):
    """Write ``copy_out[i] = values[i]`` for i < n."""
    for i in range(n):
        copy_out[i] = values[i]


@exact_leaf
def clear(values_out, n):
    """Write zeros."""
    for i in range(n):
        values_out[i] = 0


@exact_leaf
def add_to(values, n, sum_out):
    """Add ``values[i]`` to ``sum_out[i]`` for i < n."""
    for i in range(n):
        sum_out[i] += values[i]


@reducing_leaf
def weighted_sum(values, weight, n):
    """Return ``sum_i weight[i] values[i]`` in float64.

    A row of weight 0 adds 0 whatever its value.
    """
    result = 0.0
    for i in range(n):
        result += np.float64(weight[i]) * np.float64(values[i]) if weight[i] != 0 else 0.0
    return result


@exact_leaf
def rescale_overflowed(x, n, top, penalty_out):
    """Multiply overflowed rows by 2^-32, and give them the penalty -inf.

    A row has overflowed if all its log-probabilities are -inf. The penalty is added to the log-density later: in this
    dtype it is -inf.
    """
    for i in range(n):
        if top[i] == -np.inf:
            penalty_out[i] = -np.inf
            for d in range(x.shape[0]):
                x[d, i] *= RESCALE


@exact_leaf
def assign_overflowed(log_prob, n, penalty, top):
    """Assign rows with a penalty to their nearest component.

    The log-probability is 0 there and -inf elsewhere.
    """
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
    """Write the component of the highest log-probability of each column.

    Of equals the first counts; a row with NaN gets 0.
    """
    for i in range(n):
        labels_out[i] = 0
    for k in range(log_prob.shape[0] - 1, -1, -1):
        for i in range(n):
            labels_out[i] = k if log_prob[k, i] == top[i] else labels_out[i]


@exact_leaf
def hash_row(flat, row_stride, column_stride, row, n_features, seed):
    """Return a 64-bit word made of a row's contents and a seed.

    Equal rows have equal words, in either dtype.
    """
    word = seed
    for d in range(n_features):
        value = np.float64(flat[row * row_stride + d * column_stride]) + 0.0  # -0.0 becomes 0.0
        word = mix64(word ^ np.float64(value).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    return word


@exact_leaf
def uniform_of(word, counter):
    """Return random number `counter` of the sequence that a 64-bit word starts."""
    return uniform(mix64(word + np.uint64(counter + 1) * np.uint64(0x9E3779B97F4A7C15)))
