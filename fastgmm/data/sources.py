"""Where rows come from: blocks that can be walked again and again.

EM only ever asks a source for sums over its rows, and for samples of them. Rows in memory are one block; `blocks` has
rows that are read from somewhere, block after block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels

Weights = NDArray[np.float64] | None
# A function of a block of rows (n, D) and their weights (n,) or None.
BlockFunction = Callable[[NDArray, Weights], Any]
ROWS_PER_SLICE = 1 << 18
# Of checksums: rows at a time, 2^64 over the golden ratio, and the multiplier of Evensen's `rrmxmx` mixing function.
ROWS_PER_CHECKSUM = 1 << 14
GOLDEN, MIXER = 0x9E3779B97F4A7C15, 0x9FB21C651E98DF25
# Sizes of numbers whose squares stay in the range of float32, by a wide margin.
SMALLEST_TO_SQUARE, LARGEST_TO_SQUARE = 1e-15, 1e15


class Source(Protocol):
    """Rows and their weights.

    Attributes
    ----------
    n_samples, n_features : int
    dtype : float64 or float32
    n_weighted : int
        Rows of weight above 0.
    total_weight : float
        Sum of the weights: the number of rows if they have none.
    effective_rows : float
        How many rows of equal weight are worth as much: ``(sum w)^2 / sum w^2`` (Kish, 1965, Survey Sampling).
    most_resident : int
        So many rows, at most, should be taken into memory at a time.
    earlier_pass : SufficientStatistics or None
        Of an earlier pass over these rows, for what never changes.
    checksum : int or None
        Of all rows, if `fingerprint` is not of all of them, and they have been read since it was asked for.
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
    def most_resident(self) -> float: ...

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        """The sum of a function of the blocks.

        `earlier_pass` is what the same sum was before, with other parameters: a source that is one block hands it on to
        the function, as a keyword.
        """

    def reduce_with(self, given: Any, function: Callable[[NDArray, Weights, NDArray], Any]) -> Any:
        """The sum of a function of the blocks and of what is given for their rows: an array with a line for each."""

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Rows at increasing shares of the total weight, in [0, 1), in memory and each of weight 1."""

    def whole(self) -> ArraySource:
        """All rows in memory."""

    def fingerprint(self) -> int:
        """A checksum by which other rows are told apart, found without a pass over rows that are not in memory."""

    def point_near(self) -> NDArray[np.float64]:
        """A point near the rows, (D,), to subtract from them; see `kernels.shift_origin`."""


def count_rows(source: Source) -> float:
    """The number of rows: their weights' sum, if these are copies; no fewer than have weights."""
    return max(source.total_weight, float(source.n_weighted))


def row_checksum(X: NDArray, sample_weight: Weights, first: int = 0) -> int:
    """Return a checksum of rows, their weights and their order, below 2^64.

    That of all rows is the sum of those of their parts, modulo 2^64, each with `first`, the number of rows before it.
    So it does not depend on how the rows are cut, nor on the memory order.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,) float64 or None
    first : int, default=0
    """
    n_features, total = X.shape[1], 0
    factors = (np.arange(1, n_features + 3, dtype=np.uint64) * np.uint64(GOLDEN)) | np.uint64(1)
    for begin in range(0, len(X), ROWS_PER_CHECKSUM):
        part = X[begin : begin + ROWS_PER_CHECKSUM]
        mixed = part.view(f"u{X.itemsize}").astype(np.uint64, copy=False) @ factors[:n_features]
        mixed += np.arange(first + begin, first + begin + len(part), dtype=np.uint64) * factors[n_features]
        if sample_weight is not None:
            mixed += sample_weight[begin : begin + len(part)].view(np.uint64) * factors[n_features + 1]
        # A row's parts add up; without this the rows' would too, and changes could cancel.
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
        None is ones.
    earlier_pass : SufficientStatistics or None
        Of an earlier pass over these rows, for what never changes.
    n_outliers : int
        The last rows, as many as this, are in every sample that is drawn; see `outliers`.
    """

    X: NDArray
    sample_weight: Weights = None
    earlier_pass: Any = None
    n_outliers: int = 0
    most_resident = float("inf")
    checksum = None

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
        if self.sample_weight is None:
            return float(len(self.X))
        scaled = self.sample_weight / self.sample_weight.max()
        return float(scaled.sum() ** 2 / (scaled**2).sum())

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        if earlier_pass is None:
            return function(self.X, self.sample_weight)
        return function(self.X, self.sample_weight, earlier_pass=earlier_pass)  # type: ignore[call-arg]

    def reduce_with(self, given: Any, function: Callable[[NDArray, Weights, NDArray], Any]) -> Any:
        return function(self.X, self.sample_weight, given)

    def each(self, function: BlockFunction) -> Iterator[Any]:
        """A function of some slices, in the order of the rows."""
        for rows in self.slices(ROWS_PER_SLICE):
            yield function(*self.part(rows))

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        n = len(self.X) - self.n_outliers
        if self.sample_weight is None:
            rows = [np.minimum((share * n).astype(np.intp), n - 1) for share in shares]
        else:
            cumulative = np.cumsum(self.sample_weight[:n])
            last = np.flatnonzero(self.sample_weight[:n])[-1]
            found = (np.searchsorted(cumulative, share * cumulative[-1], side="right") for share in shares)
            rows = [np.minimum(these, last) for these in found]
        return [self._sample(these) for these in rows]

    def _sample(self, rows: NDArray[np.intp]) -> ArraySource:
        """Some rows, each of weight 1, and the outliers, whose weights are relative to those."""
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
        some = self.X[:: max(1, len(self.X) // 256)]
        return kernels.shift_origin(some, self.X.dtype).astype(np.float64)

    def slices(self, rows: int) -> Iterator[slice]:
        """Slices of at most so many rows that cover all of them."""
        for start in range(0, len(self.X), rows):
            yield slice(start, min(start + rows, len(self.X)))

    def part(self, rows: slice) -> tuple[NDArray, Weights]:
        """A slice of the rows and of the weights."""
        return self.X[rows], None if self.sample_weight is None else self.sample_weight[rows]


def squares_leave_range(points: NDArray) -> bool:
    """Whether the squares of the largest of some float32 numbers overflow or become zero."""
    if points.dtype != np.float32 or points.size == 0:
        return False
    largest = max(float(points.max()), -float(points.min()))
    return largest > LARGEST_TO_SQUARE or 0 < largest < SMALLEST_TO_SQUARE


def in_range(source: ArraySource) -> ArraySource:
    """The rows, copied to float64 if distances between them leave the range of float32."""
    if not squares_leave_range(source.X):
        return source
    return replace(source, X=source.X.astype(np.float64), earlier_pass=None)
