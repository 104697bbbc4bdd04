"""Readers of what is an array: ``.npy`` files, memory maps, anything with slices of rows."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_source import Cursor
from fastgmm.data.conversion import REAL_KINDS, as_rows, as_weights, filled, renamed
from fastgmm.data.targets import files_behind

from .files import Unchanged, choose, float_dtype

# Rows that are copied at a time where they cannot be read straight into a block.
SOME_ROWS = 65_536


def nothing() -> None:
    """Do nothing: there is nothing to close, or to check."""


class Opened(NamedTuple):
    """An array that has been opened for a walk, the weights that are stored beside it if any, and how to close both."""

    array: Any
    weights: Any = None
    close: Callable[[], None] = nothing


class SliceReader:
    """Rows of anything with `shape`, `dtype` and slices; see `blocks.Reader`.

    An array (N,) of records has a feature for every field that is a number; `columns` and `weight` may name fields.

    Parameters
    ----------
    array : array-like of shape (N, D), or (N,) of records
        Determines shape and dtype. What is read later is what `reopen` gives, which must have the same.
    columns : list of int, or of str for records, optional
    weight : array-like of shape (N,), path of an ``.npy`` file, or name of a field, optional
    key : None
    dtype : optional
    name : str
        What it is called in messages.
    reopen : callable () -> Opened, optional
        For what should not stay open between walks. Raises ValueError if it is not what it was.
    stored_weights : array-like of shape (N,), optional
        In place of `weight`, if `reopen` gives weights.
    check : callable () -> object, optional
        Called when all rows have been read; raises ValueError if what was read has changed meanwhile.
    files : sequence of Path
        What is read beside a file of weights.
    is_fixed : bool
    """

    def __init__(
        self,
        array: Any,
        *,
        columns: Sequence | None = None,
        weight: Any = None,
        key: str | None = None,
        dtype: DTypeLike | None = None,
        name: str = "the array",
        reopen: Callable[[], Opened] | None = None,
        stored_weights: Any = None,
        check: Callable[[], object] = nothing,
        files: Sequence[Path] = (),
        is_fixed: bool = False,
    ):
        if key is not None:
            raise ValueError(f"key is for files with several datasets, but {name} is a single one")
        self.shape, self.stored_dtype = tuple(array.shape), numpy_dtype(array)
        self.name, self.is_fixed, self.any_thread = name, is_fixed, isinstance(array, np.ndarray)
        self.fields: list[str] | None = None
        self.weight_field: str | None = None
        self.columns: list[int] | None = None
        self.feature_names: tuple[str, ...] | None = None
        if self.stored_dtype.names is not None and len(self.shape) == 1:
            if isinstance(weight, int):
                (weight,) = choose(self.stored_dtype.names, [weight], None, name)
            if isinstance(weight, str) and weight in self.stored_dtype.names:
                self.weight_field, weight = weight, None
            self.fields = choose(self.stored_dtype.names, columns, self.weight_field, name)
            self.feature_names, self.n_features = tuple(self.fields), len(self.fields)
            wanted = [*self.fields, *([] if self.weight_field is None else [self.weight_field])]
            found = [self._check_field(field) for field in wanted][: self.n_features]
        else:
            self._check_matrix(isinstance(array, np.ndarray))
            self.columns = None if columns is None else _numbers(columns, self.shape[1], name)
            self.n_features = self.shape[1] if self.columns is None else len(self.columns)
            found = [self.stored_dtype]
        self.n_samples: int | None = int(self.shape[0])
        self.dtype = float_dtype(dtype, found)
        self.order = "F" if getattr(getattr(array, "flags", None), "fnc", False) else "C"
        self._array, self._reopen, self._check = array if reopen is None else None, reopen, check
        weight_path = Path(weight).absolute() if isinstance(weight, str | os.PathLike) else None
        self.weight_file = None if weight_path is None else Unchanged(weight_path)
        self._weights = None if weight is None or weight_path is not None else _in_memory(weight)
        self.weighted = any(given is not None for given in (weight, stored_weights, self.weight_field))
        # Weights are converted to another array if they are no numbers of NumPy.
        maps = files_behind([array if reopen is None else None, weight if weight_path is None else None])
        paths = (*files, weight_path, *maps)
        self.files: tuple[Path, ...] = tuple(dict.fromkeys(path for path in paths if path is not None))
        self.open_weights(stored_weights)

    def _check_matrix(self, is_numpy: bool) -> None:
        """Raise ValueError if the array is not one of real numbers with two dimensions."""
        if len(self.shape) != 2:
            raise ValueError(f"Expected 2D array, but {self.name} has shape {self.shape}")
        if self.shape[1] == 0:
            raise ValueError(f"Found array with 0 feature(s): {self.name} has shape {self.shape}")
        # Arrays of Python's numbers are converted block by block. In files objects are strings, or arrays.
        if self.stored_dtype.kind not in REAL_KINDS + ("O" if is_numpy else ""):
            raise ValueError(f"{self.name} should hold real numbers, but holds {self.stored_dtype}")

    def _check_field(self, field: str) -> np.dtype:
        """Return the dtype of a field; raise ValueError if it is not a real number."""
        dtype = self.stored_dtype[field]
        if dtype.kind not in REAL_KINDS:
            raise ValueError(
                f"field {field!r} of {self.name} should hold a real number in each row, but holds {dtype}; choose "
                "others with columns="
            )
        return dtype

    def open_weights(self, stored: Any = None) -> Any:
        """Return what has the weights (N,) in slices, as they are stored; nothing if there are none."""
        if not self.weighted or self.weight_field is not None:
            return np.empty(0)
        weights: Any = self._weights if stored is None else stored
        if self.weight_file is not None:
            weights = open_npy(self.weight_file.check())
        shape, dtype = tuple(weights.shape), numpy_dtype(weights)
        if shape != self.shape[:1] or dtype.kind not in REAL_KINDS:
            raise ValueError(f"weight should be {self.n_samples} numbers, but is {dtype} of shape {shape}")
        return weights

    def _open_again(self) -> Opened:
        return Opened(self._array) if self._reopen is None else self._reopen()

    def open(self) -> Cursor:
        opened = self._open_again()
        try:
            self._check_same(opened.array)
            return SliceCursor(self, opened, self.open_weights(opened.weights))
        except BaseException:
            opened.close()
            raise

    def _check_same(self, array: Any) -> None:
        """Raise ValueError if an array is not what it was when the reader was made."""
        check_open(array)
        for mapped in (array, self._weights):
            check_map(mapped)
        shape, dtype = tuple(array.shape), numpy_dtype(array)
        if (shape, dtype) != (self.shape, self.stored_dtype):
            raise ValueError(
                f"{self.name} has changed since rows began to be read from it: it had shape {self.shape} of "
                f"{self.stored_dtype}, and has {shape} of {dtype} now; start anew"
            )

    def check(self) -> None:
        """Raise ValueError if what has been read has changed since it was opened, as far as that can be noticed."""
        self._check()
        if not self.is_fixed:
            opened = self._open_again()
            try:
                self._check_same(opened.array)
            finally:
                opened.close()
        if self.weight_file is not None:
            self.weight_file.check()

    def where(self, row: int) -> str:
        return f"row {row} of {self.name}"


class SliceCursor:
    """A place in an array."""

    def __init__(self, reader: SliceReader, opened: Opened, weights: Any):
        self.reader, self.array, self.close, self.weights, self.row = reader, opened.array, opened.close, weights, 0

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        reader = self.reader
        n = min(len(X_out), reader.shape[0] - self.row)
        if n == 0:
            reader.check()
            return 0
        try:
            self._read(slice(self.row, self.row + n), X_out[:n], None if weights_out is None else weights_out[:n])
        except Exception as error:
            what = f"the rows from {reader.where(self.row)} on cannot be read"
            if isinstance(error, ValueError | TypeError):
                raise renamed(error, what) from error
            raise ValueError(f"{what}: {type(error).__name__}: {error}") from error
        self.row += n
        return n

    def _read(self, here: slice, X_out: NDArray, weights_out: NDArray | None) -> None:
        """Read a slice of the rows, and of the weights, into arrays of the same length."""
        part: Any = None
        if self._is_read_in_place(X_out):
            self.array.read_direct(X_out, here)
        else:
            part = self.array[here]
            self._convert(part, X_out)
        if weights_out is not None:
            field = self.reader.weight_field
            weights_out[:] = as_weights(_all(self.weights[here] if field is None else part[field], weights_out))

    def _is_read_in_place(self, X_out: NDArray) -> bool:
        """Return whether the array can put its rows straight into X_out, as h5py's can."""
        whole = self.reader.columns is None and self.reader.fields is None
        alike = X_out.dtype == self.reader.stored_dtype and X_out.flags.c_contiguous
        return whole and alike and hasattr(self.array, "read_direct")

    def _convert(self, part: Any, X_out: NDArray) -> None:
        """Put the features of rows that have been read into X_out."""
        reader = self.reader
        if reader.fields is None:
            X = _all(as_rows(part), X_out)
            X_out[:] = X if reader.columns is None else X[:, reader.columns]
        else:
            for d, field in enumerate(reader.fields):
                X_out[:, d] = _all(filled(part[field]), X_out)


def _all(found: Any, wanted: NDArray) -> Any:
    """Return what has been read; ValueError if it has not as many rows as wanted."""
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} rows are there instead of {len(wanted)}")
    return found


class NpyReader(SliceReader):
    """Rows of an ``.npy`` file; see `blocks.Reader`. Read, not mapped: pages of a map count as memory."""

    def __init__(self, path: Path, **options: Any):
        self.file = Unchanged(path)
        array = open_npy(path)
        super().__init__(
            array,
            name=str(path),
            reopen=self._map_again,
            check=self.file.check,
            files=(path,),
            is_fixed=True,
            **options,
        )
        as_it_is = self.columns is None and array.dtype == self.dtype and array.flags.c_contiguous
        self.offset = int(array.offset) if as_it_is else None

    def _map_again(self) -> Opened:
        return Opened(open_npy(self.file.check()))

    def open(self) -> Cursor:
        return super().open() if self.offset is None else NpyCursor(self, self.offset)


class NpyCursor:
    """A place in an ``.npy`` file whose bytes are the rows."""

    def __init__(self, reader: NpyReader, offset: int):
        self.reader, self.row, self.weights = reader, 0, reader.open_weights()
        self.opened = reader.file.check().open("rb", buffering=0)
        self.opened.seek(offset)

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        n = min(len(X_out), self.reader.shape[0] - self.row)
        if n == 0:
            self.reader.check()
            return 0
        if X_out.flags.c_contiguous and X_out.dtype == self.reader.dtype:
            self._read(X_out[:n])
        else:  # this is one of several files, and the others are of another kind
            n = min(n, SOME_ROWS)
            X = np.empty((n, self.reader.n_features), self.reader.dtype)
            self._read(X)
            X_out[:n] = X
        if weights_out is not None:
            weights_out[:n] = as_weights(self.weights[self.row : self.row + n])
        self.row += n
        return n

    def _read(self, X_out: NDArray) -> None:
        into = memoryview(X_out.reshape(-1).data).cast("B")
        while into:
            found = self.opened.readinto(into)
            if not found:
                raise ValueError(f"{self.reader.name} ends before its {self.reader.n_samples} rows do")
            into = into[found:]

    def close(self) -> None:
        self.opened.close()


def open_npy(path: Path) -> np.memmap:
    """Return the array of an ``.npy`` file, mapped; ValueError if it is another file."""
    if path.suffix.lower() != ".npy":
        raise ValueError(f"an .npy file is wanted here, not {path}")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"{path} is no .npy file of numbers, or is cut short: {error}") from None


def numpy_dtype(array: Any) -> np.dtype:
    """Return the dtype of an array as NumPy's; other libraries have dtypes of their own."""
    try:
        return np.dtype(array.dtype)
    except TypeError:
        return np.asarray(array[:0]).dtype


def _in_memory(weight: Any) -> NDArray:
    """Return weights that are given as an array, or as what can be converted to one."""
    is_array = isinstance(weight, np.ndarray) and weight.dtype.kind in REAL_KINDS
    return weight if is_array else as_weights(weight)


def check_open(array: Any) -> None:
    """Raise ValueError if an array is a dataset of an HDF5 file that has been closed."""
    if type(array).__module__.split(".")[0] == "h5py" and not array:  # h5py's objects are false then
        raise ValueError(
            "the HDF5 file of the dataset is closed: keep it open while rows are read, or give its path, as in "
            "rows('x.h5', key='X')"
        )


def check_map(array: Any) -> None:
    """Raise ValueError if the file of a memory map is shorter than the map: to read on would kill the process."""
    while isinstance(array, np.ndarray):
        base = array.base
        # Only the map itself has one of Python's as its base, not its views.
        if isinstance(base, mmap.mmap) and isinstance(array, np.memmap) and base.size() < array.offset + array.nbytes:
            raise ValueError(f"{array.filename or 'the file of a memory map'} is shorter than when it was mapped")
        array = base


def _numbers(columns: Sequence | slice, n_features: int, name: str) -> list[int]:
    numbers = list(range(n_features)[columns] if isinstance(columns, slice) else columns)
    good = all(isinstance(c, int | np.integer) and not isinstance(c, bool) for c in numbers)
    if not numbers or not good or not all(0 <= c < n_features for c in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"columns of {name} should be different numbers below {n_features}, but are {numbers}")
    return [int(c) for c in numbers]
