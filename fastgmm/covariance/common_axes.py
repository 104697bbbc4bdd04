"""Common axes of several covariances, found by Jacobi rotations.

These are common principal components (Flury, 1984, Journal of the American Statistical Association 79). They are found
by rotations in planes, as in Flury & Gautschi (1986, SIAM Journal on Scientific and Statistical Computing 7), but for
fixed variances. Then the best angle has a closed form, every rotation lowers the objective, and rotations in planes
without a common axis are independent, so that many are made at once. mclust majorises over all orthogonal matrices
(Browne & McNicholas, 2014, Advances in Data Analysis and Classification 8), which takes hundreds of steps where the
rotations take tens of sweeps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Sweeps stop when one lowers the objective, in nats per row, by no more than this: by rounding. With 1e-12 the result
# still has slopes 30 times as steep, which changes log-likelihoods by 1e-5.
TOLERANCE = 1e-15
# Number of sweeps from each start, and from the axes of the previous EM step. The next EM step continues from there.
SHORT_SWEEPS = 10
# Number of sweeps from the best start.
MAX_SWEEPS = 500
# Number of components, those of the largest weight, whose own axes are tried as a start.
N_OWN_AXES = 4


def common_orientation(
    scatter: Array, weight_sums: Array, variances: Callable[[Array], Array], before: Array | None = None
) -> tuple[Array, Array]:
    """Find the common axes, and the variances along them, of highest likelihood.

    They minimise ``sum_k n_k sum_d log v_kd + sum_kd (D^T W_k D)_dd / v_kd`` over orthogonal D and variances v. There
    are several local minima. Without `before`, the search starts from the pooled axes, the features' axes and those of
    the heaviest components, and continues from the best of them. With `before`, it makes a few sweeps from there.

    Parameters
    ----------
    scatter : (K, D, D)
    weight_sums : (K,)
    variances : callable (along) -> (K, D)
        Returns the best variances, given the sums of squares ``along`` the axes, (K, D).
    before : (K, D, D), optional
        Matrices whose common axes are the start.

    Returns
    -------
    vectors : (D, D)
        The axes are its columns.
    variances : (K, D)
    """

    def descend(start: Array, n_sweeps: int) -> tuple[float, Array, Array]:
        return _descend(scatter, weight_sums, variances, start, n_sweeps)

    with np.errstate(all="ignore"):
        if before is not None:
            _, vectors, along = descend(_axes_of(before), SHORT_SWEEPS)
        else:
            heaviest = np.argsort(-weight_sums, kind="stable")[:N_OWN_AXES]
            starts = [_axes_of(scatter), np.eye(scatter.shape[1]), *variances_and_axes(scatter[heaviest])[1]]
            results = [descend(start, SHORT_SWEEPS) for start in starts]
            best = min(results, key=lambda result: result[0] if np.isfinite(result[0]) else np.inf)
            _, vectors, along = descend(best[1], MAX_SWEEPS)
        return vectors, variances(along)


def _descend(
    scatter: Array, weight_sums: Array, variances: Callable[[Array], Array], vectors: Array, n_sweeps: int
) -> tuple[float, Array, Array]:
    """Make sweeps of rotations.

    Return the objective per row, the axes, and the sums of squares along them.
    """
    rotated, vectors = vectors.T @ scatter @ vectors, vectors.copy()
    rounds = planes(scatter.shape[1])

    def objective() -> float:
        return float(weight_sums @ np.log(variances(np.einsum("kdd->kd", rotated))).sum(axis=1) / weight_sums.sum())

    lowest = objective()
    for _ in range(n_sweeps):
        for i, j in rounds:
            _rotate(rotated, vectors, 1 / variances(np.einsum("kdd->kd", rotated)), i, j)
        value = objective()
        converged = not lowest - value > TOLERANCE
        lowest = value
        if converged:
            break
    return lowest, vectors, np.einsum("kdd->kd", rotated)


def _rotate(rotated: Array, vectors: Array, precisions: Array, i: NDArray[np.intp], j: NDArray[np.intp]) -> None:
    """Rotate axes i and j of several planes in place.

    The angle of each plane minimises ``sum_kd T_kdd p_kd``.

    In one plane the sum is ``u^T M u`` plus a constant. Here u is the new axis i, and M is the sum over k of the
    plane's part of T_k times ``p_ki - p_kj``. The best u is the eigenvector of the lower eigenvalue of M.
    """
    factor = precisions[:, i] - precisions[:, j]
    m_ii, m_jj, m_ij = ((factor * rotated[:, a, b]).sum(axis=0) for a, b in ((i, i), (j, j), (i, j)))
    angle = np.arctan2(-m_ij, (m_jj - m_ii) / 2) / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    for columns in (rotated, rotated.swapaxes(1, 2), vectors):
        a, b = columns[..., i], columns[..., j]
        columns[..., i], columns[..., j] = cosine * a + sine * b, cosine * b - sine * a


@functools.cache
def planes(n_features: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """Return all pairs of axes in rounds, as in a round-robin tournament.

    No two pairs of a round share an axis.
    """
    players = list(range(n_features + n_features % 2))
    rounds = []
    for _ in range(len(players) - 1):
        pairs = sorted({(min(pair), max(pair)) for pair in zip(players, reversed(players), strict=True)})
        chosen = [pair for pair in pairs if pair[1] < n_features]
        i, j = np.array(chosen, dtype=np.intp).reshape(-1, 2).T
        rounds.append((i, j))
        players = [players[0], players[-1], *players[1:-1]]
    return tuple(rounds)


def variances_and_axes(matrices: Array) -> tuple[Array, Array]:
    """Return the eigenvalues and eigenvectors of symmetric matrices.

    They are NaN if the decomposition fails.
    """
    try:
        values, vectors = np.linalg.eigh(matrices)
    except np.linalg.LinAlgError:
        return np.full(matrices.shape[:-1], np.nan), np.full(matrices.shape, np.nan)
    return values, vectors


def _axes_of(matrices: Array) -> Array:
    """Return the common axes of matrices that have common axes.

    A sum of the matrices with different weights has these axes.
    """
    scale = np.maximum(np.trace(matrices, axis1=1, axis2=2), 1e-300)
    factors = (0.5 + (np.arange(len(matrices)) * 0.6180339887498949) % 1.0) / scale
    return variances_and_axes(np.tensordot(factors, matrices, axes=1))[1]
