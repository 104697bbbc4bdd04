"""Files: that they are what they were, and many of them as one."""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_source import Cursor, Reader

from .locations import Location, Remote

Place = TypeVar("Place", Path, Location)


class Unchanged(Generic[Place]):
    """A file that must stay as it is."""

    def __init__(self, path: Place):
        self.path: Place = path
        self.state = self._state(path)

    @staticmethod
    def _state(path: Location) -> tuple:
        if isinstance(path, Remote):
            return path.state()
        status = path.stat()
        return status.st_size, status.st_mtime_ns

    def check(self) -> Place:
        """Return the path; ValueError if the file is another one than before."""
        try:
            same = self._state(self.path) == self.state
        except FileNotFoundError:
            raise ValueError(f"{self.path} is gone, from which rows are being read") from None
        if not same:
            raise ValueError(f"{self.path} has changed since rows began to be read from it; start anew")
        return self.path


def float_dtype(dtype: DTypeLike | None, found: Sequence[np.dtype]) -> np.dtype:
    """Return what to compute in: what is asked for, or float32 if all that is found is."""
    if dtype is None:
        return np.dtype(np.float32 if all(d == np.float32 for d in found) else np.float64)
    asked = np.dtype(dtype)
    if asked not in (np.float32, np.float64):
        raise ValueError(f"dtype should be float32 or float64, but is {asked}")
    return asked


def choose(names: Sequence[str], columns: Any, weight: str | None, what: str) -> list[str]:
    """Return the names of the features among the columns of a table.

    Columns are asked for by their names or by their positions; all but the weight if `columns` is None.
    """
    positions = {name: i for i, name in reversed(list(enumerate(names)))}
    if columns is None:
        wanted = [name for name in names if name != weight]
    elif isinstance(columns, slice):
        wanted = list(names[columns])
    else:
        is_one = isinstance(columns, str) or not isinstance(columns, Iterable)
        asked = [columns] if is_one else columns
        wanted = [names[_position(positions, names, column, what)] for column in asked]
    if weight is not None:
        _position(positions, names, weight, what)
    if not wanted:
        raise ValueError(f"{what} has no column that is a feature")
    counts = Counter(names)
    for name in [*wanted, *([] if weight is None else [weight])]:
        if counts[name] > 1:
            raise ValueError(f"names of columns must be unique, but {what} has {name!r} more than once")
    if len(set(wanted)) < len(wanted) or weight in wanted:
        raise ValueError(f"columns should be different ones, and not the weight's, but are {wanted}")
    return wanted


def _position(positions: Mapping[str, int], names: Sequence[str], column: Any, what: str) -> int:
    """Return the position of the column with a name, or at a position."""
    if isinstance(column, str):
        if column not in positions:
            raise ValueError(f"{what} has no column {column!r}, but {', '.join(map(repr, names))}")
        return positions[column]
    try:
        at = -1 if isinstance(column, bool | np.bool_) else operator.index(column)
    except TypeError:
        at = -1
    if not 0 <= at < len(names):
        raise ValueError(
            f"columns of {what} should be names or positions from 0 to {len(names) - 1}, but one is {column!r}"
        )
    return at


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
