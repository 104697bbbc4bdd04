"""Reader of NumPy arrays, memory maps, and other arrays with slices of rows."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_checks import check_weight_array
from fastgmm.data.block_source import Cursor
from fastgmm.data.conversion import REAL_KINDS, as_rows, as_weights, filled, prefixed
from fastgmm.data.targets import files_behind

from .files import choose, float_dtype


def do_nothing() -> None:
    """Do nothing, where an array needs no closing or no check."""


class Opened(NamedTuple):
    """An array that is open for a pass.

    Attributes
    ----------
    array : array-like of shape (N, D), or (N,) of records
    weights : array-like of shape (N,) or None
        Weights that are stored with the array.
    close : callable ()
        Closes both.
    """

    array: Any
    weights: Any = None
    close: Callable[[], None] = do_nothing


class SliceReader:
    """Rows of anything with `shape`, `dtype` and slices; see `block_source.Reader`.

    An array (N,) of records has one feature for each field that is a number. `columns` and `weight` may name fields.

    Parameters
    ----------
    array : array-like of shape (N, D), or (N,) of records
    columns : list of int, or of str for records, optional
    weight : array-like of shape (N,), or name or number of a field, optional
    key : None
    dtype : optional
    name : str
        The name of the array in messages.
    reopen : callable () -> Opened, optional
        Opens the array for a pass, if it must not stay open between passes. Raises ValueError if it has changed. The
        shape and dtype must be those of `array`.
    stored_weights : array-like of shape (N,), optional
        The weights that `reopen` gives, in place of `weight`.
    check : callable () -> object, optional
        Called when all rows have been read. Raises ValueError if the array has changed.
    files : sequence of Path
        Files that the array is read from.
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
        check: Callable[[], object] = do_nothing,
        files: Sequence[Path] = (),
        is_fixed: bool = False,
    ):
        if key is not None:
            raise ValueError(f"key must be None, as {name} is a single array, got {key!r}")
        self.shape, self.stored_dtype = tuple(array.shape), numpy_dtype(array)
        self.name, self.is_fixed, self.any_thread = name, is_fixed, isinstance(array, np.ndarray)
        self.fields: list[str] | None = None
        self.weight_field: str | None = None
        self.columns: list[int] | None = None
        self.feature_names: tuple[str, ...] | None = None
        if self.stored_dtype.names is not None and len(self.shape) == 1:
            if isinstance(weight, int):
                (weight,) = choose(self.stored_dtype.names, [weight], None, name)
            if isinstance(weight, str):
                self.weight_field, weight = weight, None
            self.fields = choose(self.stored_dtype.names, columns, self.weight_field, name)
            self.feature_names, self.n_features = tuple(self.fields), len(self.fields)
            used = [*self.fields, *([] if self.weight_field is None else [self.weight_field])]
            dtypes = [self._check_field(field) for field in used][: self.n_features]
        else:
            if isinstance(weight, str):
                raise ValueError(f"weight must be an array or the name of an .npy file, got {weight!r}")
            self._check_matrix(isinstance(array, np.ndarray))
            self.columns = None if columns is None else _numbers(columns, self.shape[1], name)
            self.n_features = self.shape[1] if self.columns is None else len(self.columns)
            dtypes = [self.stored_dtype]
        self.n_samples: int | None = int(self.shape[0])
        self.dtype = float_dtype(dtype, dtypes)
        self.order = "F" if getattr(getattr(array, "flags", None), "fnc", False) else "C"
        self._array, self._reopen, self._check = array if reopen is None else None, reopen, check
        self._weights = None if weight is None else _in_memory(weight)
        self.weighted = any(option is not None for option in (weight, stored_weights, self.weight_field))
        # `weight` itself, as `self._weights` may be a converted copy.
        maps = files_behind([array if reopen is None else None, weight])
        self.files: tuple[Path, ...] = tuple(dict.fromkeys([*files, *maps]))
        self.open_weights(stored_weights)

    def _check_matrix(self, is_numpy: bool) -> None:
        """Raise ValueError unless the array is a matrix of real numbers."""
        if len(self.shape) != 2:
            raise ValueError(f"Expected 2D array, but {self.name} has shape {self.shape}")
        if self.shape[1] == 0:
            raise ValueError(f"Found array with 0 feature(s): {self.name} has shape {self.shape}")
        # NumPy arrays of Python's numbers are converted block by block. In files, objects are strings or arrays.
        if self.stored_dtype.kind not in REAL_KINDS + ("O" if is_numpy else ""):
            raise ValueError(f"{self.name} must hold real numbers, got dtype {self.stored_dtype}")

    def _check_field(self, field: str) -> np.dtype:
        """Return the dtype of a field; raise ValueError if it is not a real number."""
        dtype = self.stored_dtype[field]
        if dtype.kind not in REAL_KINDS:
            raise ValueError(
                f"field {field!r} of {self.name} must hold a real number in each row, got dtype {dtype}: choose other "
                "fields with columns="
            )
        return dtype

    def open_weights(self, stored: Any = None) -> Any:
        """Return the weights (N,) as they are stored.

        Return an empty array if there are no weights, or if they are a field.
        """
        if not self.weighted or self.weight_field is not None:
            return np.empty(0)
        weights: Any = self._weights if stored is None else stored
        check_weight_array(weights, numpy_dtype(weights), self.n_samples)
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
        """Raise ValueError if an array has another shape or dtype than at first."""
        check_open(array)
        for mapped in (array, self._weights):
            check_map(mapped)
        shape, dtype = tuple(array.shape), numpy_dtype(array)
        if (shape, dtype) != (self.shape, self.stored_dtype):
            raise ValueError(
                f"{self.name} must not change while rows are read from it: it had shape {self.shape} and dtype "
                f"{self.stored_dtype}, and now has shape {shape} and dtype {dtype}. Call fastgmm.rows again."
            )

    def check(self) -> None:
        """Raise ValueError if a change of the array since it was opened is found."""
        self._check()
        if not self.is_fixed:
            opened = self._open_again()
            try:
                self._check_same(opened.array)
            finally:
                opened.close()

    def where(self, row: int) -> str:
        return f"row {row} of {self.name}"


class SliceCursor:
    """A position in an array."""

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
            problem = f"the rows from {reader.where(self.row)} on cannot be read"
            if isinstance(error, ValueError | TypeError):
                raise prefixed(error, problem) from error
            raise ValueError(f"{problem}: {type(error).__name__}: {error}") from error
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
            weights = self.weights[here] if field is None else part[field]
            weights_out[:] = as_weights(_check_length(weights, weights_out))

    def _is_read_in_place(self, X_out: NDArray) -> bool:
        """Return whether the array can write its rows directly to X_out.

        h5py's datasets can.
        """
        has_all_columns = self.reader.columns is None and self.reader.fields is None
        is_same_layout = X_out.dtype == self.reader.stored_dtype and X_out.flags.c_contiguous
        return has_all_columns and is_same_layout and hasattr(self.array, "read_direct")

    def _convert(self, part: Any, X_out: NDArray) -> None:
        """Write the features of rows that have been read to X_out."""
        reader = self.reader
        if reader.fields is None:
            X = _check_length(as_rows(part), X_out)
            X_out[:] = X if reader.columns is None else X[:, reader.columns]
        else:
            for d, field in enumerate(reader.fields):
                X_out[:, d] = _check_length(filled(part[field]), X_out)


def _check_length(part: Any, out: NDArray) -> Any:
    """Return a part of an array; ValueError if it does not have the length of `out`."""
    if len(part) != len(out):
        raise ValueError(f"a slice of {len(out)} rows must have {len(out)} rows, got {len(part)}")
    return part


def numpy_dtype(array: Any) -> np.dtype:
    """Return the NumPy dtype of an array of any library."""
    try:
        return np.dtype(array.dtype)
    except TypeError:
        return np.asarray(array[:0]).dtype


def _in_memory(weight: Any) -> NDArray:
    """Return weights as an array."""
    is_array = isinstance(weight, np.ndarray) and weight.dtype.kind in REAL_KINDS
    return weight if is_array else as_weights(weight)


def check_open(array: Any) -> None:
    """Raise ValueError if an array is a dataset of an HDF5 file that has been closed."""
    if type(array).__module__.split(".")[0] == "h5py" and not array:  # closed objects of h5py are false
        raise ValueError(
            "the HDF5 file of a dataset must be open, but it is closed: keep it open while rows are read, or give its "
            "path, as in rows('x.h5', key='X')"
        )


def check_map(array: Any) -> None:
    """Raise ValueError if the file of a memory map is shorter than the map.

    Reading such a map would kill the process.
    """
    while isinstance(array, np.ndarray):
        base = array.base
        # Python's mmap is the base of the map itself, and not of its views.
        if isinstance(base, mmap.mmap) and isinstance(array, np.memmap) and base.size() < array.offset + array.nbytes:
            name = array.filename or "the file of a memory map"
            raise ValueError(f"{name} must not change while rows are read from it, but it has become shorter")
        array = base


def _numbers(columns: Sequence | slice, n_features: int, name: str) -> list[int]:
    numbers = list(range(n_features)[columns] if isinstance(columns, slice) else columns)
    are_integers = all(isinstance(c, int | np.integer) and not isinstance(c, bool) for c in numbers)
    is_valid = numbers and are_integers and all(0 <= c < n_features for c in numbers)
    if not is_valid or len(set(numbers)) < len(numbers):
        raise ValueError(f"columns of {name} must be different numbers from 0 to {n_features - 1}, got {numbers}")
    return [int(c) for c in numbers]
