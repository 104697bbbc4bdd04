"""Results that are written block after block: to ``.npy`` or Parquet, complete or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Results = Iterator[NDArray]


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of another one when the block ends well, and is gone if it does not."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_out(out: str | os.PathLike, read: Sequence[Path]) -> Path:
    """A path that results can be written to; ValueError if not, or if it is among the files that rows are read from."""
    path = Path(out)
    if any(path.absolute() == other.absolute() for other in read):
        raise ValueError(f"out should be another file than the rows are read from, but is {str(path)!r}")
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"out should be a file named *{' or *'.join(WRITERS)}, but is {str(path)!r}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"out should be a file in a folder that exists, but is {str(path)!r}")
    return path


def write(path: Path, results: Results, n_samples: int, name: str) -> None:
    """Write results, (n,) or (n, K), of blocks of rows, n_samples in all; in Parquet as columns `name` or `name`_k."""
    with replaced(path) as beside:
        WRITERS[path.suffix.lower()](beside, results, n_samples, name)


def _write_npy(path: Path, results: Results, n_samples: int, name: str) -> None:
    with path.open("wb") as file:
        for i, block in enumerate(results):
            if i == 0:
                shape = (n_samples, *block.shape[1:])
                header: dict[str, Any] = {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(file, header)
            file.write(np.ascontiguousarray(block).data)
        keep(file)


def _write_parquet(path: Path, results: Results, n_samples: int, name: str) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError("Writing Parquet needs pyarrow: pip install 'fastgmm[io]'") from None
    writer = None
    with path.open("wb") as file:
        for block in results:
            columns = {name: block} if block.ndim == 1 else {f"{name}_{k}": block[:, k] for k in range(block.shape[1])}
            table = pa.table(columns)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        keep(file)


def keep(file: Any) -> None:
    """See to it that what has been written outlives the machine's power."""
    file.flush()
    os.fsync(file.fileno())


WRITERS: dict[str, Callable[[Path, Results, int, str], None]] = {".npy": _write_npy, ".parquet": _write_parquet}
