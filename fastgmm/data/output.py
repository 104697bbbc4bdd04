"""Files that are written completely or not at all, and results in files."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .targets import check_target

Results = Iterator[NDArray]


class NewFile(io.FileIO):
    """A new file that will replace another file; see `replacing`.

    Errors have the name of the file that is to be replaced. After an error, or after `discard`, writing has no effect.
    So the writer of another library can be closed without a second error.
    """

    def __init__(self, path: Path, target: Path):
        self.path, self.target, self._discarded = path, target, False
        with self.named_errors():
            super().__init__(path, "xb")

    def write(self, data: Any) -> int:
        """Write all of the bytes."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        try:
            with self.named_errors():
                while rest and not self._discarded:
                    rest = rest[super().write(rest) :]
        except OSError:
            self.discard()
            raise
        return n_bytes

    def discard(self) -> None:
        """Make all further writing have no effect."""
        self._discarded = True

    def flush_to_disk(self) -> None:
        """Wait until the written bytes are on the disk, safe from a power failure."""
        with self.named_errors():
            os.fsync(self.fileno())

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Raise errors with the name of the file that is to be replaced."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, while writing", str(self.target)) from None


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[NewFile]:
    """Open a file that replaces `target` at the end of the block.

    It is removed if the block raises an error.

    It gets the permissions of the file that it replaces, or those of the umask. `target` must not be a symbolic link;
    see `check_target`.

    Raises
    ------
    OSError
        With the name of `target`, if it cannot be written.
    """
    with _beside(target) as file:
        _copy_permissions(file, target)  # before it has content that others could read
        yield file
        file.flush_to_disk()
        file.close()
        with file.named_errors():
            os.replace(file.path, target)


def check_writable(target: Path) -> None:
    """Raise OSError, with the name of the file, if its folder cannot be written to."""
    with _beside(target):
        pass


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[NewFile]:
    """Open a file in the folder of another file, and remove it at the end.

    It has a short unique name.
    """
    file = NewFile(target.with_name(f".fastgmm-{uuid.uuid4().hex[:12]}.part"), target)
    try:
        with file:
            yield file
    finally:
        file.path.unlink(missing_ok=True)


def _copy_permissions(file: NewFile, target: Path) -> None:
    """Set the owner, group and mode of the replaced file, as far as the user may."""
    with contextlib.suppress(OSError):
        status = target.stat()
        with contextlib.suppress(OSError):
            shutil.chown(file.path, status.st_uid, status.st_gid)
        shutil.copymode(target, file.path)


def check_out(out: str | os.PathLike, in_use: Mapping[str, Sequence[Path]]) -> Path:
    """Return the file for results; raise the errors of `check_target`."""
    if Path(out).suffix.lower() not in WRITERS:
        raise ValueError(f"out must be a file named *{' or *'.join(WRITERS)}, got {str(out)!r}")
    return check_target(out, "out", in_use)


def write(out: str | os.PathLike, target: Path, results: Results, n_samples: int, name: str) -> None:
    """Write the results of blocks of rows to a file.

    Parameters
    ----------
    out : path
        The name that the user gave for `target`. Its suffix decides the format.
    target : Path
        The file that `check_out` returned.
    results : iterator of (n,) or (n, K) arrays
    n_samples : int
        Number of rows of all blocks.
    name : str
        Name of the column in Parquet files. Results with K columns have the names ``name_0`` to ``name_{K-1}``.
    """
    with replacing(target) as file:
        WRITERS[Path(out).suffix.lower()](file, results, n_samples, name)


def _write_npy(file: NewFile, results: Results, n_samples: int, name: str) -> None:
    for i, block in enumerate(results):
        if i == 0:
            shape = (n_samples, *block.shape[1:])
            header: dict[str, Any] = {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
        if block.size:
            file.write(np.ascontiguousarray(block).data)


def _write_parquet(file: NewFile, results: Results, n_samples: int, name: str) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError("Writing Parquet needs pyarrow: pip install 'fastgmm[io]'") from None
    writer = None
    try:
        for block in results:
            columns = {name: block} if block.ndim == 1 else {f"{name}_{k}": block[:, k] for k in range(block.shape[1])}
            table = pa.table(columns)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    except BaseException:
        file.discard()
        if writer is not None:
            writer.close()  # else the garbage collector closes it, after the file, which prints a traceback
        raise


WRITERS: dict[str, Callable[[NewFile, Results, int, str], None]] = {".npy": _write_npy, ".parquet": _write_parquet}
