"""Where rows come from: blocks that can be walked again and again.

EM only ever asks a source for its blocks. Rows in memory are one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import kernels


@dataclass(frozen=True)
class ArraySource:
    """Rows in memory (or memory-mapped), with their weights.

    Attributes
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) float64 or None
        None is ones.
    """

    X: NDArray
    sample_weight: NDArray[np.float64] | None = None

    def blocks(self) -> Iterator[tuple[NDArray, NDArray[np.float64] | None]]:
        """Blocks of rows and their weights, the same at every call."""
        yield self.X, self.sample_weight

    @property
    def total_weight(self) -> float:
        """Sum of the weights: the number of rows if they have none."""
        return float(len(self.X) if self.sample_weight is None else self.sample_weight.sum())

    @property
    def n_rows(self) -> float:
        """The number of rows: their weights' sum, if these are copies; no fewer than have weights."""
        if self.sample_weight is None:
            return float(len(self.X))
        return max(self.total_weight, float(np.count_nonzero(self.sample_weight)))

    def slices(self, rows: int) -> Iterator[slice]:
        """Slices of at most so many rows that cover all of them."""
        for start in range(0, len(self.X), rows):
            yield slice(start, min(start + rows, len(self.X)))

    def part(self, rows: slice) -> tuple[NDArray, NDArray[np.float64] | None]:
        """A slice of the rows and of the weights."""
        return self.X[rows], None if self.sample_weight is None else self.sample_weight[rows]


def point_near(source: ArraySource) -> NDArray[np.float64]:
    """A point near the rows, (D,), to subtract from them; see `kernels.shift_origin`."""
    some = source.X[:: max(1, len(source.X) // 256)]
    return kernels.shift_origin(some, source.X.dtype).astype(np.float64)
