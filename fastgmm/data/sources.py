"""Sources of rows: their protocol, and rows in memory.

EM asks a source for sums over its rows and for samples of them. Rows in memory are one block. `block_source` has rows
that are read one block at a time, and `dask_source` has rows on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels

from .weight_sums import CumulativeWeights, WeightTotals

Weights = NDArray[np.float64] | None
# A function of a block of rows (n, D) and their weights (n,) or None.
BlockFunction = Callable[[NDArray, Weights], Any]
# A function of a block of rows, their weights, and an array with one entry for each row.
BlockFunctionWith = Callable[[NDArray, Weights, NDArray], Any]
# Rows in memory that a function is called with at a time.
ROWS_PER_SLICE = 1 << 18
# Rows that a checksum reads at a time.
ROWS_PER_CHECKSUM = 1 << 14
# 2^64 divided by the golden ratio, for checksums.
GOLDEN = 0x9E3779B97F4A7C15
# The multiplier of Evensen's mixing function `rrmxmx`, for checksums.
MIXER = 0x9FB21C651E98DF25
# Float32 numbers between these two have squares in the range of float32, by a wide margin.
SMALLEST_TO_SQUARE = 1e-15
LARGEST_TO_SQUARE = 1e15
# Rows that `point_near` looks at.
ROWS_OF_POINT = 256


class Source(Protocol):
    """Rows and their weights, which can be read any number of times.

    Attributes
    ----------
    n_samples, n_features : int
    dtype : float64 or float32
    n_weighted : int
        Number of rows whose weight is above 0.
    total_weight : float
        Sum of the weights. It is the number of rows if they have no weights.
    effective_rows : float
        Kish's effective sample size ``(sum w)^2 / sum w^2`` (Kish, 1965, Survey Sampling): the number of rows of equal
        weight whose mean has the same variance.
    max_resident_rows : int or inf
        Largest number of rows to copy into memory at a time.
    earlier_pass : SufficientStatistics or None
        Statistics of an earlier pass over the same rows. Their total scatter is reused, as it never changes.
    checksum : int or None
        Checksum of all rows. None if `fingerprint` covers all rows, or if no pass has been made since the first call of
        `fingerprint`.
    """

    @property
    def checksum(self) -> int | None: ...
    @property
    def earlier_pass(self) -> Any: ...
    @property
    def n_samples(self) -> int: ...
    @property
    def n_features(self) -> int: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def n_weighted(self) -> int: ...
    @property
    def total_weight(self) -> float: ...
    @property
    def effective_rows(self) -> float: ...
    @property
    def max_resident_rows(self) -> float: ...

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        """Return the sum of a function over the blocks.

        `earlier_pass` is the same sum for other parameters. A source of one block passes it to the function as a
        keyword.
        """

    def reduce_with(self, row_values: Any, function: BlockFunctionWith) -> Any:
        """Return the sum of a function of the blocks and of values for their rows.

        `row_values` is an array with one entry for each row, or what the source's own class prepares in its place.
        """

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Return samples: the rows at increasing shares, in [0, 1), of the weight.

        Each row of a sample has weight 1.
        """

    def whole(self) -> ArraySource:
        """Return all rows in memory."""

    def fingerprint(self) -> int:
        """Return a checksum that differs for other rows.

        It needs no pass over rows that are not in memory.
        """

    def point_near(self) -> NDArray[np.float64]:
        """Return a point near the rows, (D,), to subtract from them.

        See `kernels.shift_origin`.
        """


def count_rows(source: Source) -> float:
    """Return the total weight, or the number of rows with a weight if that is larger.

    This is the number of rows if weights are numbers of copies.
    """
    return max(source.total_weight, float(source.n_weighted))


def row_checksum(X: NDArray, sample_weight: Weights, first: int = 0) -> int:
    """Return a checksum of rows, their weights and their order, below 2^64.

    The checksum of all rows is the sum of the checksums of their parts, modulo 2^64. So it does not depend on how the
    rows are cut into parts, nor on the memory order.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) float64 or None
    first : int, default=0
        Number of rows before this part.
    """
    n_features, total = X.shape[1], 0
    factors = (np.arange(1, n_features + 3, dtype=np.uint64) * np.uint64(GOLDEN)) | np.uint64(1)
    for begin in range(0, len(X), ROWS_PER_CHECKSUM):
        part = X[begin : begin + ROWS_PER_CHECKSUM]
        mixed = part.view(f"u{X.itemsize}").astype(np.uint64, copy=False) @ factors[:n_features]
        mixed += np.arange(first + begin, first + begin + len(part), dtype=np.uint64) * factors[n_features]
        if sample_weight is not None:
            mixed += sample_weight[begin : begin + len(part)].view(np.uint64) * factors[n_features + 1]
        # The numbers of a row are added. Without this mixing, changes of two rows could cancel in the sum of rows.
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(MIXER)
        mixed ^= mixed >> np.uint64(32)
        total += int(mixed.sum(dtype=np.uint64))
    return total % (1 << 64)


@dataclass(frozen=True)
class ArraySource:
    """Rows in memory (or memory-mapped), with their weights; see `Source`.

    Attributes
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) float64 or None
        None means that every weight is 1.
    earlier_pass : SufficientStatistics or None
        Statistics of an earlier pass over the same rows. Their total scatter is reused, as it never changes.
    n_outliers : int
        The last `n_outliers` rows are in every sample that is drawn; see `initialization.outliers`.
    kept : dict
        What other parts of the package keep for these rows.
    """

    X: NDArray
    sample_weight: Weights = None
    earlier_pass: Any = None
    n_outliers: int = 0
    kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    max_resident_rows = float("inf")
    checksum = None

    def __getstate__(self) -> dict[str, Any]:
        # What is kept may have addresses of this process's memory.
        return self.__dict__ | {"kept": {}}

    @property
    def n_samples(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return self.X.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.X.dtype

    @cached_property
    def n_weighted(self) -> int:
        return len(self.X) if self.sample_weight is None else int(np.count_nonzero(self.sample_weight))

    @cached_property
    def total_weight(self) -> float:
        return float(len(self.X) if self.sample_weight is None else self.sample_weight.sum())

    @cached_property
    def effective_rows(self) -> float:
        return WeightTotals.of(len(self.X), self.sample_weight).effective_rows

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        if earlier_pass is None:
            return function(self.X, self.sample_weight)
        return function(self.X, self.sample_weight, earlier_pass=earlier_pass)  # type: ignore[call-arg]

    def reduce_with(self, row_values: Any, function: BlockFunctionWith) -> Any:
        return function(self.X, self.sample_weight, row_values)

    def each(self, function: BlockFunction) -> Iterator[Any]:
        """Yield a function of each slice, in the order of the rows."""
        for rows in self.slices(ROWS_PER_SLICE):
            yield function(*self.part(rows))

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        n = len(self.X) - self.n_outliers
        cumulative = CumulativeWeights(n, None if self.sample_weight is None else self.sample_weight[:n])
        return [self._sample(cumulative.rows_at(share * cumulative.total)) for share in shares]

    def _sample(self, rows: NDArray[np.intp]) -> ArraySource:
        """Return some of the rows, each of weight 1, and the outliers.

        The weights of the outliers are relative to the mean weight of the other rows.
        """
        n = len(self.X) - self.n_outliers
        if not self.n_outliers:
            return ArraySource(np.ascontiguousarray(self.X[rows]))
        weights = np.ones(len(self.X)) if self.sample_weight is None else self.sample_weight
        outliers = weights[n:] * (len(rows) / weights[:n].sum())
        return ArraySource(
            np.concatenate([self.X[rows], self.X[n:]]),
            np.concatenate([np.ones(len(rows)), outliers]),
            n_outliers=self.n_outliers,
        )

    def whole(self) -> ArraySource:
        return self

    def fingerprint(self) -> int:
        return row_checksum(self.X, self.sample_weight)

    def point_near(self) -> NDArray[np.float64]:
        sample = self.X[:: max(1, len(self.X) // ROWS_OF_POINT)]
        return kernels.shift_origin(sample, self.X.dtype).astype(np.float64)

    def slices(self, n_rows: int) -> Iterator[slice]:
        """Yield slices of at most `n_rows` rows that cover all rows."""
        for start in range(0, len(self.X), n_rows):
            yield slice(start, min(start + n_rows, len(self.X)))

    def part(self, rows: slice) -> tuple[NDArray, Weights]:
        """Return a slice of the rows and of the weights."""
        return self.X[rows], None if self.sample_weight is None else self.sample_weight[rows]


def squares_leave_range(points: NDArray) -> bool:
    """Return whether squares of float32 numbers may overflow or vanish."""
    if points.dtype != np.float32 or points.size == 0:
        return False
    largest = max(float(points.max()), -float(points.min()))
    return largest > LARGEST_TO_SQUARE or 0 < largest < SMALLEST_TO_SQUARE


def in_range(source: ArraySource) -> ArraySource:
    """Return the rows in a dtype in which squared distances are in range.

    Rows in float32 are copied to float64 if their squares may overflow or vanish.
    """
    return (
        replace(source, X=source.X.astype(np.float64), earlier_pass=None) if squares_leave_range(source.X) else source
    )
