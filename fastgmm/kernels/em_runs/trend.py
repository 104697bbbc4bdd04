"""The trend of the bound: how it changed in the last EM steps, and how far its limit is.

The functions are plain Python on a list of numbers, or compiled on an array of them. So runs in compiled code and runs
from Python converge by the same rules.
"""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np

# Positions of the trend's numbers. The bounds are those of at most three points, each of which an EM step from the
# point before led to. A ratio is that of a rise to the rise before.
N_BOUNDS, BOUNDS, N_RATIOS, RATIOS, LAST_CHANGE, REMAINING, BOUND = 0, 1, 4, 5, 11, 12, 13
SIZE = 14
MAX_BOUNDS, MAX_RATIOS = 3, 6
# A fall of at least this part of the bound is not rounding, even with flat components.
MAX_ROUNDING = 1e-6


def new_trend(start_bound: float = -np.inf) -> list[float]:
    """Return the trend before the first step.

    Parameters
    ----------
    start_bound : float
        The bound of the point from which an EM step led to the start, in nats per row; -inf if it is unknown.
    """
    trend = [0.0] * SIZE
    trend[LAST_CHANGE] = trend[REMAINING] = np.inf
    trend[BOUND] = -np.inf
    if start_bound > -np.inf:
        trend[N_BOUNDS], trend[BOUNDS] = 1.0, start_bound
    return trend


def append(trend: MutableSequence[float], first: int, count: int, size: int, value: float) -> None:
    """Append a number to a queue in the trend, which keeps the last `size` of them.

    Its numbers begin at position `first`; how many there are is at position `count`.
    """
    n = int(trend[count])
    if n == size:
        for i in range(first, first + size - 1):
            trend[i] = trend[i + 1]
        n -= 1
    trend[first + n] = value
    trend[count] = n + 1.0


def record_bound(trend: MutableSequence[float], bound: float, is_step: bool) -> None:
    """Record the bound of a point, in nats per row.

    Parameters
    ----------
    trend : sequence of SIZE floats
    bound : float
    is_step : bool
        Whether an EM step led to the point, and not a proposal of an accelerator.
    """
    n = int(trend[N_BOUNDS])
    before = trend[BOUNDS + n - 1] if n > 0 else -np.inf
    if not is_step:
        trend[N_BOUNDS] = 0.0
    append(trend, BOUNDS, N_BOUNDS, MAX_BOUNDS, bound)
    trend[LAST_CHANGE] = bound - before
    trend[BOUND] = bound
    if trend[N_BOUNDS] == MAX_BOUNDS:
        previous, rise = trend[BOUNDS + 1] - trend[BOUNDS], trend[BOUNDS + 2] - trend[BOUNDS + 1]
        append(trend, RATIOS, N_RATIOS, MAX_RATIOS, rise / previous if previous > 0 else np.inf)
        highest = -np.inf
        for i in range(int(trend[N_RATIOS])):
            highest = max(highest, trend[RATIOS + i])
        trend[REMAINING] = remaining_rise(rise, highest)


def remaining_rise(rise: float, ratio: float) -> float:
    """Return the sum of the rises to come if each is `ratio` times the one before.

    It is ``rise ratio / (1 - ratio)``, Aitken's estimate (for mixtures: Boehning et al., 1994, Annals of the Institute
    of Statistical Mathematics 46). The ratio is the largest of the last six, because a step after a proposal first
    undoes its errors, and such rises shrink fast. With three ratios, 6 of 16 fits to ``limit_tol=1e-4`` ended more than
    1e-3 from the limit; with six, 2 did.

    Parameters
    ----------
    rise : float
        The last rise, in nats per row.
    ratio : float

    Returns
    -------
    float
        In nats per row; infinite if the rises do not shrink.
    """
    if rise == 0:
        return 0.0
    return rise * ratio / (1 - ratio) if rise > 0 and ratio < 1 else np.inf


def is_small_fall(trend: MutableSequence[float]) -> bool:
    """Return whether the last change is a fall that may be rounding, with flat components."""
    change = trend[LAST_CHANGE]
    return change < 0 and change > -MAX_ROUNDING * max(1.0, abs(trend[BOUND]))


def mark_rounding(trend: MutableSequence[float], rounding: float, amplification: float) -> None:
    """Set the remaining rise to 0 if the last change may be rounding alone.

    Parameters
    ----------
    trend : sequence of SIZE floats
    rounding : float
        Changes of the bound that are smaller than this, relative to the bound, are rounding.
    amplification : float
        How much larger rounding is because of flat components, if the change is a small fall; otherwise 0. Without
        this, fits with fewer rows than features took twice the passes.
    """
    change = trend[LAST_CHANGE]
    if abs(change) <= rounding * max(1.0, abs(trend[BOUND])) or (change < 0 and -change <= rounding * amplification):
        trend[REMAINING] = 0.0


def is_settled(trend: MutableSequence[float], tol: float, limit_tol: float) -> bool:
    """Return whether a run has converged.

    The last change must be smaller than `tol`, and the estimated limit nearer than `limit_tol`. The change may be a
    fall, as in scikit-learn. If `reg_covar` is not small, EM steps converge to a point where the likelihood does not
    have its maximum, and every step lowers it by less than the step before.
    """
    return abs(trend[LAST_CHANGE]) < tol and (limit_tol == np.inf or trend[REMAINING] < limit_tol)
