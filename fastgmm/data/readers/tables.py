"""Readers of tables: Parquet files and data frames, by way of pyarrow."""

from __future__ import annotations

import abc
import contextlib
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_source import Cursor
from fastgmm.data.targets import files_behind

from .columns import Column, arrow, column_of
from .files import Unchanged, choose, float_dtype
from .locations import Location, Remote, local_files, readable

# Rows that are decoded at a time: their columns stay in cache until they have been copied. With four times as many rows
# and bytes sweeps took up to 5 % more of the processors' time.
BATCH_ROWS = 16_384
READ_BYTES = 1 << 18
# Up to so many columns become rows here, and others in the kernels: with 6 a pass took 5 % less so, with 48 15 % more.
FEW_FEATURES = 16


class TableReader(abc.ABC):
    """Base of the readers of tables; see `blocks.Reader`.

    Parameters
    ----------
    about : str
        What messages call the table.
    schema : pyarrow.Schema
    columns, weight, key, dtype
        As for `fastgmm.rows`; `weight` is the name of a column, or its position.
    has_names : bool
        Whether the features have names.
    """

    any_thread = True
    is_fixed = True
    n_samples: int | None = None
    files: tuple[Path, ...] = ()

    def __init__(
        self,
        about: str,
        schema: Any,
        *,
        columns: Any = None,
        weight: Any = None,
        key: str | None = None,
        dtype: DTypeLike | None = None,
        has_names: bool = True,
    ):
        if key is not None:
            raise ValueError(f"key is for HDF5 and zarr; what of {about} is read is said with columns=")
        self.about = about
        names = self._named(schema, columns)
        if isinstance(weight, int):
            (weight,) = choose(schema.names, [weight], None, about)
        self.columns = [self._column(name, schema) for name in choose(names, columns, weight, about)]
        self.weight = None if weight is None else self._column(weight, schema)
        if self.weight is not None and self.weight.length is not None:
            raise ValueError(f"the weights of rows in {about} should be numbers, but {weight!r} holds vectors")
        feature_names = [name for column in self.columns for name in column.feature_names]
        if len(set(feature_names)) < len(feature_names):
            raise ValueError(f"features of {about} must have different names, but have {feature_names}")
        self.feature_names = tuple(feature_names) if has_names else None
        self.n_features, self.weighted = len(feature_names), self.weight is not None
        self.order = "C" if self.n_features <= FEW_FEATURES else "F"
        kinds = [np.dtype(np.float32 if column.is_single else np.float64) for column in self.columns]
        self.dtype = float_dtype(dtype, kinds)

    def _named(self, schema: Any, columns: Any) -> list[str]:
        """Return the names of columns that may be features; pandas' index is none unless it is asked for."""
        if columns is not None:
            return schema.names
        if "" in schema.names:
            raise ValueError(
                f"column {schema.names.index('')} of {self.about} has no name, like an index that pandas has written; "
                "say which are features with columns="
            )
        about = schema.pandas_metadata or {}
        index = [name for name in about.get("index_columns", ()) if isinstance(name, str)]
        return [name for name in schema.names if name not in index]

    def _column(self, name: str, schema: Any) -> Column:
        return column_of(name, schema.field(name).type, self.about, lambda: self._first_arrays(name))

    def _first_arrays(self, name: str) -> Iterable[Any]:
        """Return the values of a column, from the beginning."""
        return (batch.column(name) for batch in self.batches([name]))

    @abc.abstractmethod
    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with some columns."""

    def explain(self, error: Exception, row: int) -> Exception:
        """Return what to raise in place of an error while rows from `row` on were read."""
        return unreadable(self.about, error)

    @property
    def wanted(self) -> list[Column]:
        """Columns that are read: the features, and the weight at the end."""
        return self.columns if self.weight is None else [*self.columns, self.weight]

    def open(self) -> Cursor:
        return TableCursor(self)

    def where(self, row: int) -> str:
        return f"row {row} of {self.about}"


class TableCursor:
    """A place in a table."""

    def __init__(self, reader: TableReader):
        self.reader, self.wanted = reader, reader.wanted
        self.batches = reader.batches([column.name for column in self.wanted])
        # Where each column's features are in a row.
        ends = list(itertools.accumulate((column.n_features for column in reader.columns), initial=0))
        self.places = [
            begin if column.length is None else slice(begin, begin + column.n_features)
            for column, begin in zip(reader.columns, ends, strict=False)
        ]
        self.values: list[NDArray] = [np.empty(0)]
        self.row = self.n_before = 0

    def fill(self, X_out: NDArray, weights_out: NDArray | None) -> int:
        while self.row == len(self.values[0]):
            self.n_before += self.row
            try:
                batch = next(self.batches, None)
            except Exception as error:
                raise self.reader.explain(error, self.n_before) from error
            if batch is None:
                self.row, self.values = 0, [np.empty(0)]
                return 0
            self.values = [c.numbers(batch.column(c.name), self._where) for c in self.wanted]
            self.row = 0
        n = min(len(X_out), len(self.values[0]) - self.row)
        here = slice(self.row, self.row + n)
        for place, values in zip(self.places, self.values, strict=False):
            X_out[:n, place] = values[here]
        if weights_out is not None:
            weights_out[:n] = self.values[-1][here]
        self.row += n
        return n

    def _where(self, row: int) -> str:
        return self.reader.where(self.n_before + row)

    def close(self) -> None:
        if hasattr(self.batches, "close"):
            self.batches.close()


def unreadable(about: str, error: Exception) -> Exception:
    """Return an error that names the table; the error itself if it does, or if it is the system's or a package's."""
    is_of_system = isinstance(error, OSError) and error.errno is not None
    if is_of_system or isinstance(error, ImportError | MemoryError) or about in str(error):
        return error
    return ValueError(f"{about} cannot be read: {' '.join(str(error).split())}")


class ParquetReader(TableReader):
    """Rows of a Parquet file."""

    def __init__(self, path: Location, **options: Any):
        arrow()
        self.file: Unchanged[Location] = Unchanged(path)
        try:
            with self._opened() as opened:
                metadata = opened.metadata
                self.groups = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
                schema = opened.schema_arrow
        except Exception as error:
            raise unreadable(f"{path} is no Parquet file, or is cut short: it", error) from error
        super().__init__(str(path), schema, **options)
        self.n_samples = sum(self.groups)
        self.ends = list(itertools.accumulate(self.groups))
        self.files = local_files(path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        from pyarrow import parquet

        path, keep = self.file.check(), contextlib.ExitStack()
        # One row group after the other, through a small buffer: 27 MB of memory for a file of 596 MB, where all at once
        # held 617 MB. From elsewhere a whole row group is asked for at once, as each request may take long.
        with keep:
            source = keep.enter_context(readable(path)) if isinstance(path, Remote) else path
            options = {"buffer_size": READ_BYTES, "pre_buffer": isinstance(path, Remote)}
            yield keep.enter_context(parquet.ParquetFile(source, **options))

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        with self._opened() as opened:
            for group in range(opened.num_row_groups):
                yield from opened.iter_batches(BATCH_ROWS, row_groups=[group], columns=names, use_threads=False)

    def where(self, row: int) -> str:
        group = bisect_right(self.ends, row)
        return f"row {row}, row group {group} of {self.about}"


class FrameReader(TableReader):
    """Rows of a data frame or an Arrow table in memory."""

    is_fixed = False

    def __init__(self, frame: Any, **options: Any):
        pa, has_names = arrow(), True
        # Before the conversion, which copies columns that are not contiguous.
        files = files_behind(frame)
        try:
            if hasattr(frame, "index") and hasattr(frame, "iloc"):  # of pandas, whose index is no feature
                has_names = all(isinstance(name, str) for name in frame.columns)
                if not has_names and options.get("columns") is not None:
                    raise ValueError("columns= needs a data frame whose columns are named by strings")
                self.table = pa.Table.from_pandas(frame, preserve_index=False)
            else:
                self.table = pa.table(frame)
        except pa.ArrowException as error:
            raise ValueError(f"the data frame should hold numbers: {error}") from None
        super().__init__("the data frame", self.table.schema, has_names=has_names, **options)
        self.n_samples = self.table.num_rows
        self.files = files

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        yield from self.table.select(names).to_batches(max_chunksize=BATCH_ROWS)
