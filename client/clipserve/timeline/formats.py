"""Segments of videos in the formats of players and annotation tools."""

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest
from clipserve.names import make_printable, read_name
from clipserve.sources.addresses import is_elsewhere
from clipserve.sources.lists import JSON_LINES
from clipserve.sources.remote_paths import hide_secrets
from clipserve.tables.formats import write_json
from clipserve.timeline.segments import Segment
from clipserve.timeline.window_lines import CSV, write_cells

Video = TypeVar("Video")

# The windows of all videos, in a folder that gets a file for each.
JOURNAL = "windows.jsonl"
# Of a file about one video: file systems allow 255, with the suffix and a number.
MOST_NAME_BYTES = 200


@dataclass(frozen=True)
class VideoSegments:
    """The segments of one video, and its path or address."""

    video: str
    segments: list[Segment]


Writer = Callable[[Iterable[VideoSegments]], Iterator[str]]


@dataclass(frozen=True)
class SegmentFormat:
    """A format. write: gives the text in parts. single: a file is about one video."""

    title: str
    suffix: str
    write: Writer
    single: bool = False


def write_csv(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """path, start, end, label, score and more: the columns of ground truth first."""
    yield write_cells(["path", "start", "end", "label", "score", "start_frame", "end_frame"]) + "\n"
    for video in videos:
        for one in video.segments:
            times = (f"{one.start_seconds:.3f}", f"{one.end_seconds:.3f}")
            cells = [make_printable(video.video), *times, make_printable(one.label), f"{one.score:.6f}"]
            yield write_cells([*cells, one.start_frame, one.end_frame]) + "\n"


def write_json_lines(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """An object for each segment."""
    for video in videos:
        yield from (write_json({"video": video.video, **describe_segment(one)}) + "\n" for one in video.segments)


def write_webvtt(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """Subtitles: https://www.w3.org/TR/webvtt1/. A player shows the label while it lasts."""
    yield "WEBVTT\n"
    for video in videos:
        for one in video.segments:
            label = make_printable(one.label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            yield f"\n{format_time(one.start_seconds)} --> {format_time(one.end_seconds)}\n{label}\n"


def write_elan(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """For ELAN's File > Import > CSV / Tab-delimited Text File: tier, begin time, end time, annotation.

    Annotations of one tier may not overlap, so each label has a tier of its own.
    """
    yield write_cells(["Tier", "Begin Time", "End Time", "Annotation"]) + "\n"
    for video in videos:
        for one in video.segments:
            label = make_printable(one.label)
            yield write_cells([label, format_time(one.start_seconds), format_time(one.end_seconds), label]) + "\n"


def write_via(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """As the VGG Image Annotator 3 exports the annotations of videos (project_export_csv in its _via_data.js)."""
    yield "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)\n"
    yield '# ATTRIBUTES = {"1":"label"}\n'
    yield "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
    for number, video in enumerate(videos, 1):
        files = write_json([Path(video.video).name])
        for one in video.segments:
            times = f"[{one.start_seconds:.3f},{one.end_seconds:.3f}]"
            id, labels = f"{number}_{secrets.token_hex(4)}", write_json({"1": one.label})
            yield f'{_quote(id)},{_quote(files)},0,{_quote(times)},"[]",{_quote(labels)}\n'


def write_fiftyone(videos: Iterable[VideoSegments]) -> Iterator[str]:
    """labels.json of a FiftyOneTemporalDetectionDataset: frames [first, last], counted from 1.

    >>> kind = fiftyone.types.FiftyOneTemporalDetectionDataset
    >>> fiftyone.Dataset.from_dir(dataset_type=kind, labels_path="timeline.json", data_path="videos/")
    """
    yield '{"labels": {'
    for number, video in enumerate(videos):
        name = read_name(video.video)
        key = video.video if is_elsewhere(name) else str(Path(name).absolute())
        detections = [
            {
                "label": one.label,
                "support": [one.start_frame + 1, max(one.end_frame, one.start_frame + 1)],
                "confidence": round(one.score, 6),
            }
            for one in video.segments
        ]
        yield f"{',' if number else ''}\n{json.dumps(key)}: {write_json(detections)}"
    yield "\n}}\n"


FORMATS: dict[str, SegmentFormat] = {
    "csv": SegmentFormat("CSV", CSV, write_csv),
    "jsonl": SegmentFormat("JSON lines", JSON_LINES[0], write_json_lines),
    "webvtt": SegmentFormat("WebVTT", ".vtt", write_webvtt, single=True),
    "elan": SegmentFormat("ELAN", ".elan.csv", write_elan, single=True),
    "via": SegmentFormat("VIA", ".via.csv", write_via),
    "fiftyone": SegmentFormat("FiftyOne", ".json", write_fiftyone),
}


def find_format(path: str) -> str | None:
    """The name of the format that a file's suffix says: the longest one that fits."""
    fitting = [name for name, known in FORMATS.items() if path.lower().endswith(known.suffix)]
    if path.lower().endswith(JSON_LINES):
        return "jsonl"
    return max(fitting, key=lambda name: len(FORMATS[name].suffix), default=None)


def write_segments(path: str, name: str, videos: Iterable[VideoSegments], *, folder: bool = False) -> None:
    """Write a file, or with `folder` a file for each video into it, see `name_files`.

    Raises:
        InvalidRequest: there are several videos, and the format is for one.
        OSError: the file cannot be written.
    """
    known = FORMATS[name]
    if folder:
        found = list(videos)
        for video, stem in zip(found, name_files([video.video for video in found]), strict=True):
            with open_atomically(f"{path.rstrip('/')}/{stem}{known.suffix}") as file:
                file.writelines(known.write([video]))
        return
    with open_atomically(path) as file:
        file.writelines(known.write(require_one(videos, path) if known.single else videos))


def name_files(videos: Sequence[str]) -> list[str]:
    """A name, without a suffix, for the file about each video: each one differs from all others.

    It is the video's own name. Videos that share it have their suffix and their folders in it, as many as tell them
    apart: a_match.mp4 and b_match.mp4. The same video, given twice, gets a number. Long names are cut.
    """
    parts = [[part for part in PurePosixPath(video).parts if part != "/"] or ["video"] for video in videos]
    names = [PurePosixPath(own[-1]).stem or own[-1] for own in parts]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        # Case makes no difference in the file systems of some machines.
        counts = Counter(name.lower() for name in names)
        names = [
            "_".join(own[-depth:]) if counts[name.lower()] > 1 else name for own, name in zip(parts, names, strict=True)
        ]
    names = [_shorten(name) for name in names]
    taken = {Path(JOURNAL).stem}
    for place in sorted(range(len(names)), key=lambda place: videos[place]):
        name, number = names[place], 1
        while names[place].lower() in taken:
            number += 1
            names[place] = f"{name}-{number}"
        taken.add(names[place].lower())
    return names


def _shorten(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= MOST_NAME_BYTES else encoded[:MOST_NAME_BYTES].decode(errors="ignore")


def require_one(videos: Iterable[Video], path: str) -> Iterator[Video]:
    """The video of a file that can have one. Raises InvalidRequest at the second one."""
    for number, video in enumerate(videos):
        if number:
            raise InvalidRequest(
                f"{hide_secrets(path)!r} can have one video, and there are several: give an existing"
                " folder as --out, and --format. The address of a folder in a store ends in a slash"
            )
        yield video


def describe_segment(segment: Segment) -> dict[str, Any]:
    """A segment as a dict that JSON can hold."""
    return {
        "start": round(segment.start_seconds, 6),
        "end": round(segment.end_seconds, 6),
        "start_frame": segment.start_frame,
        "end_frame": segment.end_frame,
        "label": segment.label,
        "index": segment.index,
        "score": round(segment.score, 6),
        "windows": segment.windows,
    }


def format_time(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}"
        f":{milliseconds // 1000 % 60:02}.{milliseconds % 1000:03}"
    )


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
