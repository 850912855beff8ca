"""A file of windows that grows by one line per window: the journal of `clipserve timeline --out`.

In a store it is a folder of JSON lines. A CSV has no line for the end of a video: that is noted beside its settings.
A video that has windows must stay the same. The size of its file is noted beside the settings, if it is a file of this
machine, and a run that continues it asks for its last window again, to compare it.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest
from clipserve.jobs.journal import UNREADABLE, Journal
from clipserve.jobs.line_file import LineFile
from clipserve.names import make_printable
from clipserve.sources.entries import Entry
from clipserve.tables.formats import write_json
from clipserve.timeline.many import TimelineRow
from clipserve.timeline.window import VideoFacts, Window
from clipserve.timeline.window_lines import CsvLines, JsonLines, Record, choose_format, describe_row

# What an export in bf16 may differ from float32, see docs/serving-options.md: another server may have another export.
SCORE_TOLERANCE = 0.1


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
        """Whether the server has answered. A video that failed at once has no timeline, not even an empty one."""
        return bool(self.windows) or self.error is None

    @property
    def length_seconds(self) -> float:
        """Of the video, as far as it is known: to the end of its last window at least."""
        return max([self.facts.duration_seconds or 0.0, *(window.end_seconds for window in self.windows)])


class WindowFile(Journal[Record]):
    """Windows of many videos, each written once, those of one video in order."""

    ABOUT = "video"
    RESULTS = "windows"

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], top_k: int) -> None:
        self.format = choose_format(path, top_k)
        self.header = self.format.header()
        self._next: dict[int, int] = {}  # by video: the window that comes next
        self._last: dict[int, Window] = {}  # of videos that no line of the file ends
        self._asked_again: set[int] = set()  # videos of which the last window is to come again
        self._sizes: dict[int, int] = {}  # in bytes, of files when their timeline began
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

    def ask_from(self, number: int) -> int:
        """The first window to ask for: the last one that is there, to compare it, or the first of all."""
        if number not in self._last:
            return 0
        self._asked_again.add(number)
        return self._last[number].index

    def is_done(self, number: int, entry: Entry) -> bool:
        """Whether the video is complete, or fails whenever it is tried. A note says so only of a file as it was.

        Raises:
            InvalidRequest: the video is not the one that its windows are about.
        """
        version = read_version(entry.video)
        self._check_size(number, entry, version)
        if number in self._final:
            return True
        end = self._noted.get(number)
        if end is not None:
            complete = end.error is not None or end.facts.windows_total == self.find_next(number)
            if complete and end.version == version:
                return True
            self.failures -= end.error is not None
            del self._noted[number]
        self._versions[number] = version
        if version and isinstance(self._lines, LineFile) and self._sizes.get(number) != version[0]:
            self._sizes[number] = version[0]
            self._lines.note(write_json({"row": number, "id": entry.spelt_id, "size": version[0]}))
        return False

    def append(self, row: TimelineRow) -> None:
        """Write a row. Once this returns, a row in a file survives the end of this process.

        Raises:
            InvalidRequest: the video is not the one that the windows before are about.
            OSError: the line cannot be written. The next opening removes the part that was written.
        """
        if row.number in self._asked_again and row.error is None:
            self._asked_again.remove(row.number)
            self._compare(row)
            return
        if row.is_complete:
            row = replace(row, facts=replace(row.facts, windows_total=self.find_next(row.number)))
        record = Record.of(row)
        version = self._versions.pop(row.number, None) if row.window is None else None
        if (line := self.format.write(row)) is not None:
            self._lines.append(line)
        elif isinstance(self._lines, LineFile):
            if record.is_kept:
                self._lines.note(write_json(describe_row(row) | {"version": version}))
            self._noted[row.number] = record
        self._record(record)

    def timelines(self) -> Iterator[VideoTimeline]:
        """The videos, each as soon as its end is read."""
        return gather(self.records())

    def records(self) -> Iterator[Record]:
        """Those of all lines, and what was noted of a video: after its last window, or in the end why it failed."""
        complete = {number: end for number, end in self._noted.items() if end.error is None}
        for line in self._lines.read():
            record = self._parse(line)
            if record is None:
                continue
            yield record
            end = complete.get(record.number)
            if end is not None and record.window is not None and record.window.index + 1 == end.facts.windows_total:
                yield end
        yield from (end for end in self._noted.values() if end.error is not None)

    def _check_size(self, number: int, entry: Entry, version: Sequence[int] | None) -> None:
        before = self._sizes.get(number)
        if self.find_next(number) and version and before not in (None, version[0]):
            raise InvalidRequest(
                f"{entry.spelt_id!r} is another video than when {self.name!r} was begun: it had {before} bytes, and has"
                f" {version[0]}. Restore the video, or choose another --out."
            )

    def _compare(self, row: TimelineRow) -> None:
        last = self._last[row.number]
        if row.window is None or not is_same(last, row.window):
            raise InvalidRequest(
                f"{row.video!r} is another video than when {self.name!r} was begun: its window {last.index} was {last},"
                f" and is {row.window or 'missing'}. Restore the video, or choose another --out."
            )

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
            self._last[line.number] = line.window
        elif line.is_kept:
            self._final.add(line.number)
            self._last.pop(line.number, None)
        super()._record(line)

    def _read(self) -> bool:
        begun = super()._read()
        if isinstance(self._lines, LineFile):
            for text in self._lines.notes:
                with suppress(*UNREADABLE):  # the video is then looked at again
                    record = json.loads(text)
                    if "size" in record:
                        self._sizes[int(record["row"])] = int(record["size"])
                    else:
                        note = JsonLines().read(text)
                        self._noted[note.number] = note  # the last one counts, of a file that has changed
            for note in self._noted.values():
                super()._record(note)
        return begun


def is_same(before: Window, now: Window) -> bool:
    """Whether two windows come from the same video, perhaps from servers that compute in different precisions."""
    times, found = ((one.start_seconds, one.end_seconds, one.start_frame, one.end_frame) for one in (before, now))
    scores = {make_printable(one.label): one.score for one in now}  # as CSV has them
    lowest = min(scores.values())
    differences = [abs(one.score - scores.get(make_printable(one.label), min(one.score, lowest))) for one in before]
    return times == found and max(differences) <= SCORE_TOLERANCE


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


def write_windows(path: str, top_k: int, records: Iterable[Record]) -> None:
    """Write the windows as CSV, in the order of the records: for stores, where nothing can be appended. Raises OSError.

    None of them stays in memory.
    """
    lines = CsvLines(top_k)
    with open_atomically(path) as file:
        file.write(f"{lines.header()}\n")
        for one in records:
            if one.window is not None:
                file.write(f"{lines.write(TimelineRow(one.id, one.video, one.number, window=one.window))}\n")


def read_version(video: object) -> Sequence[int] | None:
    """Size and time of change of a local file, which show whether it is still the same; None for another video."""
    if not isinstance(video, str | os.PathLike):
        return None
    try:
        found = os.stat(video)  # noqa: PTH116 - a text may be no path
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
