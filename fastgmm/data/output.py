"""Files that are written completely or not at all, and results in them: ``.npy`` and Parquet."""

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
    """A new file that takes the place of another one later; see `replacing`.

    Errors name that other file. After an error, or `discard`, what is written is dropped: then a writer of another
    library can still be closed, and does not fail a second time when it is collected.
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
        """Drop whatever is written from now on."""
        self._discarded = True

    def flush_to_disk(self) -> None:
        """Return when what was written would outlive a power failure."""
        with self.named_errors():
            os.fsync(self.fileno())

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Give errors the name of the file that is to be replaced."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, while writing", str(self.target)) from None


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[NewFile]:
    """Open a file that takes the place of `target` if the block ends well, and is removed if it does not.

    It keeps the permissions of a file that it replaces; those of a new one are the umask's. `target` is no symbolic
    link (see `check_target`).

    Raises
    ------
    OSError
        With the name of `target`, if it cannot be written.
    """
    with _beside(target) as file:
        _keep_permissions(file, target)  # before there is anything to read in it
        yield file
        file.flush_to_disk()
        file.close()
        with file.named_errors():
            os.replace(file.path, target)


def check_writable(target: Path) -> None:
    """Raise OSError, with the name of the file, if no file can be made beside it."""
    with _beside(target):
        pass


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[NewFile]:
    """Make a file beside another one, under a short name that no other process uses, and remove it at the end."""
    file = NewFile(target.with_name(f".fastgmm-{uuid.uuid4().hex[:12]}.part"), target)
    try:
        with file:
            yield file
    finally:
        file.path.unlink(missing_ok=True)


def _keep_permissions(file: NewFile, target: Path) -> None:
    """Give a file the owner, group and mode of the one that it replaces, as far as that is allowed."""
    with contextlib.suppress(OSError):
        status = target.stat()
        with contextlib.suppress(OSError):
            shutil.chown(file.path, status.st_uid, status.st_gid)
        shutil.copymode(target, file.path)


def check_out(out: str | os.PathLike, in_use: Mapping[str, Sequence[Path]]) -> Path:
    """Return the file that results can be written to; errors as those of `check_target`."""
    if Path(out).suffix.lower() not in WRITERS:
        raise ValueError(f"out should be a file named *{' or *'.join(WRITERS)}, but is {str(out)!r}")
    return check_target(out, "out", in_use)


def write(out: str | os.PathLike, target: Path, results: Results, n_samples: int, name: str) -> None:
    """Write results, (n,) or (n, K), of blocks of rows, n_samples in all; in Parquet as columns `name` or `name`_k.

    `out` is the name that `target` was given by. Its suffix says what to write.
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
            writer.close()  # or it is when it is collected, after the file, with a traceback of its own
        raise


WRITERS: dict[str, Callable[[NewFile, Results, int, str], None]] = {".npy": _write_npy, ".parquet": _write_parquet}
