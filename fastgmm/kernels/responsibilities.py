"""From log-probabilities to responsibilities: log-sum-exp over the components of a tile, the same for every layout.

One exp an entry. A group of columns is read twice, the second time from L1; everything about a row stays in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .numerics import exp, log
from .simd import Emitter, Matrix, tile_operation

# Vectors of columns at a time: the steps of one exponential wait for each other, those of two do not.
VECTORS = 2


def normalise(log_prob, n, top, weight, log_prob_norm_out):
    """Turn log-probabilities into responsibilities times the rows' weights, and write the rows' log-densities.

    ``log_prob_norm_out[i] = log sum_k exp(log_prob[k, i])``, ``log_prob[k, i] = weight[i] exp(log_prob[k, i] -
    log_prob_norm_out[i])``. ``top[i]`` is the highest of a row.
    """
    exponentials = np.exp(log_prob[:, :n] - top[:n])
    total = exponentials.sum(axis=0)
    log_prob_norm_out[:n] = top[:n] + np.log(total)
    log_prob[:, :n] = exponentials / total * weight[:n]


def normalise_to_roots(log_prob, n, top, weight, log_prob_norm_out):
    """Do as `normalise`, but leave the square roots of weighted responsibilities."""
    normalise(log_prob, n, top, weight, log_prob_norm_out)
    log_prob[:, :n] = np.sqrt(log_prob[:, :n])


def log_norm(log_prob, n, top, weight, log_prob_norm_out):
    """Write the rows' log-densities alone."""
    log_prob_norm_out[:n] = top[:n] + np.log(np.exp(log_prob[:, :n] - top[:n]).sum(axis=0))


def emit_normalise(
    e: Emitter, log_prob: Matrix, n, top: Matrix, weight: Matrix, log_prob_norm_out: Matrix, keep=True, root=False
):
    n_components = log_prob.shape[0]
    for i in e.each(0, n, VECTORS * e.width):
        columns = [e.add(i, v * e.width) for v in range(VECTORS)]
        highest = [top[column] for column in columns]
        total = [e.variable() for _ in columns]
        for k in e.each(0, n_components):
            for v, column in enumerate(columns):
                difference = log_prob[k, column] - highest[v]
                if root:
                    value = exp(e, difference, power=0.5)
                    total[v].add_product(value, value)
                else:
                    value = exp(e, difference)
                    total[v].add(value)
                if keep:
                    log_prob[k, column] = value
        scale = []
        for v, column in enumerate(columns):
            log_prob_norm_out[column] = highest[v] + log(e, total[v].get())
            share = weight[column] / total[v].get()
            scale.append(e.sqrt(share) if root else share)
        for k in e.each(0, n_components if keep else 0):
            for v, column in enumerate(columns):
                log_prob[k, column] = log_prob[k, column] * scale[v]


@functools.cache
def operations() -> dict[str, Callable]:
    """The three ways to go on from log-probabilities."""
    return {
        "normalise": tile_operation(normalise)(emit_normalise),
        "normalise_to_roots": tile_operation(normalise_to_roots, root=True)(emit_normalise),
        "log_norm": tile_operation(log_norm, keep=False)(emit_normalise),
    }
