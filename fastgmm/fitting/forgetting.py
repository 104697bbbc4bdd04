"""The schedule by which stepwise EM forgets rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ForgettingSchedule:
    """Describe how fast rows are forgotten.

    After m rows, their effective number is ``N(m) = m (m / B)^(a - 1)``, and m up to the first batch of B rows. A step
    on n rows therefore multiplies the statistics of the rows before by ``(N(m + n) - n) / N(m)``. Normalised by N, the
    step is ``s + g (s_batch - s)`` with the step size ``g = (m / B)^-a`` of Cappé & Moulines (2009), where m / B is the
    number of batches so far. With a = 1 nothing is forgotten, not even by rounding.

    A half-life of h rows is another factor ``2^(-n / h)``. Within a batch, the row that is followed by i others then
    has the weight ``2^(-i / h)``.

    Attributes
    ----------
    batch_size : int
        B, in rows.
    learning_decay : float
        a, above 0.5 and at most 1.
    half_life : float
        h, in rows.
    """

    batch_size: int
    learning_decay: float
    half_life: float = math.inf

    def effective_rows(self, n_rows: float) -> float:
        """Return the effective number of the first `n_rows` rows, without the half-life."""
        return n_rows * max(1.0, n_rows / self.batch_size) ** (self.learning_decay - 1)

    def retained(self, n_before: float, n_new: int) -> float:
        """Return the factor of the statistics of `n_before` rows after `n_new` others.

        It is between 0 and 1.
        """
        factor = (self.effective_rows(n_before + n_new) - n_new) / self.effective_rows(n_before)
        return float(min(max(factor, 0.0), 1.0) * 2 ** (-n_new / self.half_life))

    def recency(self, n_rows: int) -> NDArray[np.float64] | None:
        """Return the weight of each row at the end of a batch; None if all are 1."""
        if self.half_life == math.inf:
            return None
        return 2.0 ** (-np.arange(n_rows - 1, -1, -1.0) / self.half_life)

    def effective_batch_rows(self, n_rows: int) -> float:
        """Return the effective number of the rows of a batch at its end."""
        recency = self.recency(n_rows)
        return float(n_rows if recency is None else recency.sum())

    def batch_weights(self, sample_weight: NDArray[np.float64] | None, n_rows: int) -> NDArray[np.float64] | None:
        """Return sample weights times recency, (n_rows,); None if all are 1."""
        recency = self.recency(n_rows)
        if recency is None or sample_weight is None:
            return sample_weight if recency is None else recency
        return sample_weight * recency
