"""Entries from tables of videos: CSV, JSON lines, data frames and mappings, with the columns id, path and label."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipserve.errors import InvalidRequest, VideoNotReadable
from clipserve.sources.entries import Entries, Entry, ReadEntries
from clipserve.sources.videos import is_address

COLUMNS = ("id", "path", "label")  # of these only `path` must be there; others are left alone
JSON_LINES = (".jsonl", ".ndjson")
LISTS = (".csv", *JSON_LINES)


def open_list(path: Path) -> ReadEntries:
    """Check a CSV or JSON lines file now; gives what reads it line by line, as often as it is called.

    Relative paths in it count from its own folder. UTF-8, with a byte order mark or without.

    Raises:
        InvalidRequest: it does not open, is not UTF-8, or has no column `path`; lists those it has.
    """
    read = _read_json_lines if path.suffix.lower() in JSON_LINES else _read_csv
    try:
        next(read(path, check=True), None)
    except OSError as exc:
        raise InvalidRequest(f"cannot read the list {str(path)!r}: {exc.strerror}") from exc
    return lambda: read(path)


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
        error = VideoNotReadable(f"{name}: there is no path; the line has {there}", video=name)
        return Entry(name if given is None else str(given), error, _write_label(label))
    if isinstance(path, str | os.PathLike):
        text = os.fspath(path)
        name = text
        if origin.folder is not None and not is_address(text):
            path = os.path.join(origin.folder, text)  # noqa: PTH118 - pathlib interns what it joins, a million times
    else:
        name = ""
    return Entry(name if given is None else str(given), path, _write_label(label))


def _read_csv(path: Path, *, check: bool = False) -> Entries:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(_decoded(file, path), restkey="")
        lines.fieldnames = [column.strip() for column in lines.fieldnames or ()]
        _check_columns(lines.fieldnames, repr(str(path)))
        if check:
            return
        origin = Origin(str(path), os.path.dirname(path))  # noqa: PTH120 - "" for a list in the working folder, not "."
        for record in lines:
            yield read_record(record, origin, f"line {lines.line_num}")


def _read_json_lines(path: Path, *, check: bool = False) -> Entries:
    with path.open(encoding="utf-8-sig") as file:
        origin = Origin(str(path), os.path.dirname(path))  # noqa: PTH120 - "" for a list in the working folder, not "."
        for number, line in enumerate(_decoded(file, path), 1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                record = json.loads(line)
            except ValueError as exc:
                record = exc
            if isinstance(record, str):
                record = {"path": record}
            if isinstance(record, Mapping):
                if check:
                    _check_columns([str(key) for key in record], f"{str(path)!r}, {place}")
                    return
                yield read_record(record, origin, place)
            else:
                name = f"{path}, {place}"
                reason = record if isinstance(record, ValueError) else f"got {type(record).__name__}"
                yield Entry(name, VideoNotReadable(f"{name}: a line is a JSON object; {reason}", video=name))


def _decoded(file: Iterable[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the list {str(path)!r} is not UTF-8 ({exc}): save it as UTF-8") from exc


def _check_columns(columns: list[str], where: str) -> None:
    if "path" not in columns:
        there = ", ".join(repr(column) for column in columns) or "none"
        raise InvalidRequest(
            f"{where} has no column 'path'; it has {there}. The columns are {', '.join(COLUMNS)}: path is needed, id"
            " and label may be left out; columns are separated by commas."
        )


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
