"""Reader of blocks that a program makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.blocks import Cursor
from fastgmm.targets import files_behind

from .files import float_dtype


class IterableReader:
    """Rows of an iterable of arrays (n, D), or of pairs of an array and weights (n,); see `blocks.Reader`.

    The first block says how many features there are, and whether rows have weights.
    """

    feature_names: tuple[str, ...] | None = None
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
        self.files: tuple[Path, ...] = files_behind(source if isinstance(source, list | tuple) else ())
        first = next(self.blocks(), None)
        if first is None:
            raise ValueError("Found array with 0 sample(s): the iterable has no blocks.")
        self.n_features, self.weighted = first[0].shape[1], first[1] is not None
        if self.n_features == 0:
            raise ValueError("Found array with 0 feature(s) in the first block.")
        self.dtype, self.chosen = float_dtype(dtype, [first[0].dtype]), dtype

    def blocks(self) -> Iterator[tuple[NDArray, NDArray | None]]:
        """The blocks, from the beginning, as arrays."""
        iterator = iter(self.source() if callable(self.source) else self.source)
        if iterator is self.source:
            raise ValueError(
                "rows are read more than once, but this iterator can be walked only once; give a list of blocks, or a "
                "function that returns a new iterator"
            )
        for number, block in enumerate(iterator):
            X, weights = block if isinstance(block, tuple) else (block, None)
            X = np.asarray(X)
            weights = None if weights is None else np.asarray(weights)
            if X.ndim != 2 or X.dtype.kind not in "fiub" or (weights is not None and weights.shape != X.shape[:1]):
                about = "" if weights is None else f", weights {weights.shape}"
                raise ValueError(
                    "blocks should be arrays (n, D) of numbers, or pairs of one and weights (n,), but block "
                    f"{number} has shape {X.shape} and dtype {X.dtype}{about}"
                )
            yield X, weights

    def open(self) -> Cursor:
        return IterableCursor(self)

    def where(self, row: int) -> str:
        return f"row {row}"


class IterableCursor:
    """A place in blocks."""

    def __init__(self, reader: IterableReader):
        self.reader, self.blocks, self.number, self.row = reader, reader.blocks(), -1, 0
        self.X: NDArray = np.empty((0, reader.n_features))
        self.weights: NDArray | None = None

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        while self.row == len(self.X):
            block = next(self.blocks, None)
            if block is None and self.number < 0:
                raise ValueError(
                    "there were blocks at first, and there are none now; give a function that returns a new iterator "
                    "whenever it is called"
                )
            if block is None:
                return 0
            self.X, self.weights = block
            self.number, self.row = self.number + 1, 0
            if self.X.dtype != np.float32 and self.reader.dtype == np.float32 and self.reader.chosen is None:
                raise ValueError(
                    f"block {self.number} is {self.X.dtype}, but the first is float32: say with dtype= what to "
                    "compute in"
                )
            if (self.X.shape[1], self.weights is not None) != (self.reader.n_features, self.reader.weighted):
                raise ValueError(
                    f"block {self.number} has {self.X.shape[1]} features and "
                    f"{'no ' if self.weights is None else ''}weights, unlike the first, which has "
                    f"{self.reader.n_features} and {'some' if self.reader.weighted else 'none'}"
                )
        n = min(len(X_out), len(self.X) - self.row)
        X_out[:n] = self.X[self.row : self.row + n]
        if weights_out is not None:
            assert self.weights is not None
            weights_out[:n] = self.weights[self.row : self.row + n]
        self.row += n
        return n

    def close(self) -> None:
        if hasattr(self.blocks, "close"):
            self.blocks.close()
