"""Reader of data frames and Arrow tables in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastgmm.data.targets import files_behind

from .arrow_columns import arrow
from .tables import ROWS_PER_BATCH, TableReader


class FrameReader(TableReader):
    """Rows of a data frame or an Arrow table in memory."""

    is_fixed = False

    def __init__(self, frame: Any, **options: Any):
        pa, has_names = arrow(), True
        # Looked for before the conversion, which copies columns that are not contiguous.
        files = files_behind(frame)
        try:
            if hasattr(frame, "index") and hasattr(frame, "iloc"):  # pandas, whose index is not a feature
                has_names = all(isinstance(name, str) for name in frame.columns)
                if not has_names and options.get("columns") is not None:
                    raise ValueError("the names of the columns of a data frame must be strings to choose columns=")
                self.table = pa.Table.from_pandas(frame, preserve_index=False)
            else:
                self.table = pa.table(frame)
        except pa.ArrowException as error:
            raise ValueError(f"the data frame must hold numbers: {error}") from None
        super().__init__("the data frame", self.table.schema, has_names=has_names, **options)
        self.n_samples = self.table.num_rows
        self.files = files

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        yield from self.table.select(names).to_batches(max_chunksize=ROWS_PER_BATCH)
