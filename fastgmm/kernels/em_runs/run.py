"""Runs of EM on few rows: no Python between two iterations.

With few rows, an iteration takes microseconds, and the Python around it a hundred times as long. Here a run is one
compiled function, and several runs, a chunk each, may share the threads. The passes over the rows and the M-steps are
called by address: the run is compiled once, whatever the layout and the model (see `compiler.entry`).

A run hands over to the steps from Python where something rare needs a decision: a covariance that is not positive
definite, a likelihood that is not finite, tied components that are too far apart for the tied layout. The parameters
are then those before the iteration.

Flops and cache: those of the passes, see `fastgmm.kernels.accumulate`, and of the M-step.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastgmm.kernels.compiler.entry import call_entry
from fastgmm.kernels.compiler.numba_internals import call_address, read_array, write_array
from fastgmm.kernels.compiler.runtime import Kernel, carve, compact, exact_leaf
from fastgmm.kernels.matrices.cholesky import BLOCK

from . import trend as trends
from .compiled import compiled_leaf
from .steps import (
    MIN_WEIGHT_SUM,
    amplification,
    average_scatter,
    operands_lose_digits,
    scatter_about_means,
    total_scatter_is_lossy,
    write_factors,
    write_operands,
    write_origin,
)

# How a run ended: after its largest number of steps, because it converged, or because Python must go on.
LIMIT, CONVERGED, HANDED_OVER = 0, 1, 2
# Positions of addresses, of the numbers of a problem, and of the options.
PASS_ENTRY, PASS, MAXIMISE = 0, 1, 2
SCALE, TOTAL_WEIGHT = 0, 1
TOL, LIMIT_TOL, REG_COVAR, ROUNDING, STOP_BELOW = 0, 1, 2, 3, 4
N_STEPS, STATUS = 0, 1

M_STEP_TYPES = (
    types.Array(types.float64, 3, "C"),
    types.Array(types.float64, 1, "C"),
    types.Array(types.float64, 3, "C"),
    types.Array(types.float64, 3, "C"),
)


@intrinsic
def as_bytes(typing_context, memory):
    """Return the memory of a two-dimensional array as bytes."""
    array_type = types.Array(types.uint8, 1, "C")

    def code_generator(context, builder, signature, values):
        source = read_array(context, builder, signature.args[0], values[0])
        rows, columns = (builder.extract_value(source.shape, axis) for axis in range(2))
        itemsize = context.get_constant(types.intp, signature.args[0].dtype.bitwidth // 8)
        size = builder.mul(builder.mul(rows, columns), itemsize)
        return write_array(context, builder, array_type, source.data, [size])

    return array_type(memory), code_generator


@intrinsic
def call_maximise(typing_context, address, scatter, counts, before, covariances_out):
    """Call the compiled M-step of a covariance model at an address; see `m_steps.compiled_m_step`."""

    def code_generator(context, builder, signature, values):
        call_address(context, builder, values[0], M_STEP_TYPES, values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *M_STEP_TYPES), code_generator


record_bound, mark_rounding = compiled_leaf(trends.record_bound), compiled_leaf(trends.mark_rounding)
is_settled, is_small_fall = compiled_leaf(trends.is_settled), compiled_leaf(trends.is_small_fall)


def em_chunk(
    c, memory, calls, words, numbers, options, max_steps, is_shared, is_diagonal, pools_components,
    scatter_word, label_word, origin, centred,
    log_coef, weight_sums, first, scatter, log_likelihood, weights, means, covariances, factor, weights_before_out,
    means_before_out, covariances_before_out, factor_before_out, trend, bounds_out, ended_out,
):  # fmt: skip
    """Run EM for problem c, and update its parameters.

    Flops and cache: see the top of this file. The first axis of all arrays but `calls` and `options` is the problem.

    Parameters
    ----------
    c : int
        The problem.
    memory : (rows, columns) float64
        Scratch memory of the thread, for a pass and for a Cholesky factor.
    calls : (3,) int64
        Addresses of a pass (two) and of an M-step. If the latter is 0, the M-step is `average_scatter`.
    words : (P, n_words) int64
        Arguments of the passes; see `compiler.entry.pack_arguments`.
    numbers : (P, 2) float64
        The scale of the rows' weights, and the total weight of the rows.
    options : (5,) float64
        ``tol``, ``limit_tol``, ``reg_covar``, the relative rounding of the bound, and a change of the bound below which
        the run stops so that an acceleration can begin.
    max_steps : int
    is_shared, is_diagonal : int
        Whether all components share one scatter, and whether only its diagonal is kept.
    pools_components : int
        Whether the M-step averages over the components; read if the address of an M-step is 0.
    scatter_word : int
        Position of the number of scatter matrices of a pass in `words`; if that is 0, the total scatter is known.
    label_word : int
        Position of the address of labels in `words`; their number follows. If it is not 0, the first M-step is that of
        rows with these labels, about the means; it is not counted as a step.
    origin : (P, D), centred : (P, K, D), log_coef : (P, K)
        Operands of a pass.
    weight_sums : (P, 1, K), first : (P, 1, K, D), scatter : (P, 1, K or 1, D or 1, D), log_likelihood : (P, 1)
        Sums of a pass.
    weights : (P, K), means : (P, K, D), covariances, factor
        The parameters; see `steps`.
    weights_before_out, means_before_out, covariances_before_out, factor_before_out
        Receive the parameters before the last step.
    trend : (P, trend.SIZE)
    bounds_out : (P, max_steps)
        Receives the bound at each step, in nats per row.
    ended_out : (P, 2) int64
        Receives the number of steps and how the run ended.
    """
    compact()
    # Views of the problem's arrays: every slice takes time to compile.
    weight, mean, covariance, own_factor, own_trend = weights[c], means[c], covariances[c], factor[c], trend[c]
    own_words, point, centre, coefficient = words[c], origin[c], centred[c], log_coef[c]
    sum_of_weights, moment, total_scatter = weight_sums[c, 0], first[c, 0], scatter[c, 0]
    previous_weight, previous_mean = weights_before_out[c], means_before_out[c]
    previous_covariance, previous_factor = covariances_before_out[c], factor_before_out[c]
    n_components, n_features = mean.shape
    size = (n_features + BLOCK - 1) // BLOCK * BLOCK
    matrices = carve(memory, 0, 2 * size + BLOCK, size + BLOCK, options)
    counts = np.empty(n_components)
    reference, new_mean = np.empty((n_components, n_features)), np.empty((n_components, n_features))
    about = np.empty((scatter.shape[2], scatter.shape[3], scatter.shape[4]))
    shape = (covariances.shape[1], covariances.shape[2], covariances.shape[3])
    new_covariance, new_factor = np.empty(shape), np.empty(shape)
    scale, total_weight = numbers[c, SCALE], numbers[c, TOTAL_WEIGHT]
    status, n_steps = LIMIT, 0
    while n_steps < max_steps or own_words[label_word + 1] != 0:
        is_start = own_words[label_word + 1] != 0
        finds_scatter = own_words[scatter_word] != 0
        if finds_scatter:
            write_origin(mean, point)
        if is_start:
            write_centred(mean, point, centre)
        elif operands_lose_digits(mean, covariance, own_factor, is_shared, point):
            status = HANDED_OVER
            break
        else:
            write_operands(weight, mean, own_factor, is_shared, point, centre, coefficient)
        clear(sum_of_weights, moment, total_scatter, finds_scatter)
        log_likelihood[c, 0] = 0.0
        call_entry(calls[PASS_ENTRY], 0, as_bytes(memory), own_words, calls[PASS])
        if scale != 1.0:
            multiply(sum_of_weights, moment, total_scatter, finds_scatter, scale)
        bound = scale * log_likelihood[c, 0] / total_weight
        if not abs(bound) < np.inf or (
            is_shared and not is_start and total_scatter_is_lossy(total_scatter, own_factor, total_weight)
        ):
            status = HANDED_OVER
            break
        if is_shared:
            own_words[scatter_word] = 0
        added = MIN_WEIGHT_SUM * (total_weight if total_weight < 1 else 1.0)
        total = add_to_counts(sum_of_weights, added, counts)
        write_reference(point, centre, is_shared, reference)
        scatter_about_means(
            sum_of_weights, counts, moment, reference, total_scatter, is_shared, is_diagonal, new_mean, about
        )
        add_to_variances(about, counts, total, options[REG_COVAR], is_shared)
        if calls[MAXIMISE] == 0:
            average_scatter(about, counts, total, is_shared, pools_components, new_covariance)
        else:
            call_maximise(calls[MAXIMISE], about, counts, covariance, new_covariance)
        if not write_factors(new_covariance, matrices, new_factor) or (
            is_shared and is_start and total_scatter_is_lossy(total_scatter, new_factor, total_weight)
        ):
            status = HANDED_OVER
            break
        for k in range(n_components):
            previous_weight[k] = weight[k]
            weight[k] = counts[k] / total
        shift(new_mean, mean, previous_mean)
        shift_matrices(new_covariance, covariance, previous_covariance)
        shift_matrices(new_factor, own_factor, previous_factor)
        if is_start:
            own_words[label_word + 1] = 0
            continue
        record_bound(own_trend, bound, True)
        amplified = 0.0
        if is_small_fall(own_trend):
            amplified = amplification(covariance, own_factor, n_features)
        mark_rounding(own_trend, options[ROUNDING], amplified)
        bounds_out[c, n_steps] = bound
        n_steps += 1
        if is_settled(own_trend, options[TOL], options[LIMIT_TOL]):
            status = CONVERGED
            break
        if abs(own_trend[trends.LAST_CHANGE]) < options[STOP_BELOW]:
            break
    ended_out[c, N_STEPS], ended_out[c, STATUS] = n_steps, status


@exact_leaf
def write_centred(means, origin, centred_out):
    """Write the means less the origin."""
    compact()
    for k in range(means.shape[0]):
        for d in range(means.shape[1]):
            centred_out[k, d] = means[k, d] - origin[d]


@exact_leaf
def clear(weight_sums, first, scatter, with_scatter):
    """Set sums to 0."""
    compact()
    for k in range(first.shape[0]):
        weight_sums[k] = 0.0
        for d in range(first.shape[1]):
            first[k, d] = 0.0
    if with_scatter:
        for k in range(scatter.shape[0]):
            for d in range(scatter.shape[1]):
                for e in range(scatter.shape[2]):
                    scatter[k, d, e] = 0.0


@exact_leaf
def multiply(weight_sums, first, scatter, with_scatter, factor):
    """Multiply sums in place."""
    compact()
    for k in range(first.shape[0]):
        weight_sums[k] *= factor
        for d in range(first.shape[1]):
            first[k, d] *= factor
    if with_scatter:
        for k in range(scatter.shape[0]):
            for d in range(scatter.shape[1]):
                for e in range(scatter.shape[2]):
                    scatter[k, d, e] *= factor


@exact_leaf
def add_to_counts(weight_sums, added, counts_out):
    """Write the weight sums, increased so that all are above 0; return their sum."""
    compact()
    total = 0.0
    for k in range(len(weight_sums)):
        counts_out[k] = weight_sums[k] + added
        total += counts_out[k]
    return total


@exact_leaf
def write_reference(origin, centred, is_shared, reference_out):
    """Write the reference points of a pass."""
    compact()
    for k in range(centred.shape[0]):
        for d in range(centred.shape[1]):
            reference_out[k, d] = origin[d] if is_shared else origin[d] + centred[k, d]


@exact_leaf
def shift(new, current, previous):
    """Copy `current` to `previous`, and `new` to `current`; all are two-dimensional."""
    compact()
    for i in range(new.shape[0]):
        for j in range(new.shape[1]):
            previous[i, j] = current[i, j]
            current[i, j] = new[i, j]


@exact_leaf
def shift_matrices(new, current, previous):
    """Copy `current` to `previous`, and `new` to `current`; all are three-dimensional."""
    compact()
    for k in range(new.shape[0]):
        for i in range(new.shape[1]):
            for j in range(new.shape[2]):
                previous[k, i, j] = current[k, i, j]
                current[k, i, j] = new[k, i, j]


@exact_leaf
def add_to_variances(scatter, counts, total, reg_covar, is_shared):
    """Add `reg_covar`, times the weight of the rows in each variance, to the variances of the scatter."""
    compact()
    for k in range(scatter.shape[0]):
        added = reg_covar * (total if is_shared else counts[k])
        for d in range(scatter.shape[2]):
            scatter[k, d if scatter.shape[1] > 1 else 0, d] += added


em_kernel = Kernel(em_chunk)
