"""The common part of readers of tables: columns of Arrow tables as rows."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgmm.data.block_source import Cursor

from .arrow_columns import Column, column_of
from .files import choose, float_dtype

# Rows that are decoded at a time. Their columns stay in cache until they have been copied. With four times the rows and
# bytes a pass took up to 5 % more processor time; see docs/development/decisions/data.md.
ROWS_PER_BATCH = 16_384
# Blocks of tables with at most this number of features are in C order, which takes a transposition here. Blocks of more
# features are in F order, and the kernels transpose them. With 6 features C order took 5 % less time, with 48 features
# 15 % more; see docs/development/decisions/data.md.
MAX_FEATURES_IN_C_ORDER = 16


class TableReader(abc.ABC):
    """Base of the readers of tables; see `block_source.Reader`.

    Parameters
    ----------
    about : str
        The name of the table in messages.
    schema : pyarrow.Schema
    columns, weight, key, dtype
        As in `fastgmm.rows`. `weight` is the name of a column, or its position.
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
            raise ValueError(f"key must be None, as {about} is a table, got {key!r}: choose columns with columns=")
        self.about = about
        names = self._named(schema, columns)
        if isinstance(weight, int):
            (weight,) = choose(schema.names, [weight], None, about)
        self.columns = [self._column(name, schema) for name in choose(names, columns, weight, about)]
        self.weight = None if weight is None else self._column(weight, schema)
        if self.weight is not None and self.weight.length is not None:
            raise ValueError(f"the weights in {about} must be numbers, but column {weight!r} holds vectors")
        feature_names = [name for column in self.columns for name in column.feature_names]
        if len(set(feature_names)) < len(feature_names):
            raise ValueError(f"features of {about} must have different names, got {feature_names}")
        self.feature_names = tuple(feature_names) if has_names else None
        self.n_features, self.weighted = len(feature_names), self.weight is not None
        self.order = "C" if self.n_features <= MAX_FEATURES_IN_C_ORDER else "F"
        kinds = [np.dtype(np.float32 if column.is_single else np.float64) for column in self.columns]
        self.dtype = float_dtype(dtype, kinds)

    def _named(self, schema: Any, columns: Any) -> list[str]:
        """Return the names of the columns that may be features.

        The index of a pandas data frame is one only if `columns` has it.
        """
        if columns is not None:
            return schema.names
        if "" in schema.names:
            raise ValueError(
                f"all columns of {self.about} must have names, but column {schema.names.index('')} has none. It may be "
                "an index that pandas has written. Choose the features with columns="
            )
        metadata = schema.pandas_metadata or {}
        index = [name for name in metadata.get("index_columns", ()) if isinstance(name, str)]
        return [name for name in schema.names if name not in index]

    def _column(self, name: str, schema: Any) -> Column:
        return column_of(name, schema.field(name).type, self.about, lambda: self._first_arrays(name))

    def _first_arrays(self, name: str) -> Iterable[Any]:
        """Yield the values of a column, from the beginning."""
        return (batch.column(name) for batch in self.batches([name]))

    @abc.abstractmethod
    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield record batches with the columns of these names."""

    def explain(self, error: Exception, row: int) -> Exception:
        """Return the error to raise in place of one that reading has raised.

        `row` is the first row that was being read.
        """
        return unreadable(self.about, error)

    @property
    def read_columns(self) -> list[Column]:
        """Return the columns that are read: the features, and the weight at the end."""
        return self.columns if self.weight is None else [*self.columns, self.weight]

    def open(self) -> Cursor:
        return TableCursor(self)

    def where(self, row: int) -> str:
        return f"row {row} of {self.about}"


class TableCursor:
    """A position in a table."""

    def __init__(self, reader: TableReader):
        self.reader, self.columns = reader, reader.read_columns
        self.batches = reader.batches([column.name for column in self.columns])
        # The positions in a row of the features of each column.
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
            self.values = [c.numbers(batch.column(c.name), self._where) for c in self.columns]
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
    """Return an error with the name of the table.

    It is the error itself if that has the name already, or if the system or a missing package has caused it.
    """
    is_of_system = isinstance(error, OSError) and error.errno is not None
    if is_of_system or isinstance(error, ImportError | MemoryError) or about in str(error):
        return error
    return ValueError(f"{about} cannot be read: {' '.join(str(error).split())}")
