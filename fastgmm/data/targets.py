"""Checks of files to be written, and the files that data are read from."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The use of files that rows are read from, in messages.
READ = "the rows or weights are read from"


def check_target(path: str | os.PathLike, name: str, in_use: Mapping[str, Sequence[Path]]) -> Path:
    """Return the file that a path stands for, and check that it may be written.

    Parameters
    ----------
    path : path
        ``~`` is the home folder. Symbolic links are followed: the link remains, and its target is replaced.
    name : str
        The parameter that the path was given as, for messages.
    in_use : mapping of str to sequence of Path
        Files and folders that must not be written to, by their use. Two names of one file are the same file.

    Returns
    -------
    target : Path
        Absolute and without symbolic links. Either a regular file, or a new file in a folder that exists.

    Raises
    ------
    ValueError
        If the path is not such a file, if it is a file in use, or if it is inside a folder in use.
    PermissionError
        If the file is read-only.
    """
    target = Path(os.path.realpath(os.path.expanduser(path)))
    status = _status(target, follow=False)
    if not target.parent.is_dir() or (status is not None and stat.S_ISDIR(status.st_mode)):
        raise ValueError(f"{name} must be a file in a folder that exists, got {str(path)!r}")
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} must be an ordinary file, or not exist yet, but {str(path)!r} is {_kind(status)}")
    for use, others in in_use.items():
        for other in others:
            if _is_within(target, status, other):
                raise ValueError(
                    f"{name} must be another file than {use}, but {str(path)!r} is, or is inside, {str(other)!r}. "
                    "Choose another name."
                )
    if status is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, f"{name} is a read-only file", str(path))
    return target


def files_behind(data: Any) -> tuple[Path, ...]:
    """Return the files that an array, a data frame or a list is read from.

    Not all such files can be found.

    These are the files of memory maps and their views in arrays, buffers and data frames, of open HDF5 datasets, and of
    zarr arrays whose store is a file or a folder. On Linux the list of mapped files of the process is used as well. It
    has the present names of files that were renamed, and maps that NumPy did not make.
    """
    files: list[Path] = []
    addresses = []
    for part in _parts(data):
        array = part
        if not isinstance(part, np.ndarray):
            stored: list[Path] = []
            stored.extend(_path_of(getattr(part, "file", None), ("filename",)))  # an HDF5 dataset
            stored.extend(_path_of(getattr(part, "store", None), ("root", "path")))  # a zarr array
            array = None if stored else _view_of(part)
            files.extend(stored)
        if array is not None:
            files.extend(_files_of_maps(array))
            addresses.append(array.__array_interface__["data"][0])
    return tuple(dict.fromkeys([*files, *_files_mapped_at(addresses)]))


def _parts(data: Any) -> Iterator[Any]:
    """Yield the arrays in a data frame or a list, or the object itself."""
    if isinstance(data, np.ndarray):
        yield data
    elif isinstance(data, list | tuple):
        for item in data:
            is_row = isinstance(item, list | tuple) and len(item) > 0 and isinstance(item[0], Number)
            if not is_row and not isinstance(item, Number):  # Python's numbers are not in files
                yield from _parts(item)
    elif hasattr(data, "iloc") and hasattr(data, "to_numpy"):
        columns = [column for _, column in data.items()] if data.ndim == 2 else [data]
        for column in columns:
            # Extension types of pandas convert to NumPy with a copy, but to Arrow without one.
            is_plain = isinstance(getattr(column, "dtype", None), np.dtype)
            yield from [column.to_numpy()] if is_plain else _arrow_buffers(column)
    elif hasattr(data, "get_columns") or hasattr(data, "get_chunks"):  # polars, which copies to join chunks for Arrow
        columns = data.get_columns() if hasattr(data, "get_columns") else [data]
        for chunk in (chunk for column in columns for chunk in column.get_chunks()):
            yield from _arrow_buffers(chunk)
    elif any(hasattr(data, way) for way in ("__arrow_c_stream__", "__arrow_c_array__")) and hasattr(data, "__len__"):
        yield from _arrow_buffers(data)
    elif data is not None:
        yield data


def _arrow_buffers(data: Any) -> list[Any]:
    """Return the buffers of a frame or a column that pyarrow reads without a copy.

    If that fails, return the data.
    """
    try:
        import pyarrow as pa

        if len(getattr(data, "shape", ())) == 2:
            columns = pa.table(data).columns
        else:
            # Arrow reads a column of polars without a copy only as a stream.
            is_stream = hasattr(data, "__arrow_c_stream__") and not hasattr(data, "iloc")
            array = pa.chunked_array(data) if is_stream else pa.array(data)
            columns = [array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])]
        buffers = (buffer for column in columns for chunk in column.chunks for buffer in chunk.buffers())
        return [np.frombuffer(buffer, np.uint8) for buffer in buffers if buffer is not None and buffer.size]
    except Exception:  # pyarrow is missing, or does not read these types
        return [data]


def _view_of(thing: Any) -> NDArray | None:
    """Return an array with the memory of an object or its first row, or None."""
    if isinstance(thing, str | bytes | Number):
        return None
    with contextlib.suppress(Exception):  # an object without a buffer of numbers
        return np.asarray(memoryview(thing))
    with contextlib.suppress(Exception):  # other libraries raise exceptions of any class
        if all(hasattr(thing, name) for name in ("shape", "dtype", "__getitem__")):
            return np.asarray(thing[:1])  # all rows may be too many to read
        if any(hasattr(thing, name) for name in ("__array__", "__array_interface__", "__array_struct__")):
            return np.asarray(thing)
    return None


def _files_of_maps(array: NDArray) -> Iterator[Path]:
    """Yield the files of the memory maps that an array is a view of."""
    base: Any = array
    while base is not None:
        yield from _path_of(base, ("filename",))
        # A view by way of the buffer protocol has a memoryview in between.
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)


def _files_mapped_at(addresses: Sequence[int]) -> Iterator[Path]:
    """Yield the files that are mapped at memory addresses, on Linux."""
    maps = Path("/proc/self/maps")
    if not addresses or not maps.exists():
        return
    in_order = sorted(addresses)
    for line in os.fsdecode(maps.read_bytes()).splitlines():
        # "begin-end permissions offset device inode path"
        span, *_, name = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in span.split("-"))
        first = bisect_left(in_order, begin)
        if name.startswith("/") and first < len(in_order) and in_order[first] < end:
            yield Path(name)


def _path_of(thing: Any, names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = getattr(thing, name, None)
        if isinstance(path, str | os.PathLike) and str(path):
            yield Path(path).absolute()


def _status(path: Path, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of a file; None if it does not exist."""
    try:
        return path.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_within(target: Path, status: os.stat_result | None, other: Path) -> bool:
    """Return whether a file is another file, or is inside it if that is a folder."""
    other_status = _status(other)
    if other_status is None:
        return False
    if status is not None and os.path.samestat(status, other_status):
        return True
    folders = map(_status, target.parents) if stat.S_ISDIR(other_status.st_mode) else ()
    return any(folder is not None and os.path.samestat(folder, other_status) for folder in folders)


KINDS: dict[str, Callable[[int], bool]] = {
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a symbolic link to itself": stat.S_ISLNK,
}


def _kind(status: os.stat_result) -> str:
    return next((kind for kind, is_one in KINDS.items() if is_one(status.st_mode)), "something else")
