"""Readers of what is an array: ``.npy`` files, memory maps, HDF5 datasets, zarr arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastgmm.blocks import Cursor

from .files import Unchanged, float_dtype

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
        if np.dtype(array.dtype).kind not in "fiub":
            raise ValueError(f"{name} should hold real numbers, but holds {array.dtype}")
        self.columns = None if columns is None else _numbers(columns, array.shape[1], name)
        self.n_samples: int | None = int(array.shape[0])
        self.n_features = int(array.shape[1]) if self.columns is None else len(self.columns)
        self.dtype = float_dtype(dtype, [np.dtype(array.dtype)])
        self.order = "F" if getattr(getattr(array, "flags", None), "fnc", False) else "C"
        self.name, self.is_fixed = name, is_fixed
        self._array, self._reopen = array if reopen is None else None, reopen
        self.weights = None if weight is None else _weights(weight, self.n_samples)
        self.weighted = self.weights is not None

    def open(self) -> Cursor:
        array, close = (self._array, _nothing) if self._reopen is None else self._reopen()
        return SliceCursor(self, array, close)

    def where(self, row: int) -> str:
        return f"row {row} of {self.name}"


class SliceCursor:
    """A place in an array."""

    def __init__(self, reader: SliceReader, array: Any, close: Callable[[], None]):
        self.reader, self.array, self.close, self.row = reader, array, close, 0

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        assert self.reader.n_samples is not None
        n = min(len(X_out), self.reader.n_samples - self.row)
        part = self.array[self.row : self.row + n]
        X_out[: len(part)] = part if self.reader.columns is None else np.asarray(part)[:, self.reader.columns]
        if weights_out is not None:
            assert self.reader.weights is not None
            weights_out[: len(part)] = self.reader.weights[self.row : self.row + n]
        self.row += len(part)
        return len(part)


class NpyReader(SliceReader):
    """Rows of an ``.npy`` file; see `blocks.Reader`. Read, not mapped: pages of a map count as memory."""

    def __init__(self, path: Path, *, name: str | None = None, **options: Any):
        self.file = Unchanged(path)
        array = _map(path)
        super().__init__(array, name=str(path), reopen=self._map_again, is_fixed=True, **options)
        as_it_is = self.columns is None and array.dtype == self.dtype and array.flags.c_contiguous
        self.offset = int(getattr(array, "offset", 0)) if as_it_is else None

    def _map_again(self) -> tuple[NDArray, Callable[[], None]]:
        return _map(self.file.check()), _nothing

    def open(self) -> Cursor:
        return super().open() if self.offset is None else NpyCursor(self, self.offset)


class NpyCursor:
    """A place in an ``.npy`` file whose bytes are the rows."""

    def __init__(self, reader: NpyReader, offset: int):
        self.reader, self.row = reader, 0
        self.opened = reader.file.check().open("rb", buffering=0)
        self.opened.seek(offset)

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        assert self.reader.n_samples is not None
        n = min(len(X_out), self.reader.n_samples - self.row)
        if n == 0:
            return 0
        into = memoryview(X_out[:n].reshape(-1).data).cast("B")
        while into:
            found = self.opened.readinto(into)
            if not found:
                raise ValueError(f"{self.reader.name} ends before its {self.reader.n_samples} rows do")
            into = into[found:]
        if weights_out is not None:
            assert self.reader.weights is not None
            weights_out[:n] = self.reader.weights[self.row : self.row + n]
        self.row += n
        return n

    def close(self) -> None:
        self.opened.close()


def open_hdf5(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Rows of a dataset in an HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError("Reading HDF5 needs h5py: pip install 'fastgmm[io]'") from None
    file = Unchanged(path)

    def reopen() -> tuple[Any, Callable[[], None]]:
        opened = h5py.File(file.check(), "r")
        return opened[found], opened.close

    with h5py.File(path, "r") as opened:
        names: list[str] = []
        opened.visititems(lambda name, item: names.append(name) if len(getattr(item, "shape", ())) == 2 else None)
        found = _only(key, names, path, opened)
        weights = opened[weight][:] if isinstance(weight, str) and weight in opened else weight
        return SliceReader(
            opened[found], weight=weights, name=f"{path}:{found}", reopen=reopen, is_fixed=True, **options
        )


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
    if key is not None and key not in opened:
        raise ValueError(f"{path} has no dataset {key!r}, but {names}")
    return names[0] if key is None else key


def _map(path: Path) -> NDArray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is no array of numbers, or is cut short: {error}") from None


def _nothing() -> None:
    """There is nothing to close."""


def _numbers(columns: Sequence, n_features: int, name: str) -> list[int]:
    numbers = list(columns)
    if not numbers or not all(isinstance(c, int | np.integer) and -n_features <= c < n_features for c in numbers):
        raise ValueError(f"columns of {name} should be numbers below {n_features}, but are {numbers}")
    return [int(c) for c in numbers]


def _weights(weight: ArrayLike | str | os.PathLike, n_samples: int) -> NDArray:
    """Weights in memory, (N,); float64 or as they are."""
    if isinstance(weight, str | os.PathLike):
        if Path(weight).suffix != ".npy" or not Path(weight).exists():
            raise ValueError(f"weight should be an array or the path of an .npy file here, but is {str(weight)!r}")
        weight = _map(Path(weight))
    weights = np.asanyarray(weight)
    if weights.shape != (n_samples,) or weights.dtype.kind not in "fiub":
        raise ValueError(
            f"weight should be {n_samples} numbers, but has shape {weights.shape} and holds {weights.dtype}"
        )
    return weights
