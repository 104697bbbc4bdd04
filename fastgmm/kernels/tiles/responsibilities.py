"""From log-probabilities to responsibilities: log-sum-exp over the components of a tile, the same for every layout.

One exp an entry. A group of columns is read twice, the second time from L1; everything about a row stays in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix, Vector

from .numerics import exp, log

# Vectors of columns at a time: the steps of one exponential wait for each other, those of several do not, and they
# share a logarithm. Two instead of four: a fifth more with D=2 and K=8.
VECTORS = 4 if MANY_REGISTERS else 2


def normalise_weighted(log_prob, n, top, weight, weighted, total_out, log_total_out):
    """Turn log-probabilities into responsibilities times the rows' weights, and add up log-densities.

    ``log_prob[k, i] = weight[i] exp(log_prob[k, i]) / sum_j exp(log_prob[j, i])``; ``total_out[i] = sum_k
    exp(log_prob[k, i] - top[i])``, with ``top[i]`` the highest of a row; ``log_total_out[0] += sum_i weight[i] log
    total_out[i]``. If `weighted` is 0, all weights are 1 or 0.
    """
    exponentials = np.exp(log_prob[:, :n] - top[:n])
    total = exponentials.sum(axis=0)
    total_out[:n] = total
    log_prob[:, :n] = exponentials / total * weight[:n]
    log_total_out[0] += (weight[:n] * np.log(total))[weight[:n] > 0].sum()


def share_out_roots(log_prob, n, top, weight, weighted, total_out, log_total_out):
    """Do as `normalise_weighted`, but leave the square roots of weighted responsibilities."""
    normalise_weighted(log_prob, n, top, weight, weighted, total_out, log_total_out)
    log_prob[:, :n] = np.sqrt(log_prob[:, :n])


def normalise(log_prob, n, top, log_prob_norm_out):
    """Turn log-probabilities into responsibilities, and write the rows' log-densities."""
    log_norm(log_prob, n, top, log_prob_norm_out)
    log_prob[:, :n] = np.exp(log_prob[:, :n] - log_prob_norm_out[:n])


def log_norm(log_prob, n, top, log_prob_norm_out):
    """Write the rows' log-densities ``log sum_k exp(log_prob[k])``."""
    log_prob_norm_out[:n] = top[:n] + np.log(np.exp(log_prob[:, :n] - top[:n]).sum(axis=0))


def exponentials(e: Emitter, log_prob: Matrix, columns: list, top: Matrix, keep=True, root=False) -> list[Vector]:
    """The sum over the components of ``exp(log_prob - top)`` for each vector of columns.

    With `keep` the exponentials take the place of the log-probabilities, with `root` their square roots.
    """
    highest, total = [top[column] for column in columns], [e.variable() for _ in columns]
    for k in e.each(0, log_prob.shape[0]):
        for v, column in enumerate(columns):
            value = exp(e, log_prob[k, column] - highest[v], power=0.5 if root else 1.0)
            total[v].add_product(value, value) if root else total[v].add(value)
            if keep:
                log_prob[k, column] = value
    return [variable.get() for variable in total]


def scale_columns(e: Emitter, matrix: Matrix, columns: list, scales: list[Vector]) -> None:
    """Multiply each vector of columns, in all rows."""
    for k in e.each(0, matrix.shape[0]):
        for column, scale in zip(columns, scales, strict=True):
            matrix[k, column] = matrix[k, column] * scale


def emit_share_out(
    e: Emitter, log_prob: Matrix, n, top: Matrix, weight: Matrix, weighted, total_out: Matrix, log_total_out: Matrix,
    root=False,
):  # fmt: skip
    zero, log_total = e.constant(0.0), e.variable()
    for columns in e.each_group(n, VECTORS):
        totals = exponentials(e, log_prob, columns, top, root=root)
        for column, total in zip(columns, totals, strict=True):
            total_out[column] = total
        weights = [weight[column] for column in columns]
        shares = [w / total for w, total in zip(weights, totals, strict=True)]
        for is_weighted in e.either(e.builder.icmp_signed("!=", weighted, e.index(0))):
            if is_weighted:
                for w, total in zip(weights, totals, strict=True):
                    log_total.add(e.choose(zero < w, w * log(e, total), zero))
            else:
                # One logarithm of a product, since a total is between 1 and K. With one for each vector, square roots
                # for few features too and a longer exp, an iteration with D=2 and K=2 took 1.4 times as long.
                product = e.constant(1.0)
                for w, total in zip(weights, totals, strict=True):
                    product = product * e.choose(zero < w, total, e.constant(1.0))
                log_total.add(log(e, product))
        scale_columns(e, log_prob, columns, [e.sqrt(share) for share in shares] if root else shares)
    e.add_lane_sums([([log_total], log_total_out, (0,))])


def emit_normalise(e: Emitter, log_prob: Matrix, n, top: Matrix, log_prob_norm_out: Matrix, keep=True):
    for columns in e.each_group(n, VECTORS):
        totals = exponentials(e, log_prob, columns, top, keep=keep)
        for column, total in zip(columns, totals, strict=True):
            log_prob_norm_out[column] = top[column] + log(e, total)
        if keep:
            scale_columns(e, log_prob, columns, [e.constant(1.0) / total for total in totals])


@functools.cache
def operations() -> dict[str, Callable]:
    """The ways to go on from log-probabilities: two of EM, two of prediction."""
    return {
        "normalise_weighted": tile_operation(normalise_weighted)(emit_share_out),
        "share_out_roots": tile_operation(share_out_roots, root=True)(emit_share_out),
        "normalise": tile_operation(normalise)(emit_normalise),
        "log_norm": tile_operation(log_norm, keep=False)(emit_normalise),
    }
