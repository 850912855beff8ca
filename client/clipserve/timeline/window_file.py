"""A file of windows that grows by one line per window: the journal of `clipserve timeline --out`.

In a store it is a folder of JSON lines. A CSV has no line for the end of a video: that is noted beside its settings.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest
from clipserve.jobs.journal import UNREADABLE, Journal
from clipserve.jobs.line_file import LineFile
from clipserve.sources.entries import Entry
from clipserve.tables.formats import write_json
from clipserve.timeline.many import TimelineRow
from clipserve.timeline.window import VideoFacts, Window
from clipserve.timeline.window_lines import CsvLines, JsonLines, Record, choose_format, describe_row


@dataclass
class VideoTimeline:
    """All windows of one video. facts: empty where the file does not say; error: why windows are missing."""

    number: int
    id: str
    video: str
    windows: list[Window] = field(default_factory=list)
    facts: VideoFacts = field(default_factory=VideoFacts)
    error: Mapping[str, Any] | None = None

    @property
    def has_answer(self) -> bool:
        """Whether something is known: a video that failed at once has no segments to show, not even none."""
        return bool(self.windows) or self.error is None


class WindowFile(Journal[Record]):
    """Windows of many videos, each written once, those of one video in order."""

    ABOUT = "video"
    RESULTS = "windows"

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], top_k: int) -> None:
        self.format = choose_format(path, top_k)
        self.header = self.format.header()
        self._next: dict[int, int] = {}  # by video: the window that comes next
        self._final: set[int] = set()  # videos that a line of the file ends
        self._noted: dict[int, Record] = {}  # videos that a note ends
        self._versions: dict[int, Sequence[int] | None] = {}  # of files at work, when their timeline began
        super().__init__(path, settings)

    @property
    def results(self) -> int:
        """How many windows there are."""
        return sum(self._next.values())

    def find_next(self, number: int) -> int:
        """The window of a video that comes next."""
        return self._next.get(number, 0)

    def is_done(self, number: int, entry: Entry) -> bool:
        """Whether the video is complete, or fails whenever it is tried. A note says so only of a file as it was."""
        if number in self._final:
            return True
        version = self._versions[number] = read_version(entry.video)
        end = self._noted.get(number)
        if end is None:
            return False
        complete = end.error is not None or end.facts.windows_total == self.find_next(number)
        if complete and end.version == version:
            return True
        self.failures -= end.error is not None
        del self._noted[number]
        return False

    def append(self, row: TimelineRow) -> None:
        """Write a row. Once this returns, a row in a file survives the end of this process.

        Raises:
            OSError: the line cannot be written. The next opening removes the part that was written.
        """
        if row.is_complete:
            row = replace(row, facts=replace(row.facts, windows_total=self.find_next(row.number)))
        record = Record.of(row)
        version = self._versions.pop(row.number, None) if row.window is None else None
        if (line := self.format.write(row)) is not None:
            self._lines.append(line)
        elif record.is_kept and isinstance(self._lines, LineFile):
            self._lines.note(write_json(describe_row(row) | {"version": version}))
            self._noted[row.number] = record
        self._record(record)

    def timelines(self) -> Iterator[VideoTimeline]:
        """The videos, each as soon as its end is read."""
        return gather(self._read_records())

    def _read_records(self) -> Iterator[Record]:
        """Those of all lines, and after its last window what was noted of a video."""
        for line in self._lines.read():
            record = self._parse(line)
            if record is None:
                continue
            yield record
            end = self._noted.get(record.number)
            if end is not None and record.window is not None and record.window.index + 1 == end.facts.windows_total:
                yield end

    def _read_line(self, line: bytes) -> Record | None:
        return self.format.read(line)

    def _record(self, line: Record) -> None:
        if line.number in self._final:
            raise InvalidRequest(f"{self.name!r} goes on after the end of video {line.number}: choose another --out")
        if line.window is not None:
            expected = self.find_next(line.number)
            if line.window.index != expected:
                raise InvalidRequest(
                    f"{self.name!r} has window {line.window.index} of video {line.number} where {expected} comes next:"
                    " choose another --out"
                )
            self._next[line.number] = expected + 1
        elif line.is_kept:
            self._final.add(line.number)
        super()._record(line)

    def _read(self) -> bool:
        begun = super()._read()
        if isinstance(self._lines, LineFile):
            for text in self._lines.notes:
                with suppress(*UNREADABLE):  # the video is then looked at again
                    note = JsonLines().read(text)
                    self._noted[note.number] = note  # the last one counts, of a file that has changed
            for note in self._noted.values():
                super()._record(note)
        return begun


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


def write_windows(path: str, top_k: int, timelines: Iterable[VideoTimeline]) -> None:
    """Write the windows as CSV, all at once: for stores, where nothing can be appended. Raises OSError."""
    lines = CsvLines(top_k)
    with open_atomically(path) as file:
        file.write(f"{lines.header()}\n")
        for one in timelines:
            rows = (TimelineRow(one.id, one.video, one.number, window=window) for window in one.windows)
            file.writelines(f"{lines.write(row)}\n" for row in rows)


def read_version(video: object) -> Sequence[int] | None:
    """Size and time of change of a local file, which show whether it is still the same; None for another video."""
    if not isinstance(video, str | os.PathLike):
        return None
    try:
        found = os.stat(video)  # noqa: PTH116 - a text may be no path
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
