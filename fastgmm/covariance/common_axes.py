"""Common axes of several covariances; see `fastgmm.kernels.em_runs.common_axes` for the rotations that find them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import rotate_common_axes as sweep_axes

from .linear_algebra import (
    diagonals,
    from_axes,
    in_axes,
    scaled_rows,
    times_vector,
    variances_and_axes,
    weighted_sum,
)

Array = NDArray[np.float64]
# Number of sweeps from each start, and from the axes of the previous EM step. The next EM step continues from there.
SHORT_SWEEPS = 10
# Number of sweeps from the best start.
MAX_SWEEPS = 500
# Number of components, those of the largest weight, whose own axes are tried as a start.
N_OWN_AXES = 4


def with_common_axes(scatter: Array, weight_sums: Array, shares_volume: bool, before: Array) -> Array:
    """Return the covariances with common axes of highest likelihood, (K, D, D).

    The axes D and the variances v along them minimise ``sum_k n_k sum_d log v_kd + sum_kd (D^T W_k D)_dd / v_kd``. The
    search makes a few sweeps of rotations, from the axes of `before`.

    Parameters
    ----------
    scatter : (K, D, D)
    weight_sums : (K,)
    shares_volume : bool
        Whether all components have one volume.
    before : (any number, D, D)
        Matrices whose common axes are the start.
    """
    axes = axes_of(before)
    rotated = in_axes(scatter, axes)
    sweep_axes(rotated, axes, weight_sums, shares_volume, SHORT_SWEEPS)
    variances = variances_of_sums(diagonals(rotated), weight_sums, shares_volume)
    return from_axes(axes.reshape((1, *axes.shape)), variances)


def variances_of_sums(along: Array, weight_sums: Array, shares_volume: bool) -> Array:
    """Return the best variances, given sums of squares along axes; both are (K, D)."""
    if shares_volume:
        volumes = np.exp(times_vector(np.log(along), np.ones(along.shape[1])) / along.shape[1])
        return scaled_rows(along, volumes.sum() / weight_sums.sum() / volumes)
    return scaled_rows(along, 1 / weight_sums)


def best_common_axes(scatter: Array, weight_sums: Array, shares_volume: bool) -> Array:
    """Return a matrix, (1, D, D), with the best of the common axes that several starts lead to.

    The search has several local minima. It starts from the pooled axes, the features' axes and those of the heaviest
    components, and continues from the best of them.
    """

    def sweep(axes: Array, n_sweeps: int) -> tuple[float, Array]:
        axes = axes.copy(order="C")
        rotated = np.ascontiguousarray(in_axes(scatter, axes))
        return sweep_axes(rotated, axes, weight_sums, shares_volume, n_sweeps), axes

    heaviest = np.argsort(-weight_sums, kind="stable")[:N_OWN_AXES]
    starts = [axes_of(scatter), np.eye(scatter.shape[1]), *variances_and_axes(scatter[heaviest])[1]]
    results = [sweep(start, SHORT_SWEEPS) for start in starts]
    best = min(results, key=lambda result: result[0] if np.isfinite(result[0]) else np.inf)
    axes = sweep(best[1], MAX_SWEEPS)[1]
    return from_axes(axes[np.newaxis], np.arange(1.0, len(axes) + 1)[np.newaxis])


def axes_of(matrices: Array) -> Array:
    """Return the common axes, (D, D), of matrices that have common axes.

    A sum of the matrices with different weights has these axes.
    """
    factors = np.empty(len(matrices))
    for k in range(len(matrices)):
        trace = 0.0
        for d in range(matrices.shape[1]):
            trace += matrices[k, d, d]
        factors[k] = (0.5 + (k * 0.6180339887498949) % 1.0) / max(trace, 1e-300)
    total = weighted_sum(factors, matrices)
    return variances_and_axes(total.reshape((1, *total.shape)))[1][0]
