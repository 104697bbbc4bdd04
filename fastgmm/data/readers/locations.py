"""Paths, folders, patterns and URLs of files of rows, and file formats."""

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
# Names of the formats, by the endings of file names.
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
# Names of the compressions, by the endings of file names.
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
# Details from file systems that differ after a file has been written again.
DETAILS = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "md5Hash", "generation")


@dataclass(frozen=True)
class Remote:
    """A file or a folder behind a URL.

    Attributes
    ----------
    url : str
        Its name in messages.
    files : fsspec.AbstractFileSystem
    path : str
        Its name in `files`.
    local : tuple of Path
        Files or folders of this machine that a chain of file systems reads, such as ``simplecache::file://``.
    """

    url: str
    files: Any
    path: str
    local: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part of the path, without the query of a web address."""
        is_web = "http" in self.url.split("://")[0]
        return PurePosixPath(re.split(r"[?#]", self.path)[0] if is_web else self.path).name

    def open(self) -> Any:
        """Open the file to read its bytes."""
        return self.files.open(self.path, "rb")

    def state(self) -> tuple:
        """Return details that differ after the file has been written again.

        Not all file systems have all details.
        """
        self.files.invalidate_cache(self.path)
        details = self.files.info(self.path)
        return tuple(details.get(name) for name in DETAILS)


Location: TypeAlias = Path | Remote


class Format(NamedTuple):
    """The format and the compression of a file.

    Each is None if it is unknown or if there is none.
    """

    name: str | None
    compression: str | None


def format_of(name: str) -> Format:
    """Return the format of a file, by its name."""
    *_, before, last = "", *name.lower().split(".")
    if last in FORMATS:
        return Format(FORMATS[last], None)
    if last in COMPRESSIONS and before in FORMATS:
        return Format(FORMATS[before], COMPRESSIONS[last])
    return Format(None, None)


def locate(name: str | os.PathLike) -> Location:
    """Return the location that a path or a URL stands for.

    Paths become absolute, and `~` is replaced.
    """
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
    """Return the files of a path, a folder, a pattern or a URL, sorted by name."""
    location = locate(source)
    files = _find_remote(location) if isinstance(location, Remote) else _find_local(location)
    if not files:
        raise FileNotFoundError(f"there is no file to read rows from at {str(location)!r}: check the name")
    return files


def readable(location: Location) -> Any:
    """Return a path, or an open file for a URL, for libraries that read both."""
    return location.open() if isinstance(location, Remote) else location


def local_files(location: Location) -> tuple[Path, ...]:
    """Return the files or folders of this machine that are read for a location."""
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
    """Return the paths on this machine in a URL.

    A URL may be a chain, such as ``zip://x.csv::file:///x.zip``.
    """
    from fsspec.core import _un_chain

    return tuple(Path(path).absolute() for path, protocol, _ in _un_chain(url, {}) if protocol in ("file", "local"))


def _find_local(path: Path) -> list[Location]:
    if path.is_dir() and not _is_store(path.name):
        return list(_of_one_format(sorted(_files_below(path)), path))
    if os.path.lexists(path):
        return [_check(path)]
    if not glob.has_magic(str(path)):
        return []
    matches = (Path(name) for name in glob.glob(str(path), recursive=True))
    visible = [match for match in matches if not _is_ignored(match.parts, path.parts)]
    folders = {match for match in visible if match.is_dir() and not _is_store(match.name)}
    # A pattern with `**` matches folders and the files in them.
    files = {match for match in visible if match not in folders}
    files.update(file for folder in folders if not _is_in_cycle(folder) for file in _files_below(folder))
    in_cycle = {folder for folder in {file.parent for file in files} if _is_in_cycle(folder)}
    files = {file for file in files if file.parent not in in_cycle}
    return list(_of_one_format(sorted(files), path))


def _find_remote(location: Remote) -> list[Location]:
    files, path = location.files, location.path
    try:
        kind = files.info(path)["type"]
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause is not None and getattr(cause, "status", None) != 404:
            raise OSError(f"{location} cannot be read: {cause}") from error
        kind = None
    except Exception as error:  # the packages of file systems raise exceptions of any class
        raise OSError(f"{location} cannot be read: {type(error).__name__}: {error}") from error
    is_store = _is_store(location.name)
    if is_store or (kind == "file" and not location.url.endswith("/")):
        return [location] if is_store or kind else []
    if kind is not None:
        folders, names = {path}, []
    elif glob.has_magic(path):
        matches = files.glob(path, detail=True)
        folders = {name for name, details in matches.items() if details["type"] == "directory"}
        names = [name for name in matches if name not in folders]
    else:
        return []
    names += [name for folder in folders for name in ([folder] if _is_store(folder) else files.find(folder))]
    stores = {_store_of(name) for name in names}
    visible = sorted((name for name in stores if not _is_ignored(_parts(name), _parts(path))), key=_parts)
    urls = {name: files.unstrip_protocol(name) for name in visible}
    # The URLs of some file systems do not have the outer file system.
    places = (Remote(url, files, name, _local_members(url) or location.local) for name, url in urls.items())
    return list(_of_one_format(places, location))


def _files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in a folder and in the folders below it. Links are followed.

    A link to a folder that contains the link is skipped. Names that begin with `_` or `.` are skipped, as in
    pyarrow.dataset.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir() and not _is_store(entry.name):
                yield from _files_below(Path(entry.path), (*above, real))
            else:
                yield Path(entry.path)


def _of_one_format(locations: Iterable[Location], source: Location) -> Iterator[Location]:
    """Yield files, and check that all are files of rows in one format."""
    first: Location | None = None
    for location in locations:
        if isinstance(location, Path):
            _check(location)
        format_name = format_of(location.name).name
        if format_name is None:
            raise ValueError(
                f"the name of every file in {source} must end in one of {', '.join(FORMATS)}, got {location}: choose "
                f"files with a pattern, such as {_pattern(source)}"
            )
        first = first or location
        if format_name != format_of(first.name).name:
            raise ValueError(
                f"all files in {source} must have one format, got {first} and {location}: choose files with a pattern, "
                f"such as {_pattern(source)}, or give a list"
            )
        yield location


def _pattern(source: Location) -> str:
    folder = re.split(r"/[^/]*[*?\[]", str(source))[0].rstrip("/")
    return repr(f"{folder}/*.parquet")


def _check(path: Path) -> Path:
    """Return a path; an error unless it is a file or a zarr store."""
    if path.is_file() or (path.is_dir() and _is_store(path.name)):
        return path
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist")
    raise ValueError(f"rows are read from files and folders, got {path}, which is neither")


def _is_store(name: str) -> bool:
    return format_of(name) == Format("zarr", None)


def _store_of(name: str) -> str:
    """Return the zarr store that a file is part of, or the file if there is none."""
    parts = name.split("/")
    end = next((i for i, part in enumerate(parts) if _is_store(part)), len(parts))
    return "/".join(parts[: end + 1])


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _is_ignored(parts: tuple[str, ...], source: tuple[str, ...]) -> bool:
    """Return whether a matched file is hidden, or inside a zarr store.

    Hidden files are not ignored if the pattern has them, as `_*` does.
    """
    matched = [part for part in parts if part not in source]
    has_hidden = any(_is_hidden(part) and glob.has_magic(part) for part in source)
    return any(map(_is_store, matched[:-1])) or (any(map(_is_hidden, matched)) and not has_hidden)


def _is_in_cycle(folder: Path) -> bool:
    """Return whether a path goes through a link to a folder that contains the link."""
    reals = [os.path.realpath(parent) for parent in (folder, *folder.parents)]
    return len(set(reals)) < len(reals)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part)
