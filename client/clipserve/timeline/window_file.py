"""A file of windows that grows by one line per window. Another run can continue it, however the last one ended.

Two formats, by the suffix. JSON lines also have a line at the end of each video, or for its error. CSV has columns, and
no room for these: a run that goes on asks the server about each video again, for the windows that are missing.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from clipserve.errors import InvalidRequest
from clipserve.jobs.line_file import LineFile
from clipserve.jobs.result_file import FINAL_CODES, make_checksum
from clipserve.names import make_printable
from clipserve.results import ScoredLabel
from clipserve.sources.lists import JSON_LINES
from clipserve.tables.formats import describe_error, write_json
from clipserve.timeline.many import TimelineRow
from clipserve.timeline.window import VideoFacts, Window

CSV = ".csv"
_FIXED = ("row", "id", "video", "window", "start", "end", "start_frame", "end_frame")


@dataclass(frozen=True)
class Record:
    """A line of the file: a window of a video, or its end, with its error if it failed."""

    number: int
    id: str
    video: str
    window: Window | None = None
    facts: VideoFacts = field(default_factory=VideoFacts)
    error: Mapping[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        """Whether the video needs no further run: it is complete, or fails whenever it is tried."""
        return self.window is None and (self.error is None or self.error["code"] in FINAL_CODES)


class LineFormat(Protocol):
    """Writes and reads lines."""

    has_ends: bool

    def header(self) -> str | None:
        """The first line, if there is one."""

    def write(self, row: TimelineRow) -> str | None:
        """The line of a row; None if the format has none for it."""

    def read(self, line: bytes) -> Record | None:
        """The record of a line; None for the header. Raises ValueError, KeyError or TypeError."""


class JsonLines:
    """A JSON object a line."""

    has_ends = True

    def header(self) -> str | None:
        return None

    def write(self, row: TimelineRow) -> str | None:
        line: dict[str, Any] = {"row": row.number, "id": row.id, "video": row.video}
        if row.window is not None:
            return write_json(line | describe_window(row.window))
        if row.error is not None:
            return write_json(line | {"error": {"class": type(row.error).__name__, **describe_error(row.error)}})
        facts = row.facts
        return write_json(
            line
            | {"windows": facts.windows_total, "duration": facts.duration_seconds, "truncated": facts.truncated}
            | {"codec": facts.video.get("codec"), "fps": facts.video.get("fps")}
        )

    def read(self, line: bytes) -> Record | None:
        record = json.loads(line)
        place = int(record["row"]), str(record["id"]), str(record["video"])
        if "window" in record:
            labels = [
                ScoredLabel(str(one["label"]), int(one["index"]), float(one["score"])) for one in record["labels"]
            ]
            seconds = float(record["start"]), float(record["end"])
            frames = int(record["start_frame"]), int(record["end_frame"])
            return Record(*place, window=Window(int(record["window"]), *seconds, *frames, tuple(labels)))
        if "error" in record:
            return Record(*place, error={"code": str(record["error"]["code"]), **record["error"]})
        return Record(*place, facts=VideoFacts(record["duration"], record["windows"], record["truncated"]))


class CsvLines:
    """Columns: row, id, video, window, start, end, start_frame, end_frame, label_1, score_1, label_2, ..."""

    has_ends = False

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
        return Record(int(number), id, video, window=window)


class WindowFile:
    """Windows of many videos, each written once, those of one video in order.

    Opening the file removes an incomplete last line, and the failures that another run may turn into windows.

    Raises:
        InvalidRequest: another job writes to the file, the file was begun with other settings, or no job wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], top_k: int) -> None:
        self.path = Path(path)
        self.format = choose_format(self.path, top_k)
        self.windows = 0
        self.failures = 0
        self._next: dict[int, int] = {}  # by video: the window that comes next
        self._checksums: dict[int, int] = {}  # of ids, which show whether the videos are the same
        self._final: set[int] = set()
        self._lines = LineFile(self.path, settings)
        try:
            self._read()
            self._lines.begin()
            header = self.format.header()
            if header is not None and not self.path.stat().st_size:
                self._lines.append(header)
        except BaseException:
            self._lines.close()
            raise

    @property
    def videos(self) -> int:
        """How many videos the file has something about."""
        return len(self._checksums)

    def find_next(self, number: int, id: str) -> int | None:
        """The window of a video that comes next; None if the video is done.

        Raises:
            InvalidRequest: the file has another video at this place of the source.
        """
        checksum = make_checksum(make_printable(id))
        if self._checksums.get(number, checksum) != checksum:
            raise InvalidRequest(
                f"video {number} of {str(self.path)!r} is another one than {id!r}: the source has changed since the job"
                " began. Choose another --out, or restore the source."
            )
        return None if number in self._final else self._next.get(number, 0)

    def append(self, row: TimelineRow) -> None:
        """Write a row, if the format has a line for it. Once this returns, it survives the end of this process.

        Raises:
            OSError: the line cannot be written. The next opening removes the part that was written.
        """
        self.failures += row.error is not None
        if row.is_complete and row.facts.windows_total is None:  # a run that had no window left to ask for
            row = replace(row, facts=replace(row.facts, windows_total=self._next.get(row.number, 0)))
        if (line := self.format.write(row)) is not None:
            self._lines.append(line)
            self._record(Record(row.number, row.id, row.video, window=row.window))

    def close(self) -> None:
        """Release the file for other jobs."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        retry = False
        for line in self._lines.read():
            record = self._parse(line)
            if record is None:
                continue
            self._record(record)
            if record.is_final:
                self._final.add(record.number)
                self.failures += record.error is not None
            retry = retry or (record.error is not None and not record.is_final)
        if retry:
            self._lines.keep(self._is_kept)

    def _is_kept(self, line: bytes) -> bool:
        record = self._parse(line)
        return record is None or record.error is None or record.is_final

    def _parse(self, line: bytes) -> Record | None:
        try:
            return self.format.read(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidRequest(
                f"{str(self.path)!r} has a line that no job wrote: {line[:80]!r}. Choose another --out."
            ) from None

    def _record(self, record: Record) -> None:
        self._checksums.setdefault(record.number, make_checksum(make_printable(record.id)))
        if record.window is None:
            return
        expected = self._next.get(record.number, 0)
        if record.window.index != expected:
            raise InvalidRequest(
                f"{str(self.path)!r} has window {record.window.index} of video {record.number} where {expected} comes"
                " next: choose another --out"
            )
        self._next[record.number] = expected + 1
        self.windows += 1


@dataclass
class VideoTimeline:
    """All windows of one video. facts: empty where the file does not say; error: why windows are missing."""

    number: int
    id: str
    video: str
    windows: list[Window] = field(default_factory=list)
    facts: VideoFacts = field(default_factory=VideoFacts)
    error: Mapping[str, Any] | None = None


def read_timelines(path: str | os.PathLike[str], top_k: int) -> Iterator[VideoTimeline]:
    """The videos of a file of windows, each as soon as its end is read. Raises OSError."""
    lines = choose_format(Path(path), top_k)
    with Path(path).open("rb") as file:
        records = (lines.read(line) for line in file if line.endswith(b"\n"))
        yield from gather(record for record in records if record is not None)


def gather(records: Iterable[Record]) -> Iterator[VideoTimeline]:
    """Group records by video."""
    open_videos: dict[int, VideoTimeline] = {}
    for record in records:
        timeline = open_videos.setdefault(record.number, VideoTimeline(record.number, record.id, record.video))
        if record.window is not None:
            timeline.windows.append(record.window)
        else:
            timeline.facts, timeline.error = record.facts, record.error
            yield open_videos.pop(record.number)
    yield from open_videos.values()


def choose_format(path: Path, top_k: int) -> LineFormat:
    """By the suffix of the name."""
    return CsvLines(top_k) if path.suffix.lower() == CSV else JsonLines()


def is_window_file(path: Path) -> bool:
    """Whether the suffix is one of this file's formats."""
    return path.suffix.lower() in (CSV, *JSON_LINES)


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
