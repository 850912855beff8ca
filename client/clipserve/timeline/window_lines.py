"""A line for each window of a video, in two formats.

JSON lines also have a line at the end of each video, or for its error. CSV has columns, and no room for these.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from clipserve.jobs.journal import Line
from clipserve.names import make_printable
from clipserve.results import ScoredLabel
from clipserve.sources.remote_paths import is_remote
from clipserve.tables.formats import describe_error, write_json
from clipserve.timeline.many import TimelineRow
from clipserve.timeline.window import VideoFacts, Window

CSV = ".csv"
_FIXED = ("row", "id", "video", "window", "start", "end", "start_frame", "end_frame")


@dataclass(frozen=True)
class Record(Line):
    """A window of a video, or its end, with its error if it failed."""

    video: str = ""
    window: Window | None = None
    facts: VideoFacts = field(default_factory=VideoFacts)
    version: Sequence[int] | None = None  # of the file, see `read_version`

    @classmethod
    def of(cls, row: TimelineRow) -> Self:
        """What the line of a row says."""
        error = None if row.error is None else describe_error(row.error)
        return cls(row.number, row.id, error, row.video, row.window, row.facts)


class LineFormat(Protocol):
    """Writes and reads lines."""

    def header(self) -> str | None:
        """The first line, if there is one."""

    def write(self, row: TimelineRow) -> str | None:
        """The line of a row; None if the format has none for it."""

    def read(self, line: bytes) -> Record | None:
        """The record of a line; None for the header. Raises one of `UNREADABLE`."""


class JsonLines:
    """A JSON object a line."""

    def header(self) -> str | None:
        return None

    def write(self, row: TimelineRow) -> str:
        return write_json(describe_row(row))

    def read(self, line: bytes | str) -> Record:
        record = json.loads(line)
        about = {"number": record["row"], "id": record["id"], "video": str(record["video"])}
        if "window" in record:
            labels = [
                ScoredLabel(str(one["label"]), int(one["index"]), float(one["score"])) for one in record["labels"]
            ]
            seconds = float(record["start"]), float(record["end"])
            frames = int(record["start_frame"]), int(record["end_frame"])
            return Record(**about, window=Window(int(record["window"]), *seconds, *frames, tuple(labels)))
        version = record.get("version")
        if "error" in record:
            return Record(**about, error=record["error"], version=version)
        duration, windows = record["duration"], record["windows"]
        facts = VideoFacts(duration and float(duration), windows and int(windows), record["truncated"])
        return Record(**about, facts=facts, version=version)


class CsvLines:
    """Columns: row, id, video, window, start, end, start_frame, end_frame, label_1, score_1, label_2, ..."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._classes: dict[str, int] = {}  # the file has no numbers of classes: in the order in which they appear

    def header(self) -> str | None:
        ranked = [f"{name}_{rank}" for rank in range(1, self._top_k + 1) for name in ("label", "score")]
        return write_cells([*_FIXED, *ranked])

    def write(self, row: TimelineRow) -> str | None:
        window = row.window
        if window is None:
            return None
        ranked = [cell for scored in window for cell in (make_printable(scored.label), scored.score)]
        names = (row.number, make_printable(row.id), make_printable(row.video))
        times = (window.index, window.start_seconds, window.end_seconds, window.start_frame, window.end_frame)
        return write_cells([*names, *times, *ranked])

    def read(self, line: bytes) -> Record | None:
        (cells,) = csv.reader([line.decode()])
        if cells[: len(_FIXED)] == [*_FIXED]:
            return None
        number, id, video, index, start, end, start_frame, end_frame, *ranked = cells
        labels = [
            ScoredLabel(label, self._classes.setdefault(label, len(self._classes)), float(score))
            for label, score in zip(ranked[::2], ranked[1::2], strict=True)
        ]
        window = Window(int(index), float(start), float(end), int(start_frame), int(end_frame), tuple(labels))
        return Record(int(number), id, video=video, window=window)


def choose_format(path: str | os.PathLike[str], top_k: int) -> LineFormat:
    """By the suffix of the name. In a store, where nothing can be appended, JSON lines."""
    return CsvLines(top_k) if Path(path).suffix.lower() == CSV and not is_remote(path) else JsonLines()


def describe_row(row: TimelineRow) -> dict[str, Any]:
    """A window, or the end of a video, as a dict that JSON can hold."""
    line: dict[str, Any] = {"row": row.number, "id": row.id, "video": row.video}
    if row.window is not None:
        return line | describe_window(row.window)
    if row.error is not None:
        return line | {"error": describe_error(row.error)}
    facts = row.facts
    return (
        line
        | {"windows": facts.windows_total, "duration": facts.duration_seconds, "truncated": facts.truncated}
        | {"codec": facts.video.get("codec"), "fps": facts.video.get("fps")}
    )


def describe_window(window: Window) -> dict[str, Any]:
    """A window as a dict that JSON can hold."""
    described: dict[str, Any] = {
        "window": window.index,
        "start": window.start_seconds,
        "end": window.end_seconds,
        "start_frame": window.start_frame,
        "end_frame": window.end_frame,
        "labels": [{"label": scored.label, "index": scored.index, "score": scored.score} for scored in window],
    }
    if window.features is not None:
        described["features"] = window.features.tolist()
    if window.report is not None:
        described["report"] = dict(window.report)
    return described


def write_cells(cells: Sequence[object]) -> str:
    """One line of CSV, without a line break at its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
