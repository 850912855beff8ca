"""Timelines as one HTML page: a row for each label, thumbnails, the labels under the pointer, click to play there.

The page loads nothing but the videos: small ones are part of it, others are played from where they are.
"""

import base64
import mimetypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipserve.atomic_files import save_text
from clipserve.frames.extraction import extract_key_frames
from clipserve.names import make_printable, read_name
from clipserve.pages import render
from clipserve.sources.addresses import is_address
from clipserve.tables.formats import write_json
from clipserve.timeline.progress import format_time
from clipserve.timeline.segments import Segment, SegmentOptions, segments
from clipserve.timeline.truth import TrueSegment
from clipserve.timeline.window import Window
from clipserve.timeline.window_file import VideoTimeline

MOST_EMBEDDED_BYTES = 16 * 1024 * 1024  # of one video
MOST_EMBEDDED_TOTAL = 64 * 1024 * 1024
THUMBNAILS, THUMBNAIL_PIXELS = 16, 72
MOST_ROWS = 30  # labels; the others have shorter segments
# Labels of a window that the page shows under the pointer, and points of a row's curve: a day of video stays light.
LABELS_SHOWN, MOST_POINTS = 3, 600


@dataclass(frozen=True)
class Row:
    """One label and its segments.

    Attributes:
        curve: its score over time as an SVG path; "" for none.
        kind: "truth" or "found", where there is a row of each; else "".
    """

    label: str
    segments: Sequence[Segment | TrueSegment]
    curve: str = ""
    kind: str = ""


def write_page(path: str | os.PathLike[str], timelines: Sequence[VideoTimeline], options: SegmentOptions) -> None:
    """Write the page.

    Raises:
        InvalidRequest: jinja2 is not installed.
        OSError: the file cannot be written.
    """
    videos = []
    room = MOST_EMBEDDED_TOTAL
    for timeline in timelines:
        found = find_file(timeline.video)
        size = found.stat().st_size if found else 0
        embed = size <= min(MOST_EMBEDDED_BYTES, room)
        room -= size if embed else 0
        source = choose_source(timeline.video, found, Path(path).parent, embed=embed)
        videos.append(describe_video(timeline, options, file=found, source=source))
    save_text(render_page(videos), path)


def render_page(videos: Sequence[dict[str, Any]]) -> str:
    """The page of the videos that `describe_video` describes. Raises InvalidRequest: jinja2 is not installed."""
    return render("clipserve.timeline", "timeline.html", {"videos": videos}, filters={"clock": format_time})


def describe_video(
    timeline: VideoTimeline, options: SegmentOptions, *, file: Path | None, source: str
) -> dict[str, Any]:
    """What the page shows of a video. file: for the thumbnails; source: what the player opens, "" for no player."""
    windows, length = timeline.windows, timeline.length_seconds
    return {
        "name": make_printable(timeline.video),
        "length": length or 1.0,
        "windows": len(windows),
        "truncated": bool(timeline.facts.truncated),
        "error": make_printable(str(timeline.error["message"])) if timeline.error else "",
        "source": source,
        "thumbnails": extract_thumbnails(file, length) if file else [],
        "rows": list_rows(windows, segments(windows, options), length or 1.0),
        "marks": choose_marks(length),
        "data": list_windows(windows),
    }


def find_file(video: str) -> Path | None:
    """The local file of a video, if it has one."""
    name = read_name(video)
    path = Path(name)
    try:
        return path if not is_address(name) and path.is_file() else None
    except (OSError, ValueError):
        return None


def choose_source(video: str, file: Path | None, folder: Path, *, embed: bool) -> str:
    """What the page's player opens: the video itself, its place seen from the page, or its address; "" for nothing."""
    if file is None:
        return video if is_address(video) else ""
    if embed:
        kind = mimetypes.guess_type(file.name)[0] or "video/mp4"
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    try:
        return quote(os.fsencode(file.resolve().relative_to(folder.resolve())))  # names need not be UTF-8
    except ValueError:
        return file.resolve().as_uri()


def extract_thumbnails(file: Path, length: float) -> list[str]:
    """JPEGs in base64, in the middle of equal parts of the video; "" for one that cannot be extracted."""
    times = [round(length * (number + 0.5) / THUMBNAILS, 3) for number in range(THUMBNAILS)]
    found = extract_key_frames(file, times, height=THUMBNAIL_PIXELS)
    return [found.get(time, "") for time in times] if found else []


def list_rows(windows: Sequence[Window], found: Iterable[Segment], length: float) -> list[Row]:
    """A row for each label, in the order in which they first appear; of many those with the longest segments.

    windows: for the curves of the scores; length: of the video, in seconds.
    """
    by_label: dict[str, list[Segment]] = {}
    for segment in found:
        by_label.setdefault(segment.label, []).append(segment)
    longest = sorted(by_label, key=lambda name: -sum(one.length_seconds for one in by_label[name]))[:MOST_ROWS]
    return [
        Row(make_printable(name), parts, draw_curve(windows, name, length))
        for name, parts in by_label.items()
        if name in longest
    ]


def draw_curve(windows: Sequence[Window], label: str, length: float) -> str:
    """The score of a label over `length` seconds as an SVG path in a box of 1000 x 100: the largest of each point."""
    if not windows:
        return ""
    size = -(-len(windows) // MOST_POINTS)
    points = []
    for begin in range(0, len(windows), size):
        part = windows[begin : begin + size]
        score = max((scored.score for window in part for scored in window if scored.label == label), default=0.0)
        middle = (part[0].middle_seconds + part[-1].middle_seconds) / 2
        points.append(f"{1000 * middle / length:.1f} {100 - 100 * score:.1f}")
    # Windows need not begin with the video, nor reach its end.
    first, last = (1000 * seconds / length for seconds in (windows[0].start_seconds, windows[-1].end_seconds))
    return f"M{first:.1f} 100L{'L'.join(points)}L{last:.1f} 100Z"


def choose_marks(length: float) -> list[float]:
    """Times for the axis: between five and ten, or one for each second of a short video."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((step for step in steps if length / step <= 10), steps[-1])
    # A time is written to the right of its mark: at the end of the axis there is no room for it.
    return [float(number * step) for number in range(int(length / step) + 1) if number * step <= 0.94 * length]


def list_windows(windows: Sequence[Window]) -> str:
    """[start, end, [[label, score], ...]] of each window, as JSON that is safe inside a script element."""
    described = [
        [
            round(window.start_seconds, 3),
            round(window.end_seconds, 3),
            [[make_printable(scored.label), round(scored.score, 3)] for scored in window.labels[:LABELS_SHOWN]],
        ]
        for window in windows
    ]
    return write_json(described).replace("<", "\\u003c")
