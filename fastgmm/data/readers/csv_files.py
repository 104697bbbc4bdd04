"""Reader of CSV files with pyarrow.

Python's `csv` finds the place of an error.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .arrow_columns import Column, arrow
from .files import Unchanged
from .locations import Location, format_of, local_files, open_binary
from .tables import TableReader, unreadable

# Bytes that pyarrow reads at a time, more if lines are long.
READ_BYTES = 1 << 20
# Bytes of pyarrow's block for each character of the first two lines: eight lines of up to four bytes a character.
BYTES_PER_CHARACTER = 32
# Largest number of characters of a line. A file with a longer line is not a table.
MAX_LINE_CHARACTERS = 1 << 28
# Records that are searched for an error at a time.
RECORDS_PER_SEARCH = 4096
# Separators that a message suggests.
SEPARATORS = ",;\t|"


class Record(NamedTuple):
    """The fields of a row, and the number of its first line, from 1.

    A row has several lines if quoted fields have line breaks.
    """

    line: int
    fields: list[str]


class CsvReader(TableReader):
    """Rows of a CSV file.

    Parameters
    ----------
    path : Location
    header : bool or None
        Whether the first line has the names of the columns. None means that it does, and that no name may be a number.
    delimiter : str
    **options
        As for `TableReader`.
    """

    def __init__(self, path: Location, *, header: bool | None = None, delimiter: str = ",", **options: Any):
        arrow()
        self.file: Unchanged[Location] = Unchanged(path)
        self.about, self.delimiter = str(path), delimiter
        self.compression = format_of(path.name).compression
        # Types of the columns that are read, set below.
        self.kinds: dict[str, Any] = {}
        with contextlib.closing(self._records()) as records:
            try:
                first = next(records, None)
            except Exception as error:
                raise unreadable(self.about, error) from error
            if first is None:
                raise ValueError(f"{path} must have a line with the names of columns, but is empty")
            self.header, self.has_names = first, self._has_names(first, header)
            try:
                second = next(records, None)
            except Exception:  # the field is too long for Python's reader, or pyarrow will raise an error
                second = Record(0, ["x" * READ_BYTES])
        self.has_rows = second is not None or not self.has_names
        lines = [first] if second is None else [first, second]
        lengths = [sum(len(field) + 1 for field in line.fields) for line in lines]
        self.block_bytes = max(READ_BYTES, BYTES_PER_CHARACTER * max(lengths))
        schema = self._schema(first)
        super().__init__(self.about, schema, has_names=self.has_names, **options)
        self.kinds = {column.name: self._kind(schema.field(column.name).type) for column in self.read_columns}
        self.positions = {column.name: schema.get_field_index(column.name) for column in self.read_columns}
        self.files = local_files(path)

    def _has_names(self, first: Record, header: bool | None) -> bool:
        """Return whether the first line has names; ValueError if that is not clear."""
        number = next(filter(_is_value, first.fields), None) if header is None else None
        if number is not None:
            raise ValueError(
                f"the first line of {self.about} must have the names of the columns, but line {first.line} has "
                f"{number}: give header=False if the line is a row, or header=True if {number} is a name"
            )
        if header is not False and any(map(_is_undecoded, first.fields)):
            raise ValueError(
                f"names of columns must be UTF-8 text, but those in line {first.line} of {self.about} are not: convert "
                "the file to UTF-8"
            )
        return header is not False

    def _schema(self, first: Record) -> Any:
        """Return the names of the columns and the types of their first values."""
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
        """Open the file, to read its decompressed bytes."""
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open_binary(self.file.check()))
            if self.compression is None:
                yield raw
            elif self.compression == "xz":
                import lzma

                yield stack.enter_context(lzma.open(raw))
            elif self.compression == "zip":
                archive = stack.enter_context(zipfile.ZipFile(raw))
                if len(archive.namelist()) != 1:
                    raise ValueError(f"{self.about} must hold one file, got {archive.namelist()}")
                yield stack.enter_context(archive.open(archive.namelist()[0]))
            else:
                yield stack.enter_context(arrow().CompressedInputStream(raw, self.compression))

    @contextlib.contextmanager
    def _opened(self, **convert: Any) -> Iterator[Any]:
        """Open the file with pyarrow."""
        from pyarrow import csv as arrow_csv

        options = {
            "read_options": arrow_csv.ReadOptions(
                block_size=self.block_bytes, autogenerate_column_names=not self.has_names
            ),
            "parse_options": arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            "convert_options": arrow_csv.ConvertOptions(**convert),
        }
        with contextlib.ExitStack() as stack:
            path = self.file.check()
            is_plain = isinstance(path, Path) and self.compression is None
            source = path if is_plain else stack.enter_context(self._stream())
            yield stack.enter_context(arrow_csv.open_csv(source, **options))

    @staticmethod
    def _kind(first: Any) -> Any:
        """Return the type to read a column as, given the type of its first values."""
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
            # Bytes that are not UTF-8 are kept, as messages show them.
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(_lines(text, self.about), delimiter=self.delimiter)
            line = 1
            for fields in reader:
                if fields:
                    yield Record(line, fields)
                line = reader.line_num + 1

    def _rows(self, first: int) -> Iterator[Record]:
        """Yield the records of the rows from row `first` on."""
        return itertools.islice(self._records(), first + self.has_names, None)

    def where(self, row: int) -> str:
        """Return the line of a row, for error messages.

        The file is read again to find it.
        """
        try:
            return f"line {next(self._rows(row)).line} of {self.about}"
        except Exception:  # this is for the message of another error
            return f"row {row} of {self.about}"

    def explain(self, error: Exception, row: int) -> Exception:
        if isinstance(error, arrow().ArrowInvalid):
            with contextlib.suppress(Exception):  # if this fails, pyarrow's message is shown
                if problem := next(self._problems(row), None):
                    return ValueError(f"{self.about} cannot be read: {problem}")
        return unreadable(self.about, error)

    def _column(self, name: str, schema: Any) -> Column:
        try:
            return super()._column(name, schema)
        except ValueError:
            position = schema.get_field_index(name)
            if problem := next(self._problems(0, {position: (name, arrow().float64())}), None):
                raise ValueError(
                    f"column {name!r} of {self.about} must hold numbers, but {problem}: choose other columns with "
                    "columns="
                ) from None
            raise

    def _problems(self, row: int, columns: dict[int, tuple[str, Any]] | None = None) -> Iterator[str]:
        """Yield descriptions of invalid fields, in the rows from `row` on.

        `columns` has the name and the type of each column, by its position.
        """
        if columns is None:
            columns = {self.positions[name]: (name, kind) for name, kind in self.kinds.items()}
        rows = self._rows(row)
        n_fields, hint = len(self.header.fields), ""
        if n_fields == 1 and (other := next((c for c in SEPARATORS if c in self.header.fields[0]), None)):
            hint = f" (fields must be separated by {self.delimiter!r}, got {other!r})"
        while records := list(itertools.islice(rows, RECORDS_PER_SEARCH)):
            for record in records:
                if len(record.fields) != n_fields:
                    yield f"line {record.line} has {len(record.fields)} fields instead of {n_fields}{hint}"
                    return
            for position, (name, kind) in columns.items():
                if not _converts([record.fields[position] for record in records], kind):
                    for record in records:
                        if not _converts([record.fields[position]], kind):
                            yield f"line {record.line} holds {record.fields[position]!r} in column {name!r}{hint}"


def _lines(text: Any, about: str) -> Iterator[str]:
    while line := text.readline(MAX_LINE_CHARACTERS):
        if len(line) == MAX_LINE_CHARACTERS:
            raise ValueError(f"{about} is not a CSV file: it has a line of more than {MAX_LINE_CHARACTERS} characters")
        yield line


def _is_value(text: str) -> bool:
    """Return whether a text looks like a value, and not like the name of a column."""
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
    """Return whether pyarrow can convert texts to a type."""
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
