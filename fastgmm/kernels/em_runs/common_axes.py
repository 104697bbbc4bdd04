"""Common axes of several covariances, by rotations in planes.

These are common principal components (Flury, 1984, Journal of the American Statistical Association 79), found by
rotations as in Flury & Gautschi (1986, SIAM Journal on Scientific and Statistical Computing 7), but for fixed
variances. Then the best angle has a closed form, and every rotation lowers the objective. mclust majorises over all
orthogonal matrices (Browne & McNicholas, 2014, Advances in Data Analysis and Classification 8), which takes hundreds of
steps where the rotations take tens of sweeps.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel, compact, exact_leaf

# Sweeps stop when one lowers the objective, in nats per row, by no more than this: by rounding. With 1e-12 the result
# still has slopes 30 times as steep, which changes log-likelihoods by 1e-5.
TOLERANCE = 1e-15


@exact_leaf
def variances_along(rotated, weight_sums, shares_volume, variances_out):
    """Write the best variances along axes.

    They are the sums of squares along the axes divided by the weight sums. If all components share their volume, each
    component's sums of squares are scaled to the common volume.

    Parameters
    ----------
    rotated : (K, D, D)
        Scatter in the axes; its diagonals are read.
    weight_sums : (K,)
    shares_volume : int
    variances_out : (K, D)
    """
    compact()
    n_components, n_features = variances_out.shape
    total, total_volume = 0.0, 0.0
    for k in range(n_components):
        log_volume = 0.0
        for d in range(n_features):
            variances_out[k, d] = rotated[k, d, d]
            if shares_volume:
                log_volume += np.log(rotated[k, d, d])
        scale = weight_sums[k]
        if shares_volume:
            scale = np.exp(log_volume / n_features)
            total += weight_sums[k]
            total_volume += scale
        for d in range(n_features):
            variances_out[k, d] /= scale
    if shares_volume:
        for k in range(n_components):
            for d in range(n_features):
                variances_out[k, d] *= total_volume / total


@exact_leaf
def rotate(rotated, vectors, precisions, i, j):
    """Rotate axes i and j in place, so that ``sum_kd T_kdd p_kd`` is minimal.

    The sum is ``u^T M u`` plus a constant. Here u is the new axis i, and M is the sum over k of the plane's part of T_k
    times ``p_ki - p_kj``. The best u is the eigenvector of the lower eigenvalue of M.
    """
    compact()
    n_components, n_features = precisions.shape
    m_ii, m_jj, m_ij = 0.0, 0.0, 0.0
    for k in range(n_components):
        factor = precisions[k, i] - precisions[k, j]
        m_ii += factor * rotated[k, i, i]
        m_jj += factor * rotated[k, j, j]
        m_ij += factor * rotated[k, i, j]
    angle = np.arctan2(-m_ij, (m_jj - m_ii) / 2) / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    for k in range(n_components):
        for d in range(n_features):
            a, b = rotated[k, d, i], rotated[k, d, j]
            rotated[k, d, i], rotated[k, d, j] = cosine * a + sine * b, cosine * b - sine * a
        for d in range(n_features):
            a, b = rotated[k, i, d], rotated[k, j, d]
            rotated[k, i, d], rotated[k, j, d] = cosine * a + sine * b, cosine * b - sine * a
    for d in range(n_features):
        a, b = vectors[d, i], vectors[d, j]
        vectors[d, i], vectors[d, j] = cosine * a + sine * b, cosine * b - sine * a


@exact_leaf
def objective_per_row(variances, weight_sums):
    """Return ``sum_k n_k sum_d log v_kd`` per row."""
    compact()
    total, result = 0.0, 0.0
    for k in range(variances.shape[0]):
        total += weight_sums[k]
        for d in range(variances.shape[1]):
            result += weight_sums[k] * np.log(variances[k, d])
    return result / total


@exact_leaf
def sweep_axes(rotated, vectors, weight_sums, shares_volume, n_sweeps):
    """Make sweeps of rotations, in place; return the objective per row.

    A sweep rotates every pair of axes once, in rounds of pairs that share no axis: the order of a round-robin
    tournament. The variances are computed again before each round. Flops: about 4 K D^3 multiply-adds per sweep. Cache:
    the scatter (K D^2 numbers) in L2.

    Parameters
    ----------
    rotated : (K, D, D)
        Scatter in the axes.
    vectors : (D, D)
        The axes are its columns.
    weight_sums : (K,)
    shares_volume, n_sweeps : int
    """
    compact()
    n_components, n_features = rotated.shape[0], rotated.shape[1]
    n_places = n_features + n_features % 2
    players = np.arange(n_places)
    variances = np.empty((n_components, n_features))
    variances_along(rotated, weight_sums, shares_volume, variances)
    lowest = objective_per_row(variances, weight_sums)
    for _ in range(n_sweeps):
        for place in range(n_places):
            players[place] = place
        for _ in range(n_places - 1):
            variances_along(rotated, weight_sums, shares_volume, variances)
            for k in range(n_components):
                for d in range(n_features):
                    variances[k, d] = 1 / variances[k, d]
            for place in range(n_places // 2):
                i, j = players[place], players[n_places - 1 - place]
                if max(i, j) < n_features:
                    rotate(rotated, vectors, variances, min(i, j), max(i, j))
            last = players[n_places - 1]
            for place in range(n_places - 1, 1, -1):
                players[place] = players[place - 1]
            if n_places > 1:
                players[1] = last
        variances_along(rotated, weight_sums, shares_volume, variances)
        value = objective_per_row(variances, weight_sums)
        converged = not lowest - value > TOLERANCE
        lowest = value
        if converged:
            break
    return lowest


def sweep_chunk(c, memory, rotated, vectors, weight_sums, shares_volume, n_sweeps, objective_out):
    """Run `sweep_axes`, and write the objective per row.

    Flops and cache: those of `sweep_axes`.

    Parameters
    ----------
    c, memory
        Not used.
    rotated, vectors, weight_sums, shares_volume, n_sweeps
        As for `sweep_axes`.
    objective_out : (1,) float64
    """
    objective_out[0] = sweep_axes(rotated, vectors, weight_sums, shares_volume, n_sweeps)


sweep_kernel = Kernel(sweep_chunk)


def rotate_common_axes(rotated, vectors, weight_sums, shares_volume, n_sweeps):
    """Run `sweep_axes` from Python; the arrays are C-contiguous float64."""
    objective = np.empty(1)
    sweep_kernel(1, rotated, vectors, weight_sums, int(shares_volume), n_sweeps, objective)
    return float(objective[0])
