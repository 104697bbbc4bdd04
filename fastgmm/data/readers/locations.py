"""Paths, folders, patterns and URLs of files of rows, and the format that a name stands for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
LOCAL_URL = re.compile(r"(file|local)://(localhost(?=/))?", re.IGNORECASE)
# Formats by the ending of a name; each has one name, whatever the ending.
FORMATS = {
    "npy": "npy",
    "parquet": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "tsv": "tsv",
    "h5": "hdf5",
    "hdf5": "hdf5",
    "zarr": "zarr",
}
COMPRESSIONS = {
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bz2",
    "zst": "zstd",
    "zstd": "zstd",
    "lz4": "lz4",
    "br": "brotli",
    "snappy": "snappy",
    "xz": "xz",
    "zip": "zip",
}
# What a changed file changes among the details that file systems give.
DETAILS = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "md5Hash", "generation")


@dataclass(frozen=True)
class Remote:
    """A file or a folder behind a URL.

    Attributes
    ----------
    url : str
        How messages name it.
    files : fsspec.AbstractFileSystem
    path : str
        Its name in `files`.
    local : tuple of Path
        Files or folders of this machine that a chain of file systems reads it from, as ``simplecache::file://`` does.
    """

    url: str
    files: Any
    path: str
    local: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part of the path; a web address may have a query after it."""
        is_web = "http" in self.url.split("://")[0]
        return PurePosixPath(re.split(r"[?#]", self.path)[0] if is_web else self.path).name

    def open(self) -> Any:
        """Open the file to read its bytes."""
        return self.files.open(self.path, "rb")

    def state(self) -> tuple:
        """Return what differs once the file has been written again, as far as its file system tells."""
        self.files.invalidate_cache(self.path)
        details = self.files.info(self.path)
        return tuple(details.get(name) for name in DETAILS)


Location: TypeAlias = Path | Remote


class Format(NamedTuple):
    """The format of a file, and what it is compressed with; None where there is none that is known."""

    name: str | None
    compression: str | None


def format_of(name: str) -> Format:
    """Return the format that a file's name stands for."""
    *_, before, last = "", *name.lower().split(".")
    if last in FORMATS:
        return Format(FORMATS[last], None)
    if last in COMPRESSIONS and before in FORMATS:
        return Format(FORMATS[before], COMPRESSIONS[last])
    return Format(None, None)


def locate(name: str | os.PathLike) -> Location:
    """Return the place that a path or a URL names, absolute and with `~` replaced."""
    text = os.fspath(name)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if isinstance(name, str) and URL.match(text) and not os.path.lexists(text):
        if not (local := LOCAL_URL.match(text)):
            return _remote(text)
        path = Path(text[local.end() :])
        return path if os.path.lexists(path) else Path(unquote(str(path)))
    # The current folder may be another one when the file is read.
    return Path(os.path.expanduser(text)).absolute()


def find(source: str | os.PathLike) -> list[Location]:
    """Return the files that a path, a folder, a pattern or a URL stands for, sorted by their names."""
    location = locate(source)
    found = _find_remote(location) if isinstance(location, Remote) else _find_local(location)
    if not found:
        raise FileNotFoundError(f"there is no file to read rows from at {str(location)!r}")
    return found


def readable(location: Location) -> Any:
    """Return what a library that takes paths and open files can read."""
    return location.open() if isinstance(location, Remote) else location


def local_files(location: Location) -> tuple[Path, ...]:
    """Return the files or folders of this machine that a place is read from."""
    return (location,) if isinstance(location, Path) else location.local


def open_binary(location: Location) -> Any:
    """Open a file to read its bytes."""
    return location.open() if isinstance(location, Remote) else location.open("rb")


def _remote(url: str) -> Remote:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError(f"Reading {url} needs fsspec: pip install 'fastgmm[io]'") from None
    try:
        files, path = url_to_fs(url)
    except ImportError as error:
        raise ImportError(f"Reading {url} needs a package that is not installed. {error}") from None
    except ValueError as error:
        raise ValueError(f"{url} cannot be read: {error}") from None
    return Remote(url, files, path, _local_members(url))


def _local_members(url: str) -> tuple[Path, ...]:
    """Return the paths on this machine in a URL, which may be a chain such as ``zip://x.csv::file:///x.zip``."""
    from fsspec.core import _un_chain

    return tuple(Path(path).absolute() for path, protocol, _ in _un_chain(url, {}) if protocol in ("file", "local"))


def _find_local(path: Path) -> list[Location]:
    if path.is_dir() and not _is_store(path.name):
        return list(_alike(sorted(_walk(path)), path))
    if os.path.lexists(path):
        return [_check(path)]
    if not glob.has_magic(str(path)):
        return []
    matches = (Path(name) for name in glob.glob(str(path), recursive=True))
    seen = [match for match in matches if not _is_ignored(match.parts, path.parts)]
    folders = {match for match in seen if match.is_dir() and not _is_store(match.name)}
    # A pattern with `**` has folders and what is in them.
    found = {match for match in seen if match not in folders}
    found.update(file for folder in folders if not _is_in_cycle(folder) for file in _walk(folder))
    in_cycle = {folder for folder in {file.parent for file in found} if _is_in_cycle(folder)}
    found = {file for file in found if file.parent not in in_cycle}
    return list(_alike(sorted(found), path))


def _find_remote(location: Remote) -> list[Location]:
    files, path = location.files, location.path
    try:
        kind = files.info(path)["type"]
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is not None and getattr(cause, "status", None) != 404:
            raise OSError(f"{location} cannot be read: {cause}") from error
        kind = None
    except Exception as error:  # whatever the packages of the file systems raise
        raise OSError(f"{location} cannot be read: {type(error).__name__}: {error}") from error
    is_store = _is_store(location.name)
    if is_store or (kind == "file" and not location.url.endswith("/")):
        return [location] if is_store or kind else []
    if kind is not None:
        folders, found = {path}, []
    elif glob.has_magic(path):
        matches = files.glob(path, detail=True)
        folders = {name for name, details in matches.items() if details["type"] == "directory"}
        found = [name for name in matches if name not in folders]
    else:
        return []
    found += [name for folder in folders for name in ([folder] if _is_store(folder) else files.find(folder))]
    stores = {_store_of(name) for name in found}
    seen = sorted((name for name in stores if not _is_ignored(_parts(name), _parts(path))), key=_parts)
    urls = {name: files.unstrip_protocol(name) for name in seen}
    # Some file systems leave out of a URL what they are in.
    places = (Remote(url, files, name, _local_members(url) or location.local) for name, url in urls.items())
    return list(_alike(places, location))


def _walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in a folder and in those below it, through links as well.

    A link to a folder that contains it is not followed, and names that begin with `_` or `.` are for someone's own
    use, as in pyarrow.dataset.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir() and not _is_store(entry.name):
                yield from _walk(Path(entry.path), (*above, real))
            else:
                yield Path(entry.path)


def _alike(locations: Iterable[Location], asked: Location) -> Iterator[Location]:
    """Yield files that a folder or a pattern has; ValueError if not all are files of rows in one format."""
    first: Location | None = None
    for location in locations:
        if isinstance(location, Path):
            _check(location)
        format_name = format_of(location.name).name
        if format_name is None:
            raise ValueError(
                f"every file in {asked} must have a name that ends in one of {', '.join(FORMATS)}, but there is "
                f"{location}; choose files with a pattern, such as {_pattern(asked)}"
            )
        first = first or location
        if format_name != format_of(first.name).name:
            raise ValueError(
                f"files in {asked} must have one format, but there are {first} and {location}; choose files with a "
                f"pattern, such as {_pattern(asked)}, or give a list"
            )
        yield location


def _pattern(asked: Location) -> str:
    folder = re.split(r"/[^/]*[*?\[]", str(asked))[0].rstrip("/")
    return repr(f"{folder}/*.parquet")


def _check(path: Path) -> Path:
    """Return a path, if it is that of a file or of a zarr store."""
    if path.is_file() or (path.is_dir() and _is_store(path.name)):
        return path
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist")
    raise ValueError(f"rows are read from files and folders, but {path} is neither")


def _is_store(name: str) -> bool:
    return format_of(name) == Format("zarr", None)


def _store_of(name: str) -> str:
    """Return the zarr store that a file is part of, if it is, and else the file."""
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if _is_store(part)), len(parts))
    return "/".join(parts[: at + 1])


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _is_ignored(parts: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Return whether a name that a pattern or a folder has found is hidden, or inside a zarr store."""
    found = [part for part in parts if part not in asked]
    asks_hidden = any(_is_hidden(part) and glob.has_magic(part) for part in asked)
    return any(map(_is_store, found[:-1])) or (any(map(_is_hidden, found)) and not asks_hidden)


def _is_in_cycle(folder: Path) -> bool:
    """Return whether a link on the way to a folder leads back to one that contains it."""
    reals = [os.path.realpath(parent) for parent in (folder, *folder.parents)]
    return len(set(reals)) < len(reals)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part)
