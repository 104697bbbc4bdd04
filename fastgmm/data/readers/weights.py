"""Reader of rows whose weights are in an array or an ``.npy`` file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.block_checks import check_weight_array
from fastgmm.data.block_source import Cursor, Reader
from fastgmm.data.targets import files_behind

from .locations import Remote
from .npy import NpyFile


class Weighted:
    """Rows of a reader, with a weight for each of them; see `block_source.Reader`.

    Parameters
    ----------
    reader : Reader
        A reader of rows without weights.
    weight : array-like of shape (N,), or Location of an ``.npy`` file
    """

    weighted = True

    def __init__(self, reader: Reader, weight: Any):
        if reader.weighted:
            raise ValueError("weight must be None for blocks that have weights")
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
        check_weight_array(self.weights, self.weights.dtype, self.n_samples)
        if np.ma.is_masked(self.weights):
            raise ValueError("weight must have a number for each row, but some numbers are masked")

    @property
    def n_weights(self) -> int:
        return int(self.weights.shape[0])

    def open(self) -> Cursor:
        return WeightedCursor(self)

    def where(self, row: int) -> str:
        return self.reader.where(row)


class WeightedCursor:
    """A position in rows and in their weights."""

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
            n_rows = f"more than {n_weights}" if n else f"{self.row}"
            raise ValueError(f"weight must be one number for each row, got {n_weights} numbers and {n_rows} rows")
        if weights_out is not None:
            weights_out[:n] = self.weights[self.row : self.row + n]
        self.row += n
        return n

    def close(self) -> None:
        self.cursor.close()
        if isinstance(self.reader.weights, NpyFile):
            self.weights.close()
