"""Responsibilities from log-probabilities by log-sum-exp, for every layout.

Flops: one exponential per row and component, one logarithm per row. Cache: a group of columns (K numbers per row) is
read twice, the second time from L1; the other quantities of a row stay in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Vector

from .numerics import exp, log

# Vectors of columns that are processed together: the steps of one exponential wait for each other, those of several do
# not, and the vectors share a logarithm. With two instead of four, D=2 and K=8 took a fifth longer.
VECTORS = 4 if MANY_REGISTERS else 2


def normalise_weighted(log_prob, n, top, weight, weighted, total_out, log_total_out):
    """Replace log-probabilities by responsibilities times the rows' weights.

    Also adds up log-densities:

    ``log_prob[k, i] = weight[i] exp(log_prob[k, i]) / sum_j exp(log_prob[j, i])``
    ``total_out[i] = sum_k exp(log_prob[k, i] - top[i])``
    ``log_total_out[0] += sum_i weight[i] log total_out[i]``

    Parameters
    ----------
    log_prob : (K, T)
        Overwritten.
    n : int
        Columns in use.
    top : (T,)
        Highest log-probability of each column.
    weight : (T,)
    weighted : int
        If 0, all weights are 1 or 0.
    total_out : (T,)
    log_total_out : (1,) float64
    """
    exponentials = np.exp(log_prob[:, :n] - top[:n])
    total = exponentials.sum(axis=0)
    total_out[:n] = total
    log_prob[:, :n] = exponentials / total * weight[:n]
    log_total_out[0] += (weight[:n] * np.log(total))[weight[:n] > 0].sum()


def normalise_weighted_roots(log_prob, n, top, weight, weighted, total_out, log_total_out):
    """Do as `normalise_weighted`, but write square roots."""
    normalise_weighted(log_prob, n, top, weight, weighted, total_out, log_total_out)
    log_prob[:, :n] = np.sqrt(log_prob[:, :n])


def normalise(log_prob, n, top, log_prob_norm_out):
    """Replace log-probabilities by responsibilities; write the log-densities."""
    log_norm(log_prob, n, top, log_prob_norm_out)
    log_prob[:, :n] = np.exp(log_prob[:, :n] - log_prob_norm_out[:n])


def log_norm(log_prob, n, top, log_prob_norm_out):
    """Write the rows' log-densities ``log sum_k exp(log_prob[k])``."""
    log_prob_norm_out[:n] = top[:n] + np.log(np.exp(log_prob[:, :n] - top[:n]).sum(axis=0))


def exponentials(
    e: Emitter, log_prob: Matrix, columns: list, top: Matrix, overwrite=True, sqrt_resp=False
) -> list[Vector]:
    """Return the sum over the components of ``exp(log_prob - top)`` per column.

    There is one vector for each of `columns`. With `overwrite` the exponentials replace the log-probabilities; with
    `sqrt_resp` their square roots do.
    """
    highest, total = [top[column] for column in columns], [e.variable() for _ in columns]
    for k in e.each(0, log_prob.shape[0]):
        for v, column in enumerate(columns):
            value = exp(e, log_prob[k, column] - highest[v], power=0.5 if sqrt_resp else 1.0)
            total[v].add_product(value, value) if sqrt_resp else total[v].add(value)
            if overwrite:
                log_prob[k, column] = value
    return [variable.get() for variable in total]


def scale_columns(e: Emitter, matrix: Matrix, columns: list, scales: list[Vector]) -> None:
    """Multiply each vector of columns by a scale, in all rows."""
    for k in e.each(0, matrix.shape[0]):
        for column, scale in zip(columns, scales, strict=True):
            matrix[k, column] = matrix[k, column] * scale


def emit_normalise_weighted(
    e: Emitter, log_prob: Matrix, n, top: Matrix, weight: Matrix, weighted, total_out: Matrix, log_total_out: Matrix,
    sqrt_resp=False,
):  # fmt: skip
    b, zero, log_total = e.builder, e.constant(0.0), e.variable()
    for columns in e.each_group(n, VECTORS):
        totals = exponentials(e, log_prob, columns, top, sqrt_resp=sqrt_resp)
        for column, total in zip(columns, totals, strict=True):
            total_out[column] = total
        weights = [weight[column] for column in columns]
        scales = [w / total for w, total in zip(weights, totals, strict=True)]
        with b.if_else(b.icmp_signed("!=", weighted, e.index(0))) as (then, otherwise):
            with then:
                for w, total in zip(weights, totals, strict=True):
                    log_total.add(e.select(zero < w, w * log(e, total), zero))
            with otherwise:
                # One logarithm of a product of totals, each between 1 and K, instead of one for each vector.
                product = e.constant(1.0)
                for w, total in zip(weights, totals, strict=True):
                    product = product * e.select(zero < w, total, e.constant(1.0))
                log_total.add(log(e, product))
        scale_columns(e, log_prob, columns, [e.sqrt(scale) for scale in scales] if sqrt_resp else scales)
    e.add_lane_sums([([log_total], log_total_out, (0,))])


def emit_normalise(e: Emitter, log_prob: Matrix, n, top: Matrix, log_prob_norm_out: Matrix, overwrite=True):
    for columns in e.each_group(n, VECTORS):
        totals = exponentials(e, log_prob, columns, top, overwrite=overwrite)
        for column, total in zip(columns, totals, strict=True):
            log_prob_norm_out[column] = top[column] + log(e, total)
        if overwrite:
            scale_columns(e, log_prob, columns, [e.constant(1.0) / total for total in totals])


@functools.cache
def operations() -> dict[str, Callable]:
    """Return the compiled operations by name: two for EM, two for prediction."""
    return {
        "normalise_weighted": tile_operation(normalise_weighted)(emit_normalise_weighted),
        "normalise_weighted_roots": tile_operation(normalise_weighted_roots, sqrt_resp=True)(emit_normalise_weighted),
        "normalise": tile_operation(normalise)(emit_normalise),
        "log_norm": tile_operation(log_norm, overwrite=False)(emit_normalise),
    }
