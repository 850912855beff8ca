"""Entries from tables of videos: CSV, JSON lines, data frames and mappings, with the columns id, path and label."""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipserve.errors import InvalidRequest, VideoNotReadable
from clipserve.names import read_name, spell_name
from clipserve.sources.addresses import hide_credentials, is_address
from clipserve.sources.csv_lines import COLUMNS, CsvLines
from clipserve.sources.entries import Entries, Entry

JSON_LINES = (".jsonl", ".ndjson")
LISTS = (".csv", *JSON_LINES)


def open_list(path: Path) -> Entries:
    """Check the beginning of a CSV or JSON lines file now, and read it line by line.

    It is opened once, so that it may be a pipe.

    Relative paths in it count from its own folder. UTF-8, with a byte order mark or without; names that are not UTF-8
    are spelt in it as names.py says. In CSV, blanks around columns and values are left out, except from a path where a
    file has them in its name.

    Raises:
        InvalidRequest: it does not open, is not UTF-8, or has no column `path` (lists those it has). Later, with the
            line: a CSV has a quote that is not closed, or a field of more than 128 Ki characters.
    """
    read = _read_json_lines if path.suffix.lower() in JSON_LINES else _read_csv
    entries = read(path)
    try:
        first = list(itertools.islice(entries, 1))
    except OSError as exc:
        raise InvalidRequest(f"cannot read the list {str(path)!r}: {exc.strerror}") from exc
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
    """Where records come from: a name for messages, and the folder that relative paths count from."""

    name: str
    folder: str | None


def read_record(record: Mapping[str, Any], origin: Origin, place: str) -> Entry:
    """The entry of one record; if it names no video, an entry that holds the error."""
    path = _present(record.get("path"))
    given = _present(record.get("id"))
    label = _present(record.get("label"))
    if path is None:
        there = ", ".join(str(key) for key, value in record.items() if _present(value) is not None) or "nothing"
        name = f"{origin.name}, {place}"
        error = VideoNotReadable(f"{name}: there is no path; the line has {there}", video=spell_name(name))
        return Entry(name if given is None else str(given), error, _write_label(label))
    if isinstance(path, str | os.PathLike):
        name = text = os.fspath(path)
        if is_address(text):
            name = hide_credentials(text)
        elif origin.folder is not None:
            name = read_name(text)
            path = os.path.join(origin.folder, name)  # noqa: PTH118 - pathlib interns what it joins, a million times
    elif isinstance(path, bytes | bytearray | memoryview) or hasattr(path, "read"):
        name = ""
    else:
        name = f"{origin.name}, {place}"
        said = f"{name}: the path is a text, or the bytes or the open file of a video; got {type(path).__name__}"
        path = VideoNotReadable(said, video=spell_name(name))
    return Entry(name if given is None else str(given), path, _write_label(label))


def _read_csv(path: Path) -> Entries:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = CsvLines(_decoded(file, path))
        # Strict: otherwise a quote that is not closed takes the rows after it into its field, and says nothing.
        records = csv.DictReader(lines, restkey="", strict=True, skipinitialspace=True)
        folder = os.path.dirname(path)  # noqa: PTH120 - "" for a list in the working folder, not "."
        try:
            header = next(filter(None, records.reader), [])  # blank lines may come first
            records.fieldnames = [column.strip() for column in header]
            _check_columns(records.fieldnames, repr(str(path)))
            origin = Origin(str(path), folder)
            lines.begin_record()
            for record in records:
                yield read_record(_strip(record, folder), origin, f"line {records.line_num}")
                lines.begin_record()
        except csv.Error as exc:
            raise InvalidRequest(f"the list {str(path)!r}, {lines.describe(exc)}") from exc


def _strip(record: dict[str, Any], folder: str) -> dict[str, Any]:
    """The record without blanks around its values."""
    for column in COLUMNS:
        value = record.get(column)
        if value and value != value.strip():
            if column == "path" and os.path.lexists(os.path.join(folder, value)):  # noqa: PTH118
                continue
            record[column] = value.strip()
    return record


def _read_json_lines(path: Path) -> Entries:
    with path.open(encoding="utf-8-sig") as file:
        origin = Origin(str(path), os.path.dirname(path))  # noqa: PTH120 - "" for a list in the working folder, not "."
        checked = False
        for number, line in enumerate(_decoded(file, path), 1):
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
                    _check_columns([str(key) for key in record], f"{str(path)!r}, {place}")
                    checked = True
                yield read_record(record, origin, place)
            else:
                name = f"{path}, {place}"
                reason = record if isinstance(record, Exception) else f"got {type(record).__name__}"
                said = f"{name}: a line is a JSON object; {reason}"
                yield Entry(name, VideoNotReadable(said, video=spell_name(name)))


def _decoded(file: Iterable[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as exc:
        raise InvalidRequest(
            f"the list {str(path)!r} is not UTF-8 ({exc}): save it as UTF-8, and write bytes of file names that are not"
            r" as \xe9 (in JSON \\xe9)"
        ) from exc


def _check_columns(columns: list[str], where: str) -> None:
    if "path" not in columns:
        there = f"no column 'path'; it has {', '.join(map(repr, columns))}" if columns else "no columns: it is empty"
        raise InvalidRequest(
            f"{where} has {there}. Of the columns {', '.join(COLUMNS)} a list needs path, and may leave out id and"
            " label; commas separate them."
        )
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise InvalidRequest(f"{where} has the column {twice[0]!r} more than once: rename the one that is not meant.")


def _present(value: Any) -> Any:
    """The value; None for what tables write where there is nothing: an empty text, NaN, pandas' NA."""
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
