"""Readers of what is an array: ``.npy`` files, memory maps, HDF5 datasets, zarr arrays."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.blocks import Cursor
from fastgmm.targets import files_behind

from .files import Unchanged, float_dtype

# Rows that are copied at a time where they cannot be read straight into a block.
SOME_ROWS = 65_536
Open = Callable[[], tuple[Any, Callable[[], None]]]


class SliceReader:
    """Rows of anything with `shape`, `dtype` and slices; see `blocks.Reader`.

    Parameters
    ----------
    array : array-like of shape (N, D)
        What is there now; what is read later is what `reopen` gives.
    columns : list of int, optional
    weight : array-like of shape (N,), or path of an ``.npy`` file, optional
    key : None
    dtype : optional
    name : str
        What it is called in messages.
    reopen : callable () -> (array, close), optional
        For what should not stay open between walks.
    is_fixed : bool
    """

    feature_names: tuple[str, ...] | None = None

    def __init__(
        self,
        array: Any,
        *,
        columns: Sequence | None = None,
        weight: Any = None,
        key: str | None = None,
        dtype: DTypeLike | None = None,
        name: str = "the array",
        reopen: Open | None = None,
        is_fixed: bool = False,
    ):
        if key is not None:
            raise ValueError(f"key is for files with several datasets, but {name} is a single one")
        if len(array.shape) != 2:
            raise ValueError(f"Expected 2D array, but {name} has shape {tuple(array.shape)}")
        if array.shape[1] == 0:
            raise ValueError(f"Found array with 0 feature(s): {name} has shape {tuple(array.shape)}")
        if np.dtype(array.dtype).kind not in "fiub":
            raise ValueError(f"{name} should hold real numbers, but holds {array.dtype}")
        self.columns = None if columns is None else _numbers(columns, array.shape[1], name)
        self.n_samples: int | None = int(array.shape[0])
        self.n_features = int(array.shape[1]) if self.columns is None else len(self.columns)
        self.dtype = float_dtype(dtype, [np.dtype(array.dtype)])
        self.order = "F" if getattr(getattr(array, "flags", None), "fnc", False) else "C"
        self.name, self.is_fixed, self.any_thread = name, is_fixed, isinstance(array, np.ndarray)
        self._array, self._reopen = array if reopen is None else None, reopen
        self.weight_file = Unchanged(Path(weight).absolute()) if isinstance(weight, str | os.PathLike) else None
        self.files = files_behind([array, weight])
        self.files += () if self.weight_file is None else (self.weight_file.path,)
        self._weights = None if weight is None or self.weight_file is not None else np.asanyarray(weight)
        self.weighted = weight is not None
        self.open_weights()

    def open_weights(self) -> NDArray:
        """The weights (N,), as they are stored; none if there are none."""
        weights = self._weights if self.weight_file is None else _map(self.weight_file.check())
        if not self.weighted:
            return np.empty(0)
        assert weights is not None
        if weights.shape != (self.n_samples,) or weights.dtype.kind not in "fiub":
            raise ValueError(
                f"weight should be {self.n_samples} numbers, but is {weights.dtype} of shape {weights.shape}"
            )
        return weights

    def open(self) -> Cursor:
        array, close = (self._array, _nothing) if self._reopen is None else self._reopen()
        return SliceCursor(self, array, close)

    def where(self, row: int) -> str:
        return f"row {row} of {self.name}"


class SliceCursor:
    """A place in an array."""

    def __init__(self, reader: SliceReader, array: Any, close: Callable[[], None]):
        self.reader, self.array, self.close, self.row = reader, array, close, 0
        self.weights = reader.open_weights()

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        assert self.reader.n_samples is not None
        n = min(len(X_out), self.reader.n_samples - self.row)
        part = self.array[self.row : self.row + n]
        X_out[: len(part)] = part if self.reader.columns is None else np.asarray(part)[:, self.reader.columns]
        if weights_out is not None:
            weights_out[: len(part)] = self.weights[self.row : self.row + n]
        self.row += len(part)
        return len(part)


class NpyReader(SliceReader):
    """Rows of an ``.npy`` file; see `blocks.Reader`. Read, not mapped: pages of a map count as memory."""

    def __init__(self, path: Path, **options: Any):
        self.file = Unchanged(path)
        array = _map(path)
        super().__init__(array, name=str(path), reopen=self._map_again, is_fixed=True, **options)
        self.files += (path,)
        as_it_is = self.columns is None and array.dtype == self.dtype and array.flags.c_contiguous
        self.offset = int(getattr(array, "offset", 0)) if as_it_is else None

    def _map_again(self) -> tuple[NDArray, Callable[[], None]]:
        return _map(self.file.check()), _nothing

    def open(self) -> Cursor:
        return super().open() if self.offset is None else NpyCursor(self, self.offset)


class NpyCursor:
    """A place in an ``.npy`` file whose bytes are the rows."""

    def __init__(self, reader: NpyReader, offset: int):
        self.reader, self.row, self.weights = reader, 0, reader.open_weights()
        self.opened = reader.file.check().open("rb", buffering=0)
        self.opened.seek(offset)

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        assert self.reader.n_samples is not None
        n = min(len(X_out), self.reader.n_samples - self.row)
        if n == 0:
            return 0
        if X_out.flags.c_contiguous and X_out.dtype == self.reader.dtype:
            self._read(X_out[:n])
        else:  # other files, of which this is one of several, are of another kind
            n = min(n, SOME_ROWS)
            X = np.empty((n, self.reader.n_features), self.reader.dtype)
            self._read(X)
            X_out[:n] = X
        if weights_out is not None:
            weights_out[:n] = self.weights[self.row : self.row + n]
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


def open_hdf5(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Rows of a dataset in an HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError("Reading HDF5 needs h5py: pip install 'fastgmm[io]'") from None
    with h5py.File(path, "r") as opened:
        names: list[str] = []
        opened.visititems(lambda name, item: names.append(name) if len(getattr(item, "shape", ())) == 2 else None)
        found = _only(key, names, path, opened)
        weights = opened[weight][:] if isinstance(weight, str) and weight in opened else weight
        reopen = functools.partial(_open_dataset, Unchanged(path), found)
        reader = SliceReader(
            opened[found], weight=weights, name=f"{path}:{found}", reopen=reopen, is_fixed=True, **options
        )
    reader.files += (path,)
    return reader


def _open_dataset(file: Unchanged, key: str) -> tuple[Any, Callable[[], None]]:
    """A dataset of an HDF5 file, and what closes the file."""
    import h5py

    opened = h5py.File(file.check(), "r")
    return opened[key], opened.close


def open_zarr(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Rows of an array in a zarr store."""
    try:
        import zarr
    except ImportError:
        raise ImportError("Reading zarr needs zarr: pip install 'fastgmm[io]'") from None
    opened: Any = zarr.open(str(path), mode="r")
    if hasattr(opened, "shape"):
        if key is not None:
            raise ValueError(f"key is for groups, but {path} is a single array")
        return SliceReader(opened, weight=weight, name=str(path), **options)
    found = _only(key, [name for name, array in opened.arrays() if len(array.shape) == 2], path, opened)
    weights = opened[weight][:] if isinstance(weight, str) and weight in opened else weight
    return SliceReader(opened[found], weight=weights, name=f"{path}:{found}", **options)


def _only(key: str | None, names: list[str], path: Path, opened: Any) -> str:
    """The dataset that is asked for, or the only one there is."""
    if key is None and len(names) != 1:
        raise ValueError(f"{path} has {len(names)} datasets with two dimensions, {names}: say which with key=")
    if key is not None and not (key in opened and hasattr(opened[key], "shape")):
        raise ValueError(f"{path} has no dataset {key!r}, but {names}")
    return names[0] if key is None else key


def _map(path: Path) -> NDArray:
    if path.suffix.lower() != ".npy":
        raise ValueError(f"an .npy file is wanted here, not {path}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is no array of numbers, or is cut short: {error}") from None


def _nothing() -> None:
    """There is nothing to close."""


def _numbers(columns: Sequence, n_features: int, name: str) -> list[int]:
    numbers = list(columns)
    good = all(isinstance(c, int | np.integer) and not isinstance(c, bool) for c in numbers)
    if not numbers or not good or not all(0 <= c < n_features for c in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"columns of {name} should be different numbers below {n_features}, but are {numbers}")
    return [int(c) for c in numbers]
