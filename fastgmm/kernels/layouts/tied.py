"""The tied layout: one triangular factor for all components.

E-step: ``log_prob[k, i] = log_coef[k] - |y_i - L m_k|^2 / 2``. A tile is whitened once, ``y = L x``; after that the
distance to a component is a plain squared distance. Flops per row: D (D + 1) / 2 multiply-adds whatever K is, then a
difference and a multiply-add per component and feature.

M-step: the scatter about a common point does not depend on the responsibilities, because these sum to one. It is summed
once per fit, in float64 for either dtype (D (D + 1) / 2 multiply-adds per row). All later passes need only the first
moments about the same point, the tile's origin: one multiply-add per row, component and feature.

Cache: the tile and its whitened copy (2 D T numbers) and the responsibilities (K T numbers) in L2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import bind, exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import MANY_REGISTERS, Emitter, Matrix
from fastgmm.kernels.tiles.distances import VECTORS, each_distance, write_log_prob
from fastgmm.kernels.tiles.moments import add_weight_sums
from fastgmm.kernels.tiles.transposition import Prefetcher

# Sizes of blocks in the M-step.
COMPONENTS = (4, 2, 1)
FEATURES = (4, 2, 1) if MANY_REGISTERS else (2, 1)


def uses_sqrt_resp(n_features):
    """Return whether the M-step reads square roots of responsibilities."""
    return False


def work_rows(n_components, n_features):
    """Return the rows of scratch that the operations need in addition to the tile."""
    return n_features


def log_prob_tile(x, n, means, factor, log_coef, work, flat, next_start, row_stride, top_out, log_prob_out):
    """Write a tile's log-probabilities, and the highest of each row.

    ``log_prob_out[k, i] = log_coef[k] - |factor[0] x[:, i] - means[k]|^2 / 2``.
    """
    whitened = np.tril(factor[0]) @ x[:, :n]
    for k in range(len(means)):
        y = whitened - means[k][:, np.newaxis]
        log_prob_out[k, :n] = log_coef[k] - 0.5 * (y * y).sum(axis=0)
    top_out[:n] = np.fmax.reduce(log_prob_out[:, :n], axis=0)


def emit_log_prob_tile(
    e: Emitter, x: Matrix, n, means: Matrix, factor: Matrix, log_coef: Matrix, work: Matrix, flat: Matrix,
    next_start, row_stride, top_out: Matrix, log_prob_out: Matrix,
):  # fmt: skip
    prefetcher = Prefetcher(e, flat, next_start, row_stride)
    for columns in e.each_group(n, VECTORS):
        for j, size in e.blocks(0, means.shape[1], (4, 2, 1)):
            y = [[e.variable() for _ in columns] for _ in range(size)]
            # The factor has zeros above its diagonal, so that a block may cover the whole of its own square.
            for d in e.each(0, e.add(j, size)):
                features = [x[d, column] for column in columns]
                for a in range(size):
                    L = factor.splat(0, e.add(j, a), d)
                    for v in range(len(columns)):
                        y[a][v].add_product(L, features[v])
            for a in range(size):
                for v, column in enumerate(columns):
                    work[e.add(j, a), column] = y[a][v].get()
        distances = each_distance(e, work, columns, means, prefetcher=prefetcher)
        write_log_prob(e, columns, distances, log_coef, top_out, log_prob_out)


def add_first_moments(x, n, resp, weight_sums_out, first_out):
    """Add a tile's weight sums (K,) and first moments (K, D) about the origin."""
    weight_sums_out += resp[:, :n].sum(axis=1)
    first_out += resp[:, :n] @ x[:, :n].T


def emit_add_first_moments(e: Emitter, x: Matrix, n, resp: Matrix, weight_sums_out: Matrix, first_out: Matrix):
    n_components, n_features = first_out.shape
    for k, size in e.blocks(0, n_components, COMPONENTS):
        components = [e.add(k, c) for c in range(size)]
        add_weight_sums(e, n, resp, k, size, weight_sums_out)
        for d, n_block in e.blocks(0, n_features, FEATURES):
            features = [e.add(d, p) for p in range(n_block)]
            entries = [(c, p) for c in range(size) for p in range(n_block)]
            first = {entry: e.variable() for entry in entries}
            for i in e.each(0, n, e.width):
                values = [x[feature, i] for feature in features]
                resps = [resp[component, i] for component in components]
                for c, p in entries:
                    first[c, p].add_product(resps[c], values[p])
            e.add_lane_sums(
                [([first[c, p] for p in range(n_block)], first_out, (components[c], d)) for c in range(size)]
            )


@reducing_leaf
def add_total_scatter(x, n, resp, scatter_out):
    """Add a tile's total scatter, summed in float64; overwrites ``resp[0]``.

    ``scatter_out[a, b] += sum_i (sum_k resp[k, i]) x[a, i] x[b, i]`` for b <= a.
    """
    for i in range(n):
        mass = 0.0
        for k in range(resp.shape[0]):
            mass += np.float64(resp[k, i])
        resp[0, i] = mass
    for a in range(x.shape[0]):
        for b in range(a + 1):
            total = 0.0
            for i in range(n):
                product = np.float64(resp[0, i]) * (np.float64(x[a, i]) * np.float64(x[b, i]))
                total += product if resp[0, i] != 0 else 0.0  # a row of weight 0 adds 0 even if its square overflows
            scatter_out[a, b] += total


def add_moments(x, n, resp, means, work, weight_sums_out, first_out, scatter_out):
    """Add a tile's weight sums and first moments, and its total scatter.

    The scatter is left out if `scatter_out` is empty. A template: `add_first_moments` is the compiled one.
    """
    add_first_moments(x, n, resp, weight_sums_out, first_out)
    if scatter_out.shape[0] > 0:
        add_total_scatter(x, n, resp, scatter_out[0])


@functools.cache
def operations(n_features: int) -> dict[str, Callable]:
    """Return the layout's compiled operations, the same for any number of features."""
    first = tile_operation(add_first_moments)(emit_add_first_moments)
    return {
        "log_prob_tile": tile_operation(log_prob_tile)(emit_log_prob_tile),
        "add_moments": exact_leaf(bind(add_moments, "add_tied_moments", add_first_moments=first)),
    }
