"""The true segments of videos, from a CSV file with the columns path, start, end and label."""

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from clipserve.errors import InvalidRequest
from clipserve.evaluation.ground_truth import normalise
from clipserve.names import read_name
from clipserve.sources.addresses import hide_credentials, is_elsewhere
from clipserve.sources.entries import Entry
from clipserve.sources.lists import CsvLines, take_surplus

COLUMNS = ("path", "start", "end", "label")


@dataclass(frozen=True)
class TrueSegment:
    """A segment of a video that has a label. start_seconds, end_seconds: from the first frame on."""

    label: str
    start_seconds: float
    end_seconds: float

    @property
    def length_seconds(self) -> float:
        """How long it is."""
        return self.end_seconds - self.start_seconds


@dataclass(frozen=True)
class Truth:
    """Videos and their true segments, in the order of the file.

    videos: entries by the path as the file has it, without credentials.
    """

    videos: Mapping[str, Entry]
    segments: Mapping[str, tuple[TrueSegment, ...]]

    @property
    def labels(self) -> tuple[str, ...]:
        """One spelling of each label, sorted. Case and underscores make no difference."""
        found: dict[str, str] = {}
        for one in chain.from_iterable(self.segments.values()):
            found.setdefault(normalise(one.label), one.label)
        return tuple(sorted(found.values()))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Truth":
        """Read a file. Paths are relative to its folder. A line with only a path is a video without segments.

        Raises:
            InvalidRequest: the file cannot be read, lacks a column, or has a line that is wrong; names the line.
        """
        name, folder = os.fspath(path), Path(path).parent
        videos: dict[str, Entry] = {}
        segments: dict[str, list[TrueSegment]] = {}
        for place, record in _read_records(name):
            video = record["path"]
            if not video:
                raise InvalidRequest(f"{name!r}, {place}: the line has no path")
            if is_elsewhere(video):
                source, video = video, hide_credentials(video)
            else:
                source = str(folder / read_name(video))
            if video not in videos:
                videos[video] = Entry(video, source)
                segments[video] = []
            if record["start"] or record["end"] or record["label"]:
                segments[video].append(_read_segment(record, f"{name!r}, {place}"))
        if not any(segments.values()):
            raise InvalidRequest(f"{name!r} has no segment, so there is nothing to evaluate")
        return cls(videos, {video: tuple(found) for video, found in segments.items()})


def _read_records(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with Path(name).open(encoding="utf-8-sig", newline="") as file:
            lines = CsvLines(file, COLUMNS)
            # Strict: otherwise a quote that is not closed silently takes the segments after it into its field.
            reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
            header = [(column or "").strip() for column in reader.fieldnames or []]
            reader.fieldnames = header
            if missing := [column for column in COLUMNS if column not in header]:
                raise InvalidRequest(
                    f"{name!r} has no column {', '.join(missing)}: true segments are CSV with the columns"
                    f" {', '.join(COLUMNS)}; this file has {', '.join(header) or 'none'}"
                )
            lines.begin_record()
            for record in reader:
                if surplus := take_surplus(record):
                    raise InvalidRequest(f"{name!r}, line {reader.line_num}: {surplus}")
                yield f"line {reader.line_num}", {column: (record[column] or "").strip() for column in COLUMNS}
                lines.begin_record()
    except csv.Error as exc:
        raise InvalidRequest(f"{name!r}, {lines.describe(exc)}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"cannot read {name!r}: {getattr(exc, 'strerror', None) or exc}") from exc


def _read_segment(record: Mapping[str, str], place: str) -> TrueSegment:
    try:
        start, end = float(record["start"]), float(record["end"])
    except ValueError:
        start, end = 0.0, 0.0
    if not record["label"] or not 0 <= start < end < float("inf"):
        raise InvalidRequest(
            f"{place}: a segment needs a label, and an end after its start, in seconds; got start={record['start']!r},"
            f" end={record['end']!r}, label={record['label']!r}"
        )
    return TrueSegment(record["label"], start, end)
