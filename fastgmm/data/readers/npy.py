"""Arrays in ``.npy`` files wherever they are, read piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from .arrays import Opened
from .files import Unchanged
from .locations import Location, format_of, local_files, open_binary

HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


class NpyFile:
    """An ``.npy`` file: the shape, dtype and order of its array, and where in the file this begins.

    Raises
    ------
    ValueError
        If it is not an ``.npy`` file of numbers.
    """

    def __init__(self, location: Location):
        if format_of(location.name) != ("npy", None):
            raise ValueError(f"an .npy file is wanted here, not {location}")
        self.file: Unchanged[Location] = Unchanged(location)
        self.files = local_files(location)
        with open_binary(location) as opened:
            try:
                version = npy_format.read_magic(opened)
                # The third version differs by the encoding of names of fields, of which there are none in numbers.
                header = HEADERS.get(version, npy_format.read_array_header_2_0)
                self.shape, self.is_fortran, self.dtype = header(opened)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{location} is not an .npy file: {error}") from None
            self.offset = opened.tell()
        if self.dtype.hasobject:
            raise ValueError(f"{location} should hold numbers, but holds Python objects")

    def open(self) -> NpyPieces:
        """Return the array, to be read by slices of rows."""
        return NpyPieces(self, open_binary(self.file.check()))

    def reopen(self) -> Opened:
        """Return the array as `open` has it, and what closes the file."""
        pieces = self.open()
        return Opened(pieces, None, pieces.close)


class NpyPieces:
    """The array of an open ``.npy`` file, by slices of rows."""

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
        """Read numbers from the first on."""
        place = self.about.offset + first * self.dtype.itemsize
        if self.opened.tell() != place:
            self.opened.seek(place)
        into = memoryview(values_out.reshape(-1).data).cast("B")
        while into:
            try:
                found = self.opened.readinto(into)
            except ValueError as error:  # of a web server that cannot send parts of a file
                url = self.about.file.path
                raise ValueError(f"{url} cannot be read: {error} 'simplecache::{url}' copies it first.") from error
            if not found:
                raise ValueError(f"{self.about.file.path} ends before its {self.shape[0]} rows do")
            into = into[found:]
