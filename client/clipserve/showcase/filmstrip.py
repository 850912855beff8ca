"""The frames that a model saw, extracted from the video that was sent."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ten views of 16 frames. With more, a page gets slow and nobody looks at them.
MOST_FRAMES = 160
HEIGHT_PIXELS = 120
# For a long video in high definition this is enough for some of the frames. The page shows those.
LONGEST_SECONDS = 20.0

_PROGRAM = Path(__file__).with_name("frame_program.py")


@dataclass(frozen=True)
class ShownFrame:
    """One frame: the time at which it begins, and its JPEG in base64, or None if it could not be extracted."""

    seconds: float
    jpeg: str | None


@dataclass(frozen=True)
class Filmstrip:
    """Frames of one video by temporal view, in the order in which the model got them.

    Attributes:
        views: the frames of each view; a frame that the model got twice is there twice.
        left_out: how many more frames the model got than `views` has.
    """

    views: tuple[tuple[ShownFrame, ...], ...]
    left_out: int = 0


def extract_filmstrip(video: bytes, report: Mapping[str, Any]) -> Filmstrip:
    """Extract the frames that a report lists. Frames that cannot be extracted have no JPEG."""
    views: list[tuple[float, ...]] = []
    left_out = 0
    for view in read_times(report):
        kept = view[: max(0, MOST_FRAMES - sum(map(len, views)))]
        left_out += len(view) - len(kept)
        if kept:
            views.append(kept)
    jpegs = extract(video, [time for view in views for time in view])
    return Filmstrip(
        tuple(tuple(ShownFrame(time, jpegs.get(time)) for time in view) for view in views), left_out=left_out
    )


def extract_thumbnail(video: bytes, *, height: int = HEIGHT_PIXELS) -> str | None:
    """A JPEG in base64 from about the middle of the video, or None."""
    return next(iter(extract(video, None, height=height).values()), None)


def read_times(report: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """From a report, the times at which the used frames begin, by temporal view."""
    by_geometry = report.get("timestamps_seconds") or {}
    # A model has clips of one geometry.
    return tuple(tuple(float(time) for time in view) for views in by_geometry.values() for view in views)


def extract(video: bytes, seconds: list[float] | None, *, height: int = HEIGHT_PIXELS) -> dict[float, str]:
    """JPEGs in base64 of the frames that begin at `seconds`, as many as can be extracted within LONGEST_SECONDS.

    None requests one frame from about the middle. FFmpeg runs in a process of its own: if a decoder crashes or hangs,
    that process ends and the page goes on.
    """
    return _run({"seconds": seconds, "height": height}, video)


def extract_key_frames(path: Path, seconds: list[float], *, height: int) -> dict[float, str]:
    """JPEGs in base64 of the key frames at or before `seconds` in a file, as many as come within LONGEST_SECONDS."""
    return _run({"path": str(path.absolute()), "key_frames": True, "seconds": seconds, "height": height})


def _run(request: dict[str, Any], video: bytes = b"") -> dict[float, str]:
    # -I: files in the working directory must not replace modules.
    command = [sys.executable, "-I", str(_PROGRAM)]
    try:
        output = subprocess.run(
            command, input=json.dumps(request).encode() + b"\n" + video, capture_output=True, timeout=LONGEST_SECONDS
        ).stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    jpegs = {}
    for line in output.splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last line may be incomplete
            frame = json.loads(line)
            jpegs[frame["seconds"]] = frame["jpeg"]
    return jpegs
