"""Readers of tables: Parquet and CSV, by way of pyarrow."""

from __future__ import annotations

import abc
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.blocks import Cursor

from .files import Unchanged, choose, float_dtype

# Rows that are decoded at a time: their columns stay in cache until they have been copied. With four times as many rows
# and bytes sweeps took up to 5 % more of the processors' time.
BATCH_ROWS = 16_384
READ_BYTES = 1 << 18
# Up to so many columns become rows here, and others in the kernels: with 6 a sweep took 5 % less so, with 48 15 % more.
FEW_FEATURES = 16


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ImportError("Reading Parquet or CSV needs pyarrow: pip install 'fastgmm[io]'") from None
    return pyarrow


class TableReader(abc.ABC):
    """What Parquet and CSV files have in common; see `blocks.Reader`."""

    any_thread = True
    is_fixed = True
    n_samples: int | None = None

    def __init__(
        self,
        path: Path,
        schema: Any,
        *,
        columns: Sequence[str] | None = None,
        weight: Any = None,
        key: str | None = None,
        dtype: DTypeLike | None = None,
    ):
        if key is not None:
            raise ValueError(f"key is for HDF5 and zarr; what of {path} is read is said with columns=")
        if weight is not None and not isinstance(weight, str):
            raise ValueError(f"the weight of rows in {path} should be the name of a column, but is {weight!r}")
        self.file, self.weight = Unchanged(path), weight
        self.names = choose(self._named(schema, columns, path), columns, weight, str(path))
        self.files: tuple[Path, ...] = (path,)
        self.feature_names: tuple[str, ...] | None = tuple(self.names)
        types = _arrow().types
        for name in [*self.names, *([] if weight is None else [weight])]:
            kind = schema.field(name).type
            # Of no rows at all there is no telling.
            numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
            if not any(is_one(kind) for is_one in numbers):
                raise ValueError(
                    f"column {name!r} of {path} should hold numbers, but holds {kind}; choose others with columns="
                )
        self.n_features, self.weighted = len(self.names), weight is not None
        self.order = "C" if self.n_features <= FEW_FEATURES else "F"
        single = all(schema.field(name).type == _arrow().float32() for name in self.names)
        self.dtype = float_dtype(dtype, [np.dtype(np.float32 if single else np.float64)])

    @staticmethod
    def _named(schema: Any, columns: Sequence[str] | None, path: Path) -> list[str]:
        """The names of columns that may be features; an index that pandas has written is none unless asked for."""
        if columns is not None:
            return schema.names
        if "" in schema.names:
            raise ValueError(
                f"column {schema.names.index('')} of {path} has no name, like an index that pandas has written; say "
                "which are features with columns="
            )
        about = schema.pandas_metadata or {}
        index = [name for name in about.get("index_columns", ()) if isinstance(name, str)]
        return [name for name in schema.names if name not in index]

    @abc.abstractmethod
    def batches(self) -> Iterator[Any]:
        """Record batches with the columns of `wanted`."""

    @property
    def wanted(self) -> list[str]:
        """Features, and the weight at the end."""
        return self.names if self.weight is None else [*self.names, self.weight]

    def open(self) -> Cursor:
        return TableCursor(self)

    def where(self, row: int) -> str:
        return f"row {row} of {self.file.path}"


class TableCursor:
    """A place in a table."""

    def __init__(self, reader: TableReader):
        self.reader, self.batches = reader, reader.batches()
        self.columns: list[NDArray] = [np.empty(0)]
        self.row = 0

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        while self.row == len(self.columns[0]):
            try:
                batch = next(self.batches, None)
            except _arrow().ArrowInvalid as error:
                raise ValueError(f"{self.reader.file.path} cannot be read: {error}") from None
            if batch is None:
                return 0
            # Missing values become NaN.
            self.columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in self.reader.wanted]
            self.row = 0
        n = min(len(X_out), len(self.columns[0]) - self.row)
        here = slice(self.row, self.row + n)
        for d in range(X_out.shape[1]):
            X_out[:n, d] = self.columns[d][here]
        if weights_out is not None:
            weights_out[:n] = self.columns[-1][here]
        self.row += n
        return n

    def close(self) -> None:
        if hasattr(self.batches, "close"):
            self.batches.close()


class ParquetReader(TableReader):
    """Rows of a Parquet file."""

    def __init__(self, path: Path, **options: Any):
        _arrow()
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as opened:
                super().__init__(path, opened.schema_arrow, **options)
                groups = [opened.metadata.row_group(g).num_rows for g in range(opened.metadata.num_row_groups)]
        except _arrow().ArrowInvalid as error:
            raise ValueError(f"{path} is no Parquet file, or is cut short: {error}") from None
        self.n_samples = sum(groups)
        self.ends = list(itertools.accumulate(groups))

    def batches(self) -> Iterator[Any]:
        from pyarrow import parquet

        # One row group after the other, through a small buffer: 27 MB of memory for a file of 596 MB, where all at once
        # held 617 MB.
        with parquet.ParquetFile(self.file.check(), buffer_size=READ_BYTES, pre_buffer=False) as opened:
            for group in range(opened.num_row_groups):
                yield from opened.iter_batches(BATCH_ROWS, row_groups=[group], columns=self.wanted, use_threads=False)

    def where(self, row: int) -> str:
        group = bisect_right(self.ends, row)
        return f"row {row}, row group {group} of {self.file.path}"


class CsvReader(TableReader):
    """Rows of a CSV file whose first line has names."""

    def __init__(self, path: Path, **options: Any):
        from_arrow = _arrow()
        from pyarrow import csv

        try:
            with csv.open_csv(path) as opened:
                super().__init__(path, opened.schema, **options)
        except from_arrow.ArrowInvalid as error:
            raise ValueError(f"{path} is no CSV file with a line of names: {error}") from None

    def batches(self) -> Iterator[Any]:
        from pyarrow import csv

        double = _arrow().float64()
        convert = csv.ConvertOptions(include_columns=self.wanted, column_types=dict.fromkeys(self.wanted, double))
        with csv.open_csv(self.file.check(), convert_options=convert) as opened:
            yield from opened

    def where(self, row: int) -> str:
        return f"line {row + 2} of {self.file.path}"
