"""Weights of rows that are read from elsewhere than the rows: an array, or an ``.npy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.block_source import Cursor, Reader
from fastgmm.data.targets import files_behind

from .locations import Remote
from .npy import NpyFile


class Weighted:
    """Rows of a reader, with a weight for each of them; see `blocks.Reader`.

    Parameters
    ----------
    reader : Reader
        Of rows without weights.
    weight : array-like of shape (N,), or Location of an ``.npy`` file
    """

    weighted = True

    def __init__(self, reader: Reader, weight: Any):
        if reader.weighted:
            raise ValueError("rows that have weights already take no others: leave out weight=")
        self.reader = reader
        self.n_features, self.feature_names, self.dtype = reader.n_features, reader.feature_names, reader.dtype
        self.order, self.any_thread, self.is_fixed = reader.order, reader.any_thread, reader.is_fixed
        self.n_samples = reader.n_samples
        is_file = isinstance(weight, Path | Remote)
        self.weights: NpyFile | NDArray = NpyFile(weight) if is_file else np.asanyarray(weight)
        own = self.weights.files if isinstance(self.weights, NpyFile) else files_behind(self.weights)
        self.files: tuple[Path, ...] = (*reader.files, *own)
        self._check()

    def _check(self) -> None:
        shape, dtype, n = tuple(self.weights.shape), self.weights.dtype, self.n_samples
        if len(shape) != 1 or n not in (None, shape[0]) or dtype.kind not in "fiub":
            wanted = "one number for each row" if n is None else f"{n} numbers, one for each row"
            raise ValueError(f"weight should be {wanted}, but is {dtype} of shape {shape}")
        if np.ma.is_masked(self.weights):
            raise ValueError("weight should have a number for each row, but some are masked")

    @property
    def n_weights(self) -> int:
        return int(self.weights.shape[0])

    def open(self) -> Cursor:
        return WeightedCursor(self)

    def where(self, row: int) -> str:
        return self.reader.where(row)


class WeightedCursor:
    """A place in rows and in their weights."""

    def __init__(self, reader: Weighted):
        self.reader, self.row, self.cursor = reader, 0, reader.reader.open()
        try:
            self.weights: Any = reader.weights.open() if isinstance(reader.weights, NpyFile) else reader.weights
        except Exception:
            self.cursor.close()
            raise

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        n, n_weights = self.cursor.fill(X_out, None), self.reader.n_weights
        if self.row + n > n_weights or (n == 0 and self.row < n_weights):
            rows = f"more than {n_weights}" if n else f"{self.row}"
            raise ValueError(f"weight should be one number for each row, but has {n_weights}, and the rows are {rows}")
        if weights_out is not None:
            weights_out[:n] = self.weights[self.row : self.row + n]
        self.row += n
        return n

    def close(self) -> None:
        self.cursor.close()
        if isinstance(self.reader.weights, NpyFile):
            self.weights.close()
