"""Reader of Parquet files."""

from __future__ import annotations

import contextlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from .arrow_columns import arrow
from .files import Unchanged
from .locations import Location, Remote, local_files, readable
from .tables import ROWS_PER_BATCH, TableReader, unreadable

# Bytes of the buffer that a Parquet file is read through.
READ_BYTES = 1 << 18


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
            raise unreadable(f"{path} is not a Parquet file, or is truncated: it", error) from error
        super().__init__(str(path), schema, **options)
        self.n_samples = sum(self.groups)
        self.ends = list(itertools.accumulate(self.groups))
        self.files = local_files(path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        from pyarrow import parquet

        path = self.file.check()
        # A small buffer keeps the memory small: 27 MB for a file of 596 MB, instead of 617 MB; see
        # docs/development/decisions/data.md. Behind a URL a row group is requested at once, as a request may take long.
        options = {"buffer_size": READ_BYTES, "pre_buffer": isinstance(path, Remote)}
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(readable(path)) if isinstance(path, Remote) else path
            yield stack.enter_context(parquet.ParquetFile(source, **options))

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        with self._opened() as opened:
            for group in range(opened.num_row_groups):
                yield from opened.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=names, use_threads=False)

    def where(self, row: int) -> str:
        group = bisect_right(self.ends, row)
        return f"row {row}, row group {group} of {self.about}"
