"""Readers of ``.npy`` files, on this machine and behind URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from fastgmm.data.block_source import Cursor
from fastgmm.data.conversion import as_weights

from .arrays import Opened, SliceReader
from .files import Unchanged
from .locations import Location, format_of, local_files, open_binary

HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
# Rows that are copied at a time if they cannot be read directly into a block.
ROWS_PER_COPY = 65_536


def npy_reader(location: Location, **options: Any) -> SliceReader:
    """Return a reader of the rows of an ``.npy`` file."""
    if isinstance(location, Path):
        return NpyReader(location, **options)
    file = NpyFile(location)
    return SliceReader(file, name=str(location), reopen=file.reopen, is_fixed=True, **options)


class NpyReader(SliceReader):
    """Rows of an ``.npy`` file of this machine; see `block_source.Reader`.

    The file is read, as the pages of a memory map would count as memory of the process. It is mapped only if its rows
    must be converted.
    """

    def __init__(self, path: Path, **options: Any):
        self.file = Unchanged(path)
        array = map_npy(path)
        super().__init__(
            array,
            name=str(path),
            reopen=self._map_again,
            check=self.file.check,
            files=(path,),
            is_fixed=True,
            **options,
        )
        is_direct = self.columns is None and array.dtype == self.dtype and array.flags.c_contiguous
        self.offset = int(array.offset) if is_direct else None

    def _map_again(self) -> Opened:
        return Opened(map_npy(self.file.check()))

    def open(self) -> Cursor:
        return super().open() if self.offset is None else NpyCursor(self, self.offset)


class NpyCursor:
    """A position in an ``.npy`` file whose bytes are those of the rows."""

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
        else:  # one of several files, and the others have another dtype or memory order
            n = min(n, ROWS_PER_COPY)
            X = np.empty((n, self.reader.n_features), self.reader.dtype)
            self._read(X)
            X_out[:n] = X
        if weights_out is not None:
            weights_out[:n] = as_weights(self.weights[self.row : self.row + n])
        self.row += n
        return n

    def _read(self, X_out: NDArray) -> None:
        if not read_into(self.opened, X_out):
            raise ValueError(_too_short(self.reader.name, self.reader.shape[0]))

    def close(self) -> None:
        self.opened.close()


class NpyFile:
    """The header of an ``.npy`` file.

    It has the shape, dtype and memory order of the array, and the position of its first byte.

    Raises
    ------
    ValueError
        If it is not an ``.npy`` file of numbers.
    """

    def __init__(self, location: Location):
        if format_of(location.name) != ("npy", None):
            raise ValueError(f"the name of the file must end in .npy, got {location}")
        self.file: Unchanged[Location] = Unchanged(location)
        self.files = local_files(location)
        with open_binary(location) as opened:
            try:
                version = npy_format.read_magic(opened)
                # Version 3 differs in the encoding of field names, which arrays of numbers do not have.
                header = HEADERS.get(version, npy_format.read_array_header_2_0)
                self.shape, self.is_fortran, self.dtype = header(opened)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{location} is not an .npy file: {error}") from None
            self.offset = opened.tell()
        if self.dtype.hasobject:
            raise ValueError(f"{location} must hold numbers, got Python objects")

    def open(self) -> NpyPieces:
        """Open the file, to read its array in slices of rows."""
        return NpyPieces(self, open_binary(self.file.check()))

    def reopen(self) -> Opened:
        """Open the file as `SliceReader` needs it."""
        pieces = self.open()
        return Opened(pieces, None, pieces.close)


class NpyPieces:
    """The array of an open ``.npy`` file, read in slices of rows."""

    def __init__(self, about: NpyFile, opened: Any):
        self.about, self.opened, self.close = about, opened, opened.close
        self.shape, self.dtype = about.shape, about.dtype

    def __getitem__(self, rows: slice) -> NDArray:
        begin, end, _ = rows.indices(self.shape[0])
        n = max(0, end - begin)
        if not self.about.is_fortran or len(self.shape) == 1:
            part = np.empty((n, *self.shape[1:]), self.dtype)
            self._read(begin * int(np.prod(self.shape[1:])), part)
            return part
        columns = np.empty((self.shape[1], n), self.dtype)
        for d, column in enumerate(columns):
            self._read(d * self.shape[0] + begin, column)
        return columns.T

    def _read(self, first: int, values_out: NDArray) -> None:
        """Read the numbers of the array from number `first` on."""
        position = self.about.offset + first * self.dtype.itemsize
        if self.opened.tell() != position:
            self.opened.seek(position)
        try:
            is_complete = read_into(self.opened, values_out)
        except ValueError as error:  # raised for a web server that cannot send parts of a file
            url = self.about.file.path
            raise ValueError(f"{url} cannot be read: {error} 'simplecache::{url}' copies it first.") from error
        if not is_complete:
            raise ValueError(_too_short(str(self.about.file.path), self.shape[0]))


def read_into(opened: Any, values_out: NDArray) -> bool:
    """Read bytes into an array, and return whether it was filled."""
    rest = memoryview(values_out.reshape(-1).data).cast("B")
    while rest:
        n_read = opened.readinto(rest)
        if not n_read:
            return False
        rest = rest[n_read:]
    return True


def map_npy(path: Path) -> np.memmap:
    """Return the array of an ``.npy`` file, mapped into memory."""
    try:
        return npy_format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ValueError(f"{path} is not an .npy file of numbers, or is truncated: {error}") from None


def _too_short(name: str, n_samples: int) -> str:
    return f"{name} must have {n_samples} rows, but is truncated"
