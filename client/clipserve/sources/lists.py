"""Lists of videos: CSV and JSON lines files, data frames and mappings, with the columns id, path and label."""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from clipserve.errors import InvalidRequest, VideoNotReadable
from clipserve.names import read_name, spell_name
from clipserve.sources.addresses import hide_credentials, is_elsewhere
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.remote_paths import hide_secrets

COLUMNS = ("id", "path", "label")  # a list needs path; other columns are ignored
JSON_LINES = (".jsonl", ".ndjson")
LISTS = (".csv", *JSON_LINES)


@dataclass(frozen=True)
class ListFile:
    """A CSV or JSON lines file, wherever it is.

    Attributes:
        name: for messages.
        suffix: in lower case; says which of both it is.
        open: opens it as text, with this handling of line ends.
        join: the path or address of a file by its path in the list.
    """

    name: str
    suffix: str
    open: Callable[[str | None], IO[str]]
    join: Callable[[str], str]


def open_list(path: Path) -> Entries:
    """A list on this machine; see `open_list_file`. Relative paths in it are relative to its own folder."""
    folder = os.path.dirname(path)  # noqa: PTH120 - "" for a list in the working folder, not "."
    return open_list_file(
        ListFile(
            str(path),
            path.suffix.lower(),
            open=lambda newline: path.open(encoding="utf-8-sig", newline=newline),
            join=lambda name: os.path.join(folder, name),  # noqa: PTH118 - pathlib interns it, a million times
        )
    )


def open_list_file(file: ListFile) -> Entries:
    """Check the beginning of a CSV or JSON lines file now, and read it line by line.

    The file is opened once, so that it may be a pipe. It is UTF-8, with or without a byte order mark; names that are
    not UTF-8 are escaped as names.py says. In CSV, blanks around columns and values are dropped, except from a path
    where a file has them in its name.

    Raises:
        InvalidRequest: it does not open, is not UTF-8, or has no column `path` (lists those it has). Later, with the
            line: a CSV has a quote that is not closed, or a field of more than 128 Ki characters.
    """
    read = _read_json_lines if file.suffix in JSON_LINES else _read_csv
    entries = read(file)
    try:
        first = list(itertools.islice(entries, 1))
    except OSError as exc:
        reason = hide_secrets(exc.strerror or str(exc))
        raise InvalidRequest(f"cannot read the list {file.name!r}: {reason}") from exc
    return itertools.chain(first, entries)


def read_frame(frame: Any) -> Entries:
    """Read a pandas DataFrame, row by row.

    Raises:
        InvalidRequest: it has no column `path`; lists those it has.
    """
    columns = [str(column) for column in frame.columns]
    _check_columns(columns, "this data frame")
    origin = Origin("this data frame", None)
    return (
        read_record(dict(zip(columns, values, strict=True)), origin, f"row {number}")
        for number, values in enumerate(frame.itertuples(index=False, name=None))
    )


@dataclass(frozen=True)
class Origin:
    """Where records come from: a name for messages, and what makes a path of one in a list."""

    name: str
    join: Callable[[str], str] | None


def read_record(record: Mapping[str, Any], origin: Origin, place: str) -> Entry:
    """The entry of one record; without a video in it, an entry with the error."""
    path = _present(record.get("path"))
    given = _present(record.get("id"))
    label = _present(record.get("label"))
    if path is None:
        there = ", ".join(str(key) for key, value in record.items() if _present(value) is not None) or "nothing"
        name = f"{origin.name}, {place}"
        error = VideoNotReadable(f"{name}: the line has no path; it has {there}", video=spell_name(name))
        return Entry(name if given is None else str(given), error, _write_label(label))
    if isinstance(path, str | os.PathLike):
        name = text = os.fspath(path)
        if is_elsewhere(text):
            name = hide_credentials(text)
        elif origin.join is not None:
            name = read_name(text)
            path = origin.join(name)
    elif isinstance(path, bytes | bytearray | memoryview) or hasattr(path, "read"):
        name = ""
    else:
        name = f"{origin.name}, {place}"
        said = f"{name}: the path is a text, or the bytes or the open file of a video; got {type(path).__name__}"
        path = VideoNotReadable(said, video=spell_name(name))
    return Entry(name if given is None else str(given), path, _write_label(label))


def _read_csv(source: ListFile) -> Entries:
    with source.open("") as file:
        lines = CsvLines(_decoded(file, source.name), COLUMNS)
        # Strict: otherwise a quote that is not closed silently takes the rows after it into its field.
        records = csv.DictReader(lines, strict=True, skipinitialspace=True)
        try:
            header = next(filter(None, records.reader), [])  # blank lines may come first
            records.fieldnames = [column.strip() for column in header]
            _check_columns(records.fieldnames, repr(source.name))
            origin = Origin(source.name, source.join)
            lines.begin_record()
            for record in records:
                place = f"line {records.line_num}"
                surplus = take_surplus(record)
                entry = read_record(_strip(record, source), origin, place)
                if surplus:
                    said = f"{source.name}, {place}: {surplus}"
                    entry = replace(entry, video=VideoNotReadable(said, video=entry.spelt_id))
                yield entry
                lines.begin_record()
        except csv.Error as exc:
            raise InvalidRequest(f"the list {source.name!r}, {lines.describe(exc)}") from exc


def take_surplus(record: dict[Any, Any]) -> str:
    """Take the values out of a CSV record for which there is no column; says what is wrong with them, "" for nothing.

    A comma in a value without quotes would otherwise cut off the rest of a path or of a label.
    """
    values = record.pop(None, ())  # csv's key
    if not any(value.strip() for value in values):  # spreadsheets write empty ones
        return ""
    return (
        f"the line has {len(record) + len(values)} values for {len(record)} columns: write a value that has commas"
        " in quotes"
    )


def _strip(record: dict[str, Any], source: ListFile) -> dict[str, Any]:
    """The record without blanks around its values."""
    for column in COLUMNS:
        value = record.get(column)
        if value and value != value.strip():
            if column == "path" and os.path.lexists(source.join(value)):
                continue
            record[column] = value.strip()
    return record


def _read_json_lines(source: ListFile) -> Entries:
    with source.open(None) as file:
        origin = Origin(source.name, source.join)
        checked = False
        for number, line in enumerate(_decoded(file, source.name), 1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as exc:
                record = exc
            if isinstance(record, str):
                record = {"path": record}
            if isinstance(record, Mapping):
                if not checked:
                    _check_columns([str(key) for key in record], f"{source.name!r}, {place}")
                    checked = True
                yield read_record(record, origin, place)
            else:
                name = f"{source.name}, {place}"
                reason = record if isinstance(record, Exception) else f"got {type(record).__name__}"
                said = f"{name}: a line is a JSON object; {reason}"
                yield Entry(name, VideoNotReadable(said, video=spell_name(name)))


def _decoded(file: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as exc:
        raise InvalidRequest(
            f"the list {name!r} is not UTF-8 ({exc}): save it as UTF-8, and write bytes of file names that are not"
            r" as \xe9 (in JSON \\xe9)"
        ) from exc


def _check_columns(columns: list[str], where: str) -> None:
    if "path" not in columns:
        there = f"no column 'path'; it has {', '.join(map(repr, columns))}" if columns else "no columns: it is empty"
        raise InvalidRequest(
            f"{where} has {there}. A list needs the column path, and may have id and label. Commas separate columns."
        )
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise InvalidRequest(f"{where} has the column {twice[0]!r} more than once: rename the one that is not meant.")


def _present(value: Any) -> Any:
    """The value; None for the values that tables have where there is nothing: an empty text, NaN, pandas' NA."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and value != value:
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _write_label(label: Any) -> str | None:
    """Labels are text; several for one video are a JSON list."""
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, list | tuple):
        return json.dumps([str(item) for item in label], ensure_ascii=False)
    return str(label)


class CsvLines:
    """The lines of a CSV file on their way to Python's reader, which does not say where a fault begins.

    Keeps the lines of the record that is being read. columns: those that count, for messages.
    """

    def __init__(self, lines: Iterator[str], columns: Sequence[str]) -> None:
        self._lines = lines
        self._columns = columns
        self._record: list[str] = []
        self._first = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._record.append(line)
        return line

    def begin_record(self) -> None:
        """The next line begins another record."""
        self._first += len(self._record)
        self._record.clear()

    def describe(self, exc: csv.Error) -> str:
        """Where and what the fault is that the reader found in this record."""
        last = self._first + len(self._record) - 1
        if (opened := self._find_open_quote()) is not None:
            return (
                f"line {opened}: a quote opens a field here, and no quote closes it up to line {last} ({exc}). Close"
                " the field with a quote before a comma or the end of the line. Write a quote inside a value twice."
            )
        return f"line {last}: {exc}. Only the columns {', '.join(self._columns)} are needed: leave out the long one."

    def _find_open_quote(self) -> int | None:
        """The line where the field begins whose quotes are not what CSV wants; None if there is none."""
        opened = self._first
        fresh, quoted, closed = True, False, False
        for number, line in enumerate(self._record, self._first):
            for character in line:
                if quoted:
                    closed = character == '"'
                    quoted = not closed
                elif closed and character == '"':  # two of them: one that is part of the value
                    quoted, closed = True, False
                elif closed and character not in ",\r\n":
                    return opened
                elif fresh and character == '"':
                    quoted, fresh, opened = True, False, number
                else:
                    fresh, closed = character in ",\r\n" or (fresh and character == " "), False
        return opened if quoted else None
