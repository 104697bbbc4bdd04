"""Reader of CSV files, by way of pyarrow, with Python's own `csv` to find where an error is."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .columns import Column, arrow
from .files import Unchanged
from .locations import Location, format_of, local_files, open_binary
from .tables import TableReader, unreadable

# What pyarrow reads at a time, unless lines are so long that few would fit.
READ_BYTES = 1 << 20
# A line of more characters is none: a file that has one is not a table.
LONGEST_LINE = 1 << 28
# Records that are searched for an error at a time.
SEARCHED = 4096


class Record(NamedTuple):
    """A line of fields, or several lines if a quoted field has line breaks; the number of the first, from 1."""

    line: int
    fields: list[str]


class CsvReader(TableReader):
    """Rows of a CSV file.

    Parameters
    ----------
    path : Location
    header : bool or None
        Whether the first line has names. If None it must have, and must not consist of numbers.
    delimiter : str
    **options
        As for `TableReader`.
    """

    def __init__(self, path: Location, *, header: bool | None = None, delimiter: str = ",", **options: Any):
        arrow()
        self.file: Unchanged[Location] = Unchanged(path)
        self.about, self.delimiter = str(path), delimiter
        self.compression = format_of(path.name).compression
        self.kinds: dict[str, Any] = {}  # of the columns that are read, once it is known which these are
        with contextlib.closing(self._records()) as records:
            try:
                first = next(records, None)
            except Exception as error:
                raise unreadable(self.about, error) from error
            if first is None:
                raise ValueError(f"{path} is empty: there is no line with the names of columns")
            self.header, self.has_names = first, self._has_names(first, header)
            try:
                second = next(records, None)
            except Exception:  # a field that is too long for Python's reader, or what pyarrow will say
                second = Record(0, ["x" * READ_BYTES])
        self.has_rows = second is not None or not self.has_names
        lines = [first] if second is None else [first, second]
        # Eight lines and more in each piece, of up to four bytes a character.
        self.block_bytes = max(READ_BYTES, *(32 * sum(len(field) + 1 for field in line.fields) for line in lines))
        schema = self._schema(first)
        super().__init__(self.about, schema, has_names=self.has_names, **options)
        self.kinds = {column.name: self._kind(schema.field(column.name).type) for column in self.wanted}
        self.positions = {column.name: schema.get_field_index(column.name) for column in self.wanted}
        self.files = local_files(path)

    def _has_names(self, first: Record, header: bool | None) -> bool:
        """Return whether the first line has names; ValueError if that cannot be known."""
        number = next(filter(_is_value, first.fields), None) if header is None else None
        if number is not None:
            raise ValueError(
                f"the first line of {self.about} should have names of columns, but line {first.line} has {number}: "
                "give header=False if it is a row, header=True if that is a name"
            )
        if header is not False and any(map(_is_undecoded, first.fields)):
            raise ValueError(
                f"names of columns should be UTF-8 text, but those in line {first.line} of {self.about} are not; "
                "convert the file"
            )
        return header is not False

    def _schema(self, first: Record) -> Any:
        """Return the names of the columns and the types that their first values have."""
        pa = arrow()
        if not self.has_rows:
            return pa.schema([(name, pa.null()) for name in first.fields])
        try:
            with self._opened() as opened:
                return opened.schema
        except Exception as error:
            raise self.explain(error, 0) from error

    @contextlib.contextmanager
    def _stream(self) -> Iterator[Any]:
        """Return the bytes of the file, decompressed."""
        with contextlib.ExitStack() as keep:
            raw = keep.enter_context(open_binary(self.file.check()))
            if self.compression is None:
                yield raw
            elif self.compression == "xz":
                import lzma

                yield keep.enter_context(lzma.open(raw))
            elif self.compression == "zip":
                archive = keep.enter_context(zipfile.ZipFile(raw))
                if len(archive.namelist()) != 1:
                    raise ValueError(f"{self.about} should hold one file, but holds {archive.namelist()}")
                yield keep.enter_context(archive.open(archive.namelist()[0]))
            else:
                yield keep.enter_context(arrow().CompressedInputStream(raw, self.compression))

    @contextlib.contextmanager
    def _opened(self, **convert: Any) -> Iterator[Any]:
        """Return the file as pyarrow reads it."""
        from pyarrow import csv as arrow_csv

        options = {
            "read_options": arrow_csv.ReadOptions(
                block_size=self.block_bytes, autogenerate_column_names=not self.has_names
            ),
            "parse_options": arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            "convert_options": arrow_csv.ConvertOptions(**convert),
        }
        with contextlib.ExitStack() as keep:
            path = self.file.check()
            is_plain = isinstance(path, Path) and self.compression is None
            source = path if is_plain else keep.enter_context(self._stream())
            yield keep.enter_context(arrow_csv.open_csv(source, **options))

    @staticmethod
    def _kind(first: Any) -> Any:
        """Return the type to read a column as, by that of its first values."""
        return first if arrow().types.is_boolean(first) else arrow().float64()

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        if not self.has_rows:
            return
        with self._opened(include_columns=names, column_types=self.kinds) as opened:
            yield from opened

    def _records(self) -> Generator[Record, None, None]:
        """Yield the records that are not blank."""
        with self._stream() as stream:
            binary: Any = stream if isinstance(stream, io.IOBase) else io.BufferedReader(stream)
            # What is no UTF-8 is kept, to be shown in messages.
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(_lines(text, self.about), delimiter=self.delimiter)
            line = 1
            for fields in reader:
                if fields:
                    yield Record(line, fields)
                line = reader.line_num + 1

    def _rows(self, first: int) -> Iterator[Record]:
        """Yield the records of rows, from a row on."""
        return itertools.islice(self._records(), first + self.has_names, None)

    def where(self, row: int) -> str:
        """Return in words where a row is; looks for its line in the file, as only this tells."""
        try:
            return f"line {next(self._rows(row)).line} of {self.about}"
        except Exception:  # whatever is wrong, a message is being made already
            return f"row {row} of {self.about}"

    def explain(self, error: Exception, row: int) -> Exception:
        if isinstance(error, arrow().ArrowInvalid):
            with contextlib.suppress(Exception):  # what pyarrow says is shown if no more can be found
                if problem := next(self._problems(row), None):
                    return ValueError(f"{self.about} cannot be read: {problem}")
        return unreadable(self.about, error)

    def _column(self, name: str, schema: Any) -> Column:
        try:
            return super()._column(name, schema)
        except ValueError:
            at = schema.get_field_index(name)
            if problem := next(self._problems(0, {at: (name, arrow().float64())}), None):
                raise ValueError(
                    f"column {name!r} of {self.about} should hold numbers, but {problem}; choose others with columns="
                ) from None
            raise

    def _problems(self, row: int, wanted: dict[int, tuple[str, Any]] | None = None) -> Iterator[str]:
        """Yield in words what is wrong with rows, from a row on; `wanted` has the names and types of columns."""
        if wanted is None:
            wanted = {self.positions[name]: (name, kind) for name, kind in self.kinds.items()}
        records = self._rows(row)
        n_fields, hint = len(self.header.fields), ""
        if n_fields == 1 and (other := next((c for c in ",;\t|" if c in self.header.fields[0]), None)):
            hint = f" (fields should be separated by {self.delimiter!r}, but there is {other!r})"
        while some := list(itertools.islice(records, SEARCHED)):
            for record in some:
                if len(record.fields) != n_fields:
                    yield f"line {record.line} has {len(record.fields)} fields, but there should be {n_fields}{hint}"
                    return
            for at, (name, kind) in wanted.items():
                if not _converts([record.fields[at] for record in some], kind):
                    for record in some:
                        if not _converts([record.fields[at]], kind):
                            yield f"line {record.line} holds {record.fields[at]!r} in column {name!r}{hint}"


def _lines(text: Any, about: str) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"{about} is no CSV file: it has a line of more than {LONGEST_LINE} characters")
        yield line


def _is_value(text: str) -> bool:
    """Return whether a text is more likely to be in a row than to be the name of a column."""
    text = text.strip().lower()
    try:
        int(text, 16) if text.startswith("0x") else float(text)
    except ValueError:
        return text in {"true", "false"}
    return "_" not in text


def _is_undecoded(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _converts(texts: list[str], kind: Any) -> bool:
    """Return whether pyarrow takes texts for values of a type."""
    from pyarrow import csv as arrow_csv

    lines = io.StringIO()
    csv.writer(lines, quoting=csv.QUOTE_ALL).writerows([text] for text in texts)
    encoded = lines.getvalue().encode("utf-8", "surrogateescape")
    options = {
        "read_options": arrow_csv.ReadOptions(column_names=["x"], block_size=max(READ_BYTES, 2 * len(encoded))),
        "parse_options": arrow_csv.ParseOptions(newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(column_types={"x": kind}),
    }
    try:
        arrow_csv.read_csv(io.BytesIO(encoded), **options)
    except arrow().ArrowInvalid:
        return False
    return True
