"""Sums of the weights of rows, and the rows at points of the cumulative weight.

All sources use these: rows in memory, rows in blocks, and rows on a cluster.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class WeightTotals(NamedTuple):
    """Sums over the weights of rows.

    Attributes
    ----------
    n_samples : int
    n_weighted : int
        Number of rows whose weight is above 0.
    total_weight : float
        Sum of the weights. It is the number of rows if they have no weights.
    scale : float
        The weights are divided by this number before they are squared, so that squares neither overflow nor vanish.
        Zero if the rows have no weights.
    sum_scaled, sum_squares : float
        Sum of the scaled weights, and sum of their squares.
    """

    n_samples: int = 0
    n_weighted: int = 0
    total_weight: float = 0.0
    scale: float = 0.0
    sum_scaled: float = 0.0
    sum_squares: float = 0.0

    @classmethod
    def of(cls, n_samples: int, weights: NDArray[np.float64] | None, scale: float = 0.0) -> WeightTotals:
        """Return the totals of rows with these weights, (n,) or None.

        A `scale` of zero means the largest weight.
        """
        if weights is None:
            return cls(n_samples, n_samples, float(n_samples))
        scale = scale or float(weights.max(initial=0.0)) or 1.0
        scaled = weights / scale
        n_weighted, total = int(np.count_nonzero(weights)), float(weights.sum())
        return cls(n_samples, n_weighted, total, scale, float(scaled.sum()), float((scaled**2).sum()))

    def rescaled(self, scale: float) -> WeightTotals:
        """Return the same totals with another scale."""
        if not self.scale:
            return self
        if not self.n_weighted:
            return self._replace(scale=scale)
        factor = self.scale / scale
        return self._replace(scale=scale, sum_scaled=self.sum_scaled * factor, sum_squares=self.sum_squares * factor**2)

    def plus(self, other: WeightTotals) -> WeightTotals:
        """Return the totals of the rows of both.

        Both must have one scale, unless all weights of one are zero.
        """
        return WeightTotals(
            self.n_samples + other.n_samples,
            self.n_weighted + other.n_weighted,
            self.total_weight + other.total_weight,
            other.scale if other.n_weighted else self.scale,
            self.sum_scaled + other.sum_scaled,
            self.sum_squares + other.sum_squares,
        )

    @property
    def effective_rows(self) -> float:
        """Return Kish's effective sample size; without weights, the number of rows."""
        return self.sum_scaled**2 / self.sum_squares if self.scale else float(self.n_samples)


class CumulativeWeights:
    """The cumulative weight of a block of rows, to find the rows at points of it.

    Parameters
    ----------
    n_rows : int
    weights : (n_rows,) float64 or None
        None means that every weight is 1.
    before : float, default=0.0
        Sum of the weights of all rows before the block.

    Attributes
    ----------
    total : float
        Sum of the weights of all rows up to the end of the block, added row after row.
    """

    def __init__(self, n_rows: int, weights: NDArray[np.float64] | None, before: float = 0.0):
        self.n_rows, self.weights, self.before = n_rows, weights, before
        self._ends: NDArray[np.float64] | None = None
        if weights is None:
            self.total = before + n_rows
        else:
            # The same bits as those of the cumulative sum of all rows.
            first = np.concatenate([[before + weights[0]], weights[1:]]) if before else weights
            self._ends = np.cumsum(first)
            self.total = float(self._ends[-1])

    @cached_property
    def last(self) -> int:
        """Return the last row whose weight is above 0; row 0 if there is none."""
        if self.weights is None:
            return self.n_rows - 1
        return int(np.flatnonzero(self.weights)[-1]) if self.weights.any() else 0

    def rows_at(self, points: NDArray[np.float64] | np.float64) -> NDArray[np.intp]:
        """Return the row at each point between `before` and `total`."""
        if self._ends is None:
            return np.minimum((points - self.before).astype(np.intp), self.last)
        # Rounding may put a point behind the last row with weight.
        return np.minimum(np.searchsorted(self._ends, points, side="right"), self.last)
