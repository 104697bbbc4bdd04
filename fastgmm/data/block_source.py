"""Rows that are read in blocks, the next one while the current one is used.

Blocks have a fixed number of rows, whatever pieces the rows are stored in. So the same rows give the same bits from any
file format. A pass holds a few blocks in memory, whatever the number of rows.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import may_run_parallel_anywhere, resolve_n_jobs

from .block_checks import check_values
from .prefetch import SPARE_BLOCKS, Prefetcher, n_threads
from .sources import ArraySource, BlockFunction, BlockFunctionWith, Weights, row_checksum
from .weight_sums import CumulativeWeights, WeightTotals

# Bytes of a block. With 4 MB instead of 8 MB a pass over Parquet took 1.1 times as long, with 16 MB as long; see
# docs/development/decisions/data.md.
BLOCK_BYTES = 8 * 1024 * 1024
# Largest number of threads with a block of their own. With one block for all threads a pass over Parquet took 1.9 times
# as long as reading; see docs/development/decisions/data.md.
MAX_WORKERS = 8
# Bytes of rows that are in memory besides the blocks: samples, and rows far from all components.
RESIDENT_BYTES = 64 * 1024 * 1024
# Smallest number of rows that a sample may have, however many bytes they are.
MIN_RESIDENT_ROWS = 1024
# Smallest number of rows of a block.
MIN_ROWS_PER_BLOCK = 256
# Rows of a block that are compared between passes.
ROWS_COMPARED = 32
# Rows of the fingerprint of a source that has not been read to its end.
ROWS_OF_FINGERPRINT = 1024


def max_resident_rows(n_features: int, dtype: np.dtype) -> int:
    """Return the largest number of rows to copy into memory at a time."""
    return max(MIN_RESIDENT_ROWS, RESIDENT_BYTES // (n_features * dtype.itemsize))


class Cursor(Protocol):
    """A position in the rows, from which the next rows are read."""

    def fill(self, X_out: NDArray, weights_out: Weights) -> int:
        """Write the next rows to the beginning of X_out (n, D) and weights_out (n,).

        Return the number of rows written, at most n. It is 0 at the end of the rows.
        """

    def close(self) -> None: ...


class Reader(Protocol):
    """Rows that can be read any number of times, from the beginning.

    Attributes
    ----------
    n_features : int
    dtype : float64 or float32
    feature_names : tuple of str, or None
    weighted : bool
        Whether the rows have weights.
    n_samples : int or None
        None if the number of rows is unknown until all have been read.
    order : {"C", "F"}
        The memory order of arrays that it fills fastest.
    any_thread : bool
        Whether a cursor may be used by one thread after another. If not, only the thread that opened it may use it.
    is_fixed : bool
        Whether reading raises an error if the rows have changed since the reader was made.
    files : tuple of Path
        The files that the rows are read from, if any.
    """

    n_features: int
    dtype: np.dtype
    feature_names: tuple[str, ...] | None
    weighted: bool
    n_samples: int | None
    order: str
    any_thread: bool
    is_fixed: bool
    files: tuple[Path, ...]

    def open(self) -> Cursor:
        """Return a cursor at the first row."""

    def where(self, row: int) -> str:
        """Return the place of a row in words, for error messages."""


def share_threads(n_threads: int) -> tuple[int, int]:
    """Return the number of blocks to compute on at a time, and threads for each."""
    n_jobs = -(-n_threads // MAX_WORKERS) if may_run_parallel_anywhere() else 1
    return n_threads // n_jobs, n_jobs


class BlockSource:
    """Rows that a reader reads in blocks; see `sources.Source`.

    `fastgmm.rows` makes it, and the methods of estimators take it in place of `X`.

    Parameters
    ----------
    reader : Reader
    block_bytes : int
        Bytes of a block.
    on_pass : callable (n_samples or None) -> context manager of callable (n_rows), optional
        Called at the start of every pass over the rows. The function from the context manager is called after each
        block with its number of rows.
    """

    def __init__(
        self, reader: Reader, *, block_bytes: int = BLOCK_BYTES, on_pass: Callable[[int | None], Any] | None = None
    ):
        self.reader, self.on_pass = reader, on_pass
        self.rows_per_block = max(MIN_ROWS_PER_BLOCK, block_bytes // (reader.n_features * reader.dtype.itemsize))
        self.earlier_pass = None
        # Whether all values have been checked, and any change since then would raise an error.
        self._checked = False
        # Checksums of some rows of every block at the first pass, by its first row and its number of rows.
        self._checksums: dict[tuple[int, int], int] = {}
        self._wants_checksum = False
        # Checksum of all rows, from the first complete pass after `fingerprint` was called.
        self.checksum: int | None = None
        # Number of rows, None until it is known.
        self._n_rows = reader.n_samples
        # Blocks are reused by the next pass: the system hands out new memory page by page, which takes time.
        self._unused: list[tuple[NDArray, Weights]] = []

    def __repr__(self) -> str:
        names = self.reader.feature_names
        n = "?" if self._n_rows is None else self._n_rows
        weights = ", weighted" if self.reader.weighted else ""
        return f"<rows: {n} x {self.n_features} {self.dtype}{weights}{f', {list(names)}' if names else ''}>"

    @property
    def n_features(self) -> int:
        return self.reader.n_features

    @property
    def dtype(self) -> np.dtype:
        return self.reader.dtype

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Return the names of the features, or None."""
        return self.reader.feature_names

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and of features."""
        return self.n_samples, self.n_features

    @property
    def n_samples(self) -> int:
        return self._totals.n_samples if self._n_rows is None else self._n_rows

    @property
    def n_weighted(self) -> int:
        return self._totals.n_weighted

    @property
    def total_weight(self) -> float:
        return self._totals.total_weight

    @property
    def effective_rows(self) -> float:
        return self._totals.effective_rows

    @property
    def max_resident_rows(self) -> int:
        return max_resident_rows(self.n_features, self.dtype)

    def __array__(self, *_: Any, **__: Any) -> NDArray:
        raise TypeError(
            "these rows are read in blocks, but this function needs an array. whole().X has them in memory, if they fit"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unused": []}

    def without_rows(self) -> Any:
        """Return an array without rows, or a table if the features have names."""
        if self.feature_names is None:
            return np.empty((0, self.n_features), self.dtype)
        columns = {name: np.empty(0, self.dtype) for name in self.feature_names}
        try:
            import pyarrow
        except ImportError:
            import pandas  # without pyarrow only data frames have names

            return pandas.DataFrame(columns)
        return pyarrow.table(columns)

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        total = None
        for part in self.each(function):
            total = part if total is None else total + part
        return total

    def reduce_with(self, row_values: Any, function: BlockFunctionWith) -> Any:
        total, first = None, 0
        for X, sample_weight in self.blocks():
            part = function(X, sample_weight, row_values[first : first + len(X)])
            total = part if total is None else total + part
            first += len(X)
        return total

    def each(self, function: BlockFunction) -> Iterator[Any]:
        """Yield a function of each block, in the order of the rows."""
        yield from self._results(function, *share_threads(resolve_n_jobs(None)))

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Return samples: the rows at increasing shares of the total weight.

        All samples are drawn in one pass.
        """
        points = [share * (self.total_weight if self.reader.weighted else self.n_samples) for share in shares]
        drawn: list[list[NDArray]] = [[] for _ in shares]
        n_drawn = [0] * len(shares)
        before, last = 0.0, np.zeros((1, self.n_features), self.dtype)
        for X, sample_weight in self.blocks():
            cumulative = CumulativeWeights(len(X), sample_weight, before)
            if sample_weight is None or sample_weight.any():
                last = X[[cumulative.last]]
            for i, point in enumerate(points):
                end = int(np.searchsorted(point, cumulative.total, side="left"))
                drawn[i].append(X[cumulative.rows_at(point[n_drawn[i] : end])])
                n_drawn[i] = max(n_drawn[i], end)
            before = cumulative.total
        for i, point in enumerate(points):  # rounding may put points behind the last row
            drawn[i].extend([last] * (len(point) - n_drawn[i]))
        return [ArraySource(np.concatenate(parts)) for parts in drawn]

    def whole(self) -> ArraySource:
        """Return the rows whose weight is above 0, in memory."""
        parts, weights = [], []
        for X, sample_weight in self.blocks():
            parts.append(X.copy() if sample_weight is None else X[sample_weight > 0])
            if sample_weight is not None:
                weights.append(sample_weight[sample_weight > 0])
        return ArraySource(np.ascontiguousarray(np.concatenate(parts)), np.concatenate(weights) if weights else None)

    def fingerprint(self) -> int:
        """Return a checksum of the first rows.

        The next complete pass computes `checksum`.
        """
        self._wants_checksum = True
        n = min(self.rows_per_block, ROWS_OF_FINGERPRINT)
        empty = np.empty((n, self.n_features), self.dtype), np.empty(n) if self.reader.weighted else None
        with contextlib.closing(self.reader.open()) as cursor:
            return row_checksum(*self._next_block(cursor, empty, 0))

    def point_near(self) -> NDArray[np.float64]:
        return self._point

    @cached_property
    def _point(self) -> NDArray[np.float64]:
        blocks = self.blocks()
        with contextlib.closing(blocks):
            return ArraySource(next(blocks)[0]).point_near()

    @cached_property
    def _totals(self) -> WeightTotals:
        if not self.reader.weighted and self._n_rows is not None:
            return WeightTotals.of(self._n_rows, None)
        totals, total_weight = WeightTotals(), 0.0
        for X, sample_weight in self.blocks():
            totals = totals.plus(WeightTotals.of(len(X), sample_weight, totals.scale))
            # The weights are added row after row, as in `draw`.
            total_weight = CumulativeWeights(len(X), sample_weight, total_weight).total
        if not total_weight > 0:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return totals._replace(total_weight=total_weight)

    def blocks(self) -> Generator[tuple[NDArray, Weights], None, None]:
        """Yield blocks of rows (n, D) and weights (n,), the same in every pass.

        The arrays of a block are overwritten when the next block is requested.

        Raises
        ------
        ValueError
            If rows are not finite, if weights are negative, or if the number of rows has changed.
        """
        yield from self._results(lambda *block: block, 1)

    def _results(self, function: BlockFunction, n_workers: int, n_jobs: int = 1) -> Generator[Any, None, None]:
        """Yield a function of each block, in the order of the rows."""
        observer = contextlib.nullcontext(lambda n: None) if self.on_pass is None else self.on_pass(self._n_rows)
        n_blocks = n_threads(n_workers) + SPARE_BLOCKS
        blocks = [self._unused.pop() if self._unused else self._empty() for _ in range(n_blocks)]
        needs_checksum, checksum = self._wants_checksum and self.checksum is None, 0

        def fill(cursor: Cursor, empty: tuple[NDArray, Weights], first: int) -> tuple[NDArray, Weights]:
            nonlocal checksum
            block = self._next_block(cursor, empty, first)
            if needs_checksum:
                checksum += row_checksum(*block, first)
            return block

        reader = self.reader
        prefetcher = Prefetcher(reader.open, fill, any_thread=reader.any_thread, n_workers=n_workers, n_jobs=n_jobs)
        with observer as advance, contextlib.closing(prefetcher.results(function, blocks)) as results:
            for result, n_rows in results:
                yield result
                advance(n_rows)
        self._unused = blocks
        self._check_count(prefetcher.n_rows)
        self._n_rows, self._checked = prefetcher.n_rows, reader.is_fixed
        if needs_checksum:
            self.checksum = checksum % (1 << 64)

    def _check_count(self, n_samples: int) -> None:
        """Raise ValueError if there are no rows, or another number of rows than before."""
        if n_samples == 0 and not self._n_rows:
            raise ValueError("Found array with 0 sample(s): there are no rows to read.")
        if self._n_rows is not None and n_samples != self._n_rows:
            raise ValueError(
                f"every pass must read the same rows, got {n_samples} rows instead of {self._n_rows}. If the data have "
                "changed, call fastgmm.rows again."
            )

    def _empty(self) -> tuple[NDArray, Weights]:
        n = self.rows_per_block if self._n_rows is None else min(self.rows_per_block, max(1, self._n_rows))
        return (
            np.empty((n, self.n_features), self.dtype, order="F" if self.reader.order == "F" else "C"),
            np.empty(n) if self.reader.weighted else None,
        )

    def _next_block(self, cursor: Cursor, empty: tuple[NDArray, Weights], first: int) -> tuple[NDArray, Weights]:
        """Read the next block into the arrays of an earlier one.

        The last block may have fewer rows.
        """
        X, weights = empty
        n = 0
        with np.errstate(over="ignore", invalid="ignore"):  # the checks below find values that are too large
            while n < len(X):
                n_read = cursor.fill(X[n:], None if weights is None else weights[n:])
                if not n_read:
                    break
                n += n_read
        X, weights = X[:n], None if weights is None else weights[:n]
        if not self._checked:
            check_values(X, weights, lambda row: self.reader.where(first + row), self.feature_names)
        if n and not self.reader.is_fixed:
            self._check_same(X, weights, first)
        return X, weights

    def _check_same(self, X: NDArray, weights: Weights, first: int) -> None:
        """Raise ValueError if a block is not the one of the first pass.

        Some of its rows are compared.
        """
        sample = slice(None, None, -(-len(X) // ROWS_COMPARED))
        checksum = zlib.crc32(np.ascontiguousarray(X[sample]).data)
        if weights is not None:
            checksum = zlib.crc32(np.ascontiguousarray(weights[sample]).data, checksum)
        # A block with another number of rows raises an error at the end of the pass.
        if self._checksums.setdefault((first, len(X)), checksum) != checksum:
            raise ValueError(
                f"every pass must read the same rows, but some rows from {self.reader.where(first)} on have changed "
                "since the first pass. If they are drawn at random, use the same seed in every pass. If the data have "
                "changed, call fastgmm.rows again."
            )
