"""Files: that they are what they were, and many of them as one."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.blocks import Cursor, Reader


class Unchanged:
    """A file that must stay as it is."""

    def __init__(self, path: Path):
        self.path, self.state = path, self._state(path)

    @staticmethod
    def _state(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_size, status.st_mtime_ns

    def check(self) -> Path:
        """The path; ValueError if the file is another one than before."""
        try:
            same = self._state(self.path) == self.state
        except FileNotFoundError:
            raise ValueError(f"{self.path} is gone, from which rows are being read") from None
        if not same:
            raise ValueError(f"{self.path} has changed since rows began to be read from it; start anew")
        return self.path


def float_dtype(dtype: DTypeLike | None, found: Sequence[np.dtype]) -> np.dtype:
    """What to compute in: what is asked for, or float32 if all that is found is."""
    if dtype is None:
        return np.dtype(np.float32 if all(d == np.float32 for d in found) else np.float64)
    asked = np.dtype(dtype)
    if asked not in (np.float32, np.float64):
        raise ValueError(f"dtype should be float32 or float64, but is {asked}")
    return asked


def choose(names: Sequence[str], columns: Sequence | None, weight: str | None, what: str) -> list[str]:
    """The names of the features among those that there are."""
    columns = [columns] if isinstance(columns, str) else columns
    wanted = [name for name in names if name != weight] if columns is None else list(columns)
    if not all(isinstance(name, str) for name in wanted):
        raise ValueError(f"columns of {what} should be names, but are {wanted}")
    missing = [name for name in [*wanted, *([] if weight is None else [weight])] if name not in names]
    if missing:
        raise ValueError(f"{what} has no column {', '.join(map(repr, missing))}, but {', '.join(map(repr, names))}")
    if not wanted:
        raise ValueError(f"{what} has no column that is a feature")
    if len(set(wanted)) < len(wanted) or weight in wanted:
        raise ValueError(f"columns should be different ones, and not the weight's, but are {wanted}")
    return wanted


class Files:
    """Several readers, one after the other, as one `Reader`; ValueError if they do not go together."""

    def __init__(self, readers: Sequence[Reader]):
        self.readers, first = list(readers), readers[0]
        for reader in self.readers[1:]:
            for name, what in (("n_features", "features"), ("feature_names", "columns"), ("weighted", "weights")):
                was, now = getattr(first, name), getattr(reader, name)
                if was != now:
                    raise ValueError(
                        f"files of rows should be alike, but {reader.where(0)} has other {what}, {now}, than "
                        f"{first.where(0)}, {was}"
                    )
        self.n_features, self.feature_names, self.weighted = first.n_features, first.feature_names, first.weighted
        self.order = first.order
        self.files = tuple(path for reader in self.readers for path in reader.files)
        self.any_thread = all(reader.any_thread for reader in self.readers)
        self.is_fixed = all(reader.is_fixed for reader in self.readers)
        self.dtype = np.dtype(np.result_type(*(reader.dtype for reader in self.readers)))
        numbers = [reader.n_samples for reader in self.readers]
        self.n_samples = None if None in numbers else sum(n for n in numbers if n is not None)
        self._begins = [0, *itertools.accumulate(n or 0 for n in numbers)]

    def open(self) -> Cursor:
        return FilesCursor(self.readers, self._begins)

    def where(self, row: int) -> str:
        number = min(bisect_right(self._begins, row), len(self.readers)) - 1
        return self.readers[number].where(row - self._begins[number])


class FilesCursor:
    """A place in several files."""

    def __init__(self, readers: Sequence[Reader], begins: list[int]):
        self.readers, self.begins = readers, begins
        self.number, self.row = 0, 0
        self.cursor = readers[0].open()

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        while True:
            n = self.cursor.fill(X_out, weights_out)
            self.row += n
            if n:
                return n
            # Where a file of unknown length ends, and so where all others begin.
            shift = self.row - self.begins[self.number + 1]
            for i in range(self.number + 1, len(self.begins)):
                self.begins[i] += shift
            if self.number + 1 == len(self.readers):
                return 0
            self.number += 1
            self.cursor.close()
            self.cursor = self.readers[self.number].open()

    def close(self) -> None:
        self.cursor.close()
