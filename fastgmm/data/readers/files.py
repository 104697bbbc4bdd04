"""Files that must not change, their columns, and several files as one reader."""

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
    """A file that must not change while rows are read from it."""

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
        """Return the path; ValueError if the file has changed or is gone."""
        try:
            is_same = self._state(self.path) == self.state
        except FileNotFoundError:
            raise ValueError(f"{self.path} must not change while rows are read from it, but it is gone") from None
        if not is_same:
            raise ValueError(
                f"{self.path} must not change while rows are read from it, but it has changed. Call fastgmm.rows again."
            )
        return self.path


def float_dtype(dtype: DTypeLike | None, stored: Sequence[np.dtype]) -> np.dtype:
    """Return the dtype to compute in.

    It is `dtype`, or float32 if all stored dtypes are float32, else float64.
    """
    if dtype is None:
        return np.dtype(np.float32 if all(d == np.float32 for d in stored) else np.float64)
    chosen = np.dtype(dtype)
    if chosen not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {chosen}")
    return chosen


def choose(names: Sequence[str], columns: Any, weight: str | None, about: str) -> list[str]:
    """Return the names of the features among the columns of a table.

    Parameters
    ----------
    names : sequence of str
        The names of all columns.
    columns : str, int, slice, list of str or of int, or None
        Names or positions of the features. None means all columns except the weight.
    weight : str or None
        The column of the weights, which is not a feature.
    about : str
        The name of the table in messages.
    """
    positions = {name: i for i, name in reversed(list(enumerate(names)))}
    if columns is None:
        features = [name for name in names if name != weight]
    elif isinstance(columns, slice):
        features = list(names[columns])
    else:
        is_one = isinstance(columns, str) or not isinstance(columns, Iterable)
        features = [names[_position(positions, names, c, about)] for c in ([columns] if is_one else columns)]
    if weight is not None:
        _position(positions, names, weight, about)
    if not features:
        raise ValueError(f"{about} must have at least one column that is a feature, got {list(names)}")
    counts = Counter(names)
    for name in [*features, *([] if weight is None else [weight])]:
        if counts[name] > 1:
            raise ValueError(f"names of columns must be unique, but {about} has {name!r} more than once")
    if len(set(features)) < len(features) or weight in features:
        raise ValueError(f"columns must be different columns, without the one of the weights, got {features}")
    return features


def _position(positions: Mapping[str, int], names: Sequence[str], column: Any, about: str) -> int:
    """Return the position of a column, given its name or its position."""
    if isinstance(column, str):
        if column not in positions:
            raise ValueError(f"{about} has no column {column!r}, but {', '.join(map(repr, names))}")
        return positions[column]
    try:
        position = -1 if isinstance(column, bool | np.bool_) else operator.index(column)
    except TypeError:
        position = -1
    if not 0 <= position < len(names):
        raise ValueError(f"columns of {about} must be names, or positions from 0 to {len(names) - 1}, got {column!r}")
    return position


class Files:
    """Several readers in sequence as one; see `block_source.Reader`.

    Raises
    ------
    ValueError
        If they do not have the same features, or only some of them have weights.
    """

    def __init__(self, readers: Sequence[Reader]):
        self.readers, first = list(readers), readers[0]
        for reader in self.readers[1:]:
            for name in ("n_features", "feature_names", "weighted"):
                expected, value = getattr(first, name), getattr(reader, name)
                if value != expected:
                    raise ValueError(
                        f"all files must have the same {name}, but {reader.where(0)} has {value} and {first.where(0)} "
                        f"has {expected}"
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
    """A position in several files."""

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
            # The number of rows of this file may be known only now, and with it where all later files begin.
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
