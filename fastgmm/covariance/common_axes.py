"""Axes that covariances have in common: Jacobi rotations, many at a time.

Common principal components (Flury, 1984, Journal of the American Statistical Association 79) by rotations in planes, as
in Flury & Gautschi (1986, SIAM Journal on Scientific and Statistical Computing 7), but for given variances: then the
best angle has a closed form, every rotation lowers what is minimised, and rotations in planes without a common axis do
not disturb each other. mclust's way, majorisation over all orthogonal matrices (Browne & McNicholas, 2014, Advances in
Data Analysis and Classification 8), needs hundreds of steps where this needs some sweeps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Sweeps end when one lowers the objective by less than this, per row: by its rounding. (1e-12 spares a tenth of the
# sweeps and leaves slopes 30 times as steep: likelihoods of the rows are off by 1e-5.) Cold starts: the pooled axes,
# the features' own, and those of so many of the heaviest components; the best after some sweeps goes on. From the axes
# before some are enough, since the next EM step makes more: with 500 an EM iteration of 178 rows took 0.4 s.
TOLERANCE, SOME_SWEEPS, MAX_SWEEPS, OWN_AXES = 1e-15, 10, 500, 4


def common_orientation(
    scatter: Array, weight_sums: Array, variances: Callable[[Array], Array], before: Array | None = None
) -> tuple[Array, Array]:
    """Axes D and variances along them that minimise ``sum_k n_k sum_d log v_kd + sum_kd (D^T W_k D)_dd / v_kd``.

    There are several minima. Without `before` that which the best of some starts leads to is found; with it some steps
    are made from there.

    Parameters
    ----------
    scatter : (K, D, D)
    weight_sums : (K,)
    variances : callable (along) -> (K, D)
        The variances v that are best for sums of squares ``along`` axes, (K, D).
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
            _, vectors, along = descend(_axes_of(before), SOME_SWEEPS)
        else:
            heaviest = np.argsort(-weight_sums, kind="stable")[:OWN_AXES]
            starts = [_axes_of(scatter), np.eye(scatter.shape[1]), *variances_and_axes(scatter[heaviest])[1]]
            found = [descend(start, SOME_SWEEPS) for start in starts]
            best = min(found, key=lambda end: end[0] if np.isfinite(end[0]) else np.inf)
            _, vectors, along = descend(best[1], MAX_SWEEPS)
        return vectors, variances(along)


def _descend(
    scatter: Array, weight_sums: Array, variances: Callable[[Array], Array], vectors: Array, n_sweeps: int
) -> tuple[float, Array, Array]:
    """Sweeps of rotations from some axes: the objective per row, the axes, and the sums of squares along them."""
    rotated, vectors = vectors.T @ scatter @ vectors, vectors.copy()
    rounds = planes(scatter.shape[1])

    def objective() -> float:
        return float(weight_sums @ np.log(variances(np.einsum("kdd->kd", rotated))).sum(axis=1) / weight_sums.sum())

    lowest = objective()
    for _ in range(n_sweeps):
        for i, j in rounds:
            _rotate(rotated, vectors, 1 / variances(np.einsum("kdd->kd", rotated)), i, j)
        level = objective()
        settled = not lowest - level > TOLERANCE
        lowest = level
        if settled:
            break
    return lowest, vectors, np.einsum("kdd->kd", rotated)


def _rotate(rotated: Array, vectors: Array, precisions: Array, i: NDArray[np.intp], j: NDArray[np.intp]) -> None:
    """Turn axes i and j, of all planes at once, to where ``sum_kd T_kdd p_kd`` is lowest.

    In a plane that is ``u^T M u`` for the new axis i, plus what does not depend on it, with M the sum of the planes'
    parts of T_k times ``p_ki - p_kj``: u is M's eigenvector of the lower eigenvalue.
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
    """All pairs of axes in rounds of pairs without a common axis, as in a round-robin tournament."""
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
    """`np.linalg.eigh`, with NaN where numbers are too large for it, or none."""
    try:
        values, vectors = np.linalg.eigh(matrices)
    except np.linalg.LinAlgError:
        return np.full(matrices.shape[:-1], np.nan), np.full(matrices.shape, np.nan)
    return values, vectors


def _axes_of(matrices: Array) -> Array:
    """The common axes of matrices that have such: those of a sum in which no two of them weigh the same."""
    scale = np.maximum(np.trace(matrices, axis1=1, axis2=2), 1e-300)
    factors = (0.5 + (np.arange(len(matrices)) * 0.6180339887498949) % 1.0) / scale
    return variances_and_axes(np.tensordot(factors, matrices, axes=1))[1]
