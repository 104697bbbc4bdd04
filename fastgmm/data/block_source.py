"""Rows that are read block after block, from wherever they are; the next block while the current one is worked on.

Blocks have a fixed number of rows whatever the source's own pieces are, so the same rows give the same bits from any
file format. Memory is some blocks, whatever the number of rows.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import may_run_parallel_anywhere, resolve_n_jobs

from .prefetch import SPARE, Walk, n_threads
from .sources import ArraySource, BlockFunction, Weights, row_checksum

# A block, of which there is one for every thread of a walk, and one to spare. With 4 MB in place of 8 a pass over
# 12,000,000 x 6 rows in Parquet took 1.1 times as long, with 16 MB as long.
BLOCK_BYTES = 8 * 1024 * 1024
# Threads that have blocks of their own. Passes on one block that all threads shared waited for whichever of them had
# to make room for reading: of 12,000,000 x 6 rows in Parquet a pass took 1.9 times as long as reading, with K=8.
MOST_WORKERS = 8
# What of the rows may be in memory besides: samples, rows that fit badly.
RESIDENT_BYTES = 64 * 1024 * 1024
# Rows of a block that are compared from one walk to the next.
ROWS_COMPARED = 32
# Rows by which a source is told from another one before all of them have been read.
ROWS_OF_FINGERPRINT = 1024


class Cursor(Protocol):
    """A place in the rows."""

    def fill(self, X_out: NDArray, weights_out: Weights) -> int:
        """Put the next rows at the beginning of X_out (n, D) and weights_out (n,); returns how many, 0 at the end."""

    def close(self) -> None: ...


class Reader(Protocol):
    """Rows that can be read again and again, from the beginning.

    Attributes
    ----------
    n_features : int
    dtype : float64 or float32
    feature_names : tuple of str, or None
    weighted : bool
        Whether rows have weights.
    n_samples : int or None
        None if only reading them all can tell.
    order : {"C", "F"}
        In which it fills arrays fastest.
    any_thread : bool
        Whether its cursors may be used from one thread after another, and not only from the one that opened them.
    is_fixed : bool
        Whether it notices if what it reads has changed since it was made.
    files : tuple of Path
        What it reads, as far as these are files.
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
        """The beginning."""

    def where(self, row: int) -> str:
        """In words where a row is, for error messages."""


class Summary(NamedTuple):
    """What a walk over weights tells."""

    n_samples: int
    n_weighted: int
    total_weight: float
    effective_rows: float


def share_threads(n_threads: int) -> tuple[int, int]:
    """How many blocks are computed at a time, and each on how many threads."""
    each = -(-n_threads // MOST_WORKERS) if may_run_parallel_anywhere() else 1
    return n_threads // each, each


class BlockSource:
    """Rows from a reader, as `sources.Source`. Made by `fastgmm.rows`; any method of an estimator takes it for `X`.

    Parameters
    ----------
    reader : Reader
    block_bytes : int
        How much to read at a time.
    on_walk : callable (n_samples or None) -> context manager of callable (n_rows), optional
        Told of every walk over the rows, and of each block in it.
    """

    def __init__(
        self, reader: Reader, *, block_bytes: int = BLOCK_BYTES, on_walk: Callable[[int | None], Any] | None = None
    ):
        self.reader, self.on_walk = reader, on_walk
        self.rows_per_block = max(256, block_bytes // (reader.n_features * reader.dtype.itemsize))
        self.earlier_pass = None
        self._checked = False
        # Checksums of some rows of every block when it was first read, by its first row and its number of rows.
        self._checksums: dict[tuple[int, int], int] = {}
        self._wants_checksum = False
        # Of all rows, once they have been walked over since `fingerprint` was asked for.
        self.checksum: int | None = None
        self._n_found = reader.n_samples
        # Blocks are kept between walks: new memory would have to be asked for page by page.
        self._unused: list[tuple[NDArray, Weights]] = []

    def __repr__(self) -> str:
        names = self.reader.feature_names
        n = "?" if self._n_found is None else self._n_found
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
        """Names of the features, if they have any."""
        return self.reader.feature_names

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self.n_samples, self.n_features

    @property
    def n_samples(self) -> int:
        return self._summary.n_samples if self._n_found is None else self._n_found

    @property
    def n_weighted(self) -> int:
        return self._summary.n_weighted

    @property
    def total_weight(self) -> float:
        return self._summary.total_weight

    @property
    def effective_rows(self) -> float:
        return self._summary.effective_rows

    @property
    def most_resident(self) -> int:
        return max(1024, RESIDENT_BYTES // (self.n_features * self.dtype.itemsize))

    def __array__(self, *_: Any, **__: Any) -> NDArray:
        raise TypeError(
            "these rows are read block after block, which this cannot do; whole().X has them in memory, if they fit"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unused": []}

    def without_rows(self) -> Any:
        """An empty array or table with the features, and their names if there are any."""
        if self.feature_names is None:
            return np.empty((0, self.n_features), self.dtype)
        columns = {name: np.empty(0, self.dtype) for name in self.feature_names}
        try:
            import pyarrow
        except ImportError:
            import pandas  # names of data frames; pyarrow reads the other tables

            return pandas.DataFrame(columns)
        return pyarrow.table(columns)

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        total = None
        for part in self.each(function):
            total = part if total is None else total + part
        return total

    def reduce_with(self, given: Any, function: Callable[[NDArray, Weights, NDArray], Any]) -> Any:
        total, first = None, 0
        for X, sample_weight in self.blocks():
            part = function(X, sample_weight, given[first : first + len(X)])
            total = part if total is None else total + part
            first += len(X)
        return total

    def each(self, function: BlockFunction) -> Iterator[Any]:
        """A function of each block, in the order of the rows."""
        yield from self._results(function, *share_threads(resolve_n_jobs(None)))

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Rows at increasing shares of the total weight; all of them in one walk."""
        targets = [share * (self.total_weight if self.reader.weighted else self.n_samples) for share in shares]
        drawn: list[list[NDArray]] = [[] for _ in shares]
        done = [0] * len(shares)
        begin, last = 0.0, np.zeros((1, self.n_features), self.dtype)
        for X, sample_weight in self.blocks():
            if sample_weight is None:
                cumulative, end, last = None, begin + len(X), X[-1:].copy()
            else:
                # As a sum over all rows would be, to the bit.
                cumulative = np.cumsum(np.concatenate([[begin + sample_weight[0]], sample_weight[1:]]))
                end = cumulative[-1]
                if sample_weight.any():
                    last = X[[np.flatnonzero(sample_weight)[-1]]]
            for i, target in enumerate(targets):
                until = int(np.searchsorted(target, end, side="left"))
                here = target[done[i] : until]
                rows = (
                    (here - begin).astype(np.intp)
                    if cumulative is None
                    else np.searchsorted(cumulative, here, side="right")
                )
                drawn[i].append(X[np.minimum(rows, len(X) - 1)])
                done[i] = max(done[i], until)
            begin = end
        for i, target in enumerate(targets):  # rounding may have left the last
            drawn[i].extend([last] * (len(target) - done[i]))
        return [ArraySource(np.concatenate(parts)) for parts in drawn]

    def whole(self) -> ArraySource:
        """The rows that count, in memory."""
        parts, weights = [], []
        for X, sample_weight in self.blocks():
            parts.append(X.copy() if sample_weight is None else X[sample_weight > 0])
            if sample_weight is not None:
                weights.append(sample_weight[sample_weight > 0])
        return ArraySource(np.ascontiguousarray(np.concatenate(parts)), np.concatenate(weights) if weights else None)

    def fingerprint(self) -> int:
        """A checksum of the first rows. From then on the next walk over all rows finds `checksum`, on its way."""
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
    def _summary(self) -> Summary:
        if not self.reader.weighted and self._n_found is not None:
            n = self._n_found
            return Summary(n, n, float(n), float(n))
        n_samples = n_weighted = 0
        scale, total, scaled, squares = 0.0, 0.0, 0.0, 0.0
        for X, sample_weight in self.blocks():
            n_samples += len(X)
            if sample_weight is not None:
                n_weighted += int(np.count_nonzero(sample_weight))
                total = float(np.cumsum(np.concatenate([[total + sample_weight[0]], sample_weight[1:]]))[-1])
                scale = scale or float(sample_weight.max())
                some = sample_weight / (scale or 1.0)
                scaled, squares = scaled + float(some.sum()), squares + float((some**2).sum())
        if not self.reader.weighted:
            return Summary(n_samples, n_samples, float(n_samples), float(n_samples))
        if not total > 0:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return Summary(n_samples, n_weighted, total, scaled**2 / squares)

    def blocks(self) -> Generator[tuple[NDArray, Weights], None, None]:
        """Blocks of rows (n, D) and their weights (n,), the same at every call, each gone when the next is asked for.

        Raises
        ------
        ValueError
            If rows are not finite, weights are negative, or there are not as many rows as before.
        """
        yield from self._results(lambda *block: block, 1)

    def _results(self, function: BlockFunction, n_workers: int, n_jobs: int = 1) -> Generator[Any, None, None]:
        """A function of each block, in order."""
        watch = contextlib.nullcontext(lambda n: None) if self.on_walk is None else self.on_walk(self._n_found)
        blocks = [self._unused.pop() if self._unused else self._empty() for _ in range(n_threads(n_workers) + SPARE)]
        checksum = 0

        def fill(cursor: Cursor, empty: tuple[NDArray, Weights], first: int) -> tuple[NDArray, Weights]:
            nonlocal checksum
            block = self._next_block(cursor, empty, first)
            if wants_checksum:
                checksum += row_checksum(*block, first)
            return block

        wants_checksum = self._wants_checksum and self.checksum is None
        walk = Walk(self.reader.open, fill, any_thread=self.reader.any_thread, n_workers=n_workers, n_jobs=n_jobs)
        with watch as advance, contextlib.closing(walk.results(function, blocks)) as results:
            for result, n_rows in results:
                yield result
                advance(n_rows)
        self._unused = blocks
        self._check_count(walk.n_rows)
        self._n_found, self._checked = walk.n_rows, self.reader.is_fixed
        if wants_checksum:
            self.checksum = checksum % (1 << 64)

    def _check_count(self, n_samples: int) -> None:
        if n_samples == 0 and not self._n_found:
            raise ValueError("Found array with 0 sample(s): there are no rows to read.")
        if self._n_found is not None and n_samples != self._n_found:
            raise ValueError(
                f"{n_samples} rows were read where there were {self._n_found} before. Rows must be the same whenever "
                "they are read; has what they are read from been changed, or cut short?"
            )

    def _empty(self) -> tuple[NDArray, Weights]:
        n = self.rows_per_block if self._n_found is None else min(self.rows_per_block, max(1, self._n_found))
        return (
            np.empty((n, self.n_features), self.dtype, order="F" if self.reader.order == "F" else "C"),
            np.empty(n) if self.reader.weighted else None,
        )

    def _next_block(self, cursor: Cursor, empty: tuple[NDArray, Weights], first: int) -> tuple[NDArray, Weights]:
        """The next block, in arrays that are no longer needed; with fewer rows at the end."""
        X, weights = empty
        n = 0
        with np.errstate(over="ignore", invalid="ignore"):  # a value too large is found below
            while n < len(X):
                found = cursor.fill(X[n:], None if weights is None else weights[n:])
                if not found:
                    break
                n += found
        X, weights = X[:n], None if weights is None else weights[:n]
        if not self._checked:
            self._check_values(X, weights, first)
        if n and not self.reader.is_fixed:
            self._check_same(X, weights, first)
        return X, weights

    def _check_same(self, X: NDArray, weights: Weights, first: int) -> None:
        """Raise ValueError if some rows or weights of a block are others than when they were first read."""
        some = slice(None, None, -(-len(X) // ROWS_COMPARED))
        checksum = zlib.crc32(np.ascontiguousarray(X[some]).data)
        if weights is not None:
            checksum = zlib.crc32(np.ascontiguousarray(weights[some]).data, checksum)
        # A block that has another number of rows than before is noticed at the end of the walk.
        if self._checksums.setdefault((first, len(X)), checksum) != checksum:
            raise ValueError(
                f"Rows must be the same whenever they are read, but some from {self.reader.where(first)} on are others "
                "than at first. If they are drawn at random, seed each walk alike; if they have been changed, make "
                "new rows(...)."
            )

    def _check_values(self, X: NDArray, weights: Weights, first: int) -> None:
        """ValueError if rows or weights are no numbers to compute with; says where."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(X.sum()) and not (there := np.isfinite(X)).all():
                row, feature = (int(i) for i in np.argwhere(~there)[0])
                name = self.feature_names[feature] if self.feature_names else feature
                what = "NaN" if np.isnan(X[row, feature]) else f"infinity or a value too large for {self.dtype}"
                note = " Missing and masked values count as NaN." if what == "NaN" else ""
                raise ValueError(
                    f"Input X contains {what}, in {self.reader.where(first + row)}, column {name!r}.{note}"
                )
        if weights is not None and not (weights.min(initial=0.0) >= 0 and np.isfinite(weights.sum())):
            row = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
            raise ValueError(
                f"Weights should be finite and not negative, but one is {weights[row]}, in "
                f"{self.reader.where(first + row)}."
            )
