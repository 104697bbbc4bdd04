"""Reader of iterables of blocks, and of functions that return them."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, ValuesView
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_checks import check_weight_count
from fastgmm.data.block_source import Cursor
from fastgmm.data.conversion import aligned, as_rows, as_weights, column_labels, feature_names, prefixed

from .arrays import check_map
from .files import float_dtype
from .hdf5_and_zarr import files_of_all


class IterableReader:
    """Rows of an iterable of blocks; see `block_source.Reader`.

    The iterable may also have pairs of a block and weights (n,).

    A block is an array (n, D) or a data frame (pandas, polars, Arrow). The first block with rows determines the
    features, their names, and whether the rows have weights. The columns of data frames are put in the order of those
    of the first block.
    """

    order = "C"
    any_thread = False
    is_fixed = False
    n_samples: int | None = None

    def __init__(
        self,
        source: Iterable | Callable[[], Iterable],
        *,
        columns: Any = None,
        weight: Any = None,
        key: str | None = None,
        dtype: DTypeLike | None = None,
    ):
        if not (columns is None and weight is None and key is None):
            raise ValueError(
                "columns, weight and key must be None for blocks: select the columns in the blocks, and give weights "
                "as pairs (rows, weights)"
            )
        self.source = source
        listed = source if isinstance(source, list | tuple | deque | ValuesView) else ()
        items = [item for block in listed for item in (block if isinstance(block, tuple) else (block,))]
        # Of other iterables, only the first block is looked at.
        self.files: tuple[Path, ...] = tuple(files_of_all(items))
        # Labels of the columns of the first block, once it has been read.
        self.labels: tuple | None = None
        self.labels_are_set = False
        # First row of each block of the latest pass, for error messages.
        self.begins: list[int] = []
        first = None
        with contextlib.closing(self.blocks()) as blocks:
            for first in blocks:
                if len(first[0]):
                    break
        if first is None:
            raise ValueError("Found array with 0 sample(s): the iterable has no blocks.")
        X, weights = first
        self.n_features, self.weighted = X.shape[1], weights is not None
        if self.n_features == 0:
            raise ValueError("Found array with 0 feature(s) in the first block.")
        self.feature_names = feature_names(self.labels)
        self.dtype, self.chosen = float_dtype(dtype, [X.dtype]), dtype

    def blocks(self) -> Generator[tuple[NDArray, NDArray | None], None, None]:
        """Yield the blocks as arrays of numbers with the columns in one order."""
        iterator = iter(self.source() if callable(self.source) else self.source)
        if iterator is self.source:
            raise ValueError(
                "rows are read more than once, but an iterator can be read only once: give a list of blocks, or a "
                "function that returns a new iterator"
            )
        for number, block in enumerate(iterator):
            try:
                arrays = self._arrays(block)
            except (ValueError, TypeError) as error:
                raise prefixed(error, f"block {number}") from error
            yield arrays

    def _arrays(self, block: Any) -> tuple[NDArray, NDArray | None]:
        """Return the rows and the weights of a block as arrays of numbers.

        The columns are in the order of the first block.
        """
        X, weights = _pair(block)
        if not self.labels_are_set:
            self.labels, self.labels_are_set = column_labels(X), True
            self.files = tuple(dict.fromkeys([*self.files, *files_of_all([X, weights])]))
        check_map(X)
        check_map(weights)
        X = as_rows(aligned(X, self.labels))
        if weights is not None:
            weights = as_weights(weights)
            check_weight_count(len(weights), len(X))
        return X, weights

    def open(self) -> Cursor:
        return IterableCursor(self)

    def where(self, row: int) -> str:
        number = bisect_right(self.begins, row) - 1
        return f"row {row}" if number < 0 else f"row {row - self.begins[number]} of block {number}"


class IterableCursor:
    """A position in blocks."""

    def __init__(self, reader: IterableReader):
        self.reader, self.blocks, self.row, self.n_before = reader, reader.blocks(), 0, 0
        self.X: NDArray = np.empty((0, reader.n_features))
        self.weights: NDArray | None = None
        self.begins: list[int] = []
        reader.begins = self.begins

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        while self.row == len(self.X):
            block = next(self.blocks, None)
            if block is None and not self.begins:
                raise ValueError(
                    "every pass must read the same blocks, but this one got none: give a function that returns a new "
                    "iterator at every call"
                )
            if block is None:
                return 0
            self.n_before += len(self.X)
            self.begins.append(self.n_before)
            self.X, self.weights = block
            self.row = 0
            self._check_like_first()
        n = min(len(X_out), len(self.X) - self.row)
        X_out[:n] = self.X[self.row : self.row + n]
        if weights_out is not None:
            assert self.weights is not None
            weights_out[:n] = self.weights[self.row : self.row + n]
        self.row += n
        return n

    def _check_like_first(self) -> None:
        """Raise ValueError if a block differs from the first in features or dtype."""
        reader, number, n_features = self.reader, len(self.begins) - 1, self.X.shape[1]
        if (n_features, self.weights is not None) != (reader.n_features, reader.weighted):
            raise ValueError(
                f"all blocks must be like the first, with {reader.n_features} features and "
                f"{_weights_in_words(reader.weighted)}, but block {number} has {n_features} features and "
                f"{_weights_in_words(self.weights is not None)}"
            )
        if len(self.X) and self.X.dtype != np.float32 and reader.dtype == np.float32 and reader.chosen is None:
            raise ValueError(
                f"all blocks must be float32 like the first, but block {number} is {self.X.dtype}: choose the dtype to "
                "compute in with dtype="
            )

    def close(self) -> None:
        if hasattr(self.blocks, "close"):
            self.blocks.close()


def _pair(block: Any) -> tuple[Any, Any]:
    """Return the rows and the weights of a block, or the rows and None."""
    if not isinstance(block, tuple):
        return block, None
    if len(block) != 2:
        raise ValueError(f"a tuple must be a pair of rows (n, D) and weights (n,), got {len(block)} items")
    return block


def _weights_in_words(weighted: bool) -> str:
    return "weights" if weighted else "no weights"
