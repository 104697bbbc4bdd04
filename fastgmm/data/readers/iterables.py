"""Reader of blocks that a program makes."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, ValuesView
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_source import Cursor
from fastgmm.data.conversion import aligned, as_rows, as_weights, column_labels, feature_names, renamed

from .arrays import check_map
from .files import float_dtype
from .stores import files_of_all


class IterableReader:
    """Rows of an iterable of blocks, or of pairs of a block and weights (n,); see `blocks.Reader`.

    A block is an array (n, D) or a data frame (pandas, polars, Arrow). The first block with rows determines the
    features, their names, and whether rows have weights. Data frames are aligned by the names of their columns.
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
                "columns, weight and key are for files and arrays; blocks may be pairs of rows and weights"
            )
        self.source = source
        listed = source if isinstance(source, list | tuple | deque | ValuesView) else ()
        items = [item for block in listed for item in (block if isinstance(block, tuple) else (block,))]
        # Of other iterables the files of the first block are known.
        self.files: tuple[Path, ...] = tuple(files_of_all(items))
        # Set from the first block that the source gives.
        self.labels: tuple | None = None
        self.is_labelled = False
        # Where the blocks of the latest walk begin, for error messages.
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
        """Yield the blocks from the beginning, as arrays of numbers whose columns are in one order."""
        iterator = iter(self.source() if callable(self.source) else self.source)
        if iterator is self.source:
            raise ValueError(
                "rows are read more than once, but this iterator can be walked only once; give a list of blocks, or a "
                "function that returns a new iterator"
            )
        for number, block in enumerate(iterator):
            try:
                arrays = self._arrays(block)
            except (ValueError, TypeError) as error:
                raise renamed(error, f"block {number}") from error
            yield arrays

    def _arrays(self, block: Any) -> tuple[NDArray, NDArray | None]:
        """Return the rows of a block, with columns as in the first one, and its weights, as arrays of numbers."""
        X, weights = _pair(block)
        if not self.is_labelled:
            self.labels, self.is_labelled = column_labels(X), True
            self.files = tuple(dict.fromkeys([*self.files, *files_of_all([X, weights])]))
        check_map(X)
        check_map(weights)
        X = as_rows(aligned(X, self.labels))
        weights = None if weights is None else as_weights(weights)
        if weights is not None and len(weights) != len(X):
            raise ValueError(f"{len(X)} rows should have {len(X)} weights, but have {len(weights)}")
        return X, weights

    def open(self) -> Cursor:
        return IterableCursor(self)

    def where(self, row: int) -> str:
        number = bisect_right(self.begins, row) - 1
        return f"row {row}" if number < 0 else f"row {row - self.begins[number]} of block {number}"


class IterableCursor:
    """A place in blocks."""

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
                    "there were blocks at first, and there are none now; give a function that returns a new iterator "
                    "whenever it is called"
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
        """Raise ValueError if a block has another form than the first one."""
        reader, number, n_features = self.reader, len(self.begins) - 1, self.X.shape[1]
        if (n_features, self.weights is not None) != (reader.n_features, reader.weighted):
            raise ValueError(
                f"block {number} has {n_features} features and {_some(self.weights is not None)}, unlike the first, "
                f"which has {reader.n_features} and {_some(reader.weighted)}"
            )
        if len(self.X) and self.X.dtype != np.float32 and reader.dtype == np.float32 and reader.chosen is None:
            raise ValueError(
                f"block {number} is {self.X.dtype}, but the first is float32: say with dtype= what to compute in"
            )

    def close(self) -> None:
        if hasattr(self.blocks, "close"):
            self.blocks.close()


def _pair(block: Any) -> tuple[Any, Any]:
    """Return the rows and the weights of a block; the weights are None if it has none."""
    if not isinstance(block, tuple):
        return block, None
    if len(block) != 2:
        raise ValueError(f"a tuple should be a pair of rows (n, D) and weights (n,), but has {len(block)} items")
    return block


def _some(weighted: bool) -> str:
    return "weights" if weighted else "no weights"
