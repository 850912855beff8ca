"""The frames a model looked at, drawn from the video that was sent."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ten views of 16 frames. Beyond, a page gets slow and nobody looks.
MOST_FRAMES = 160
HEIGHT_PIXELS = 120
# From a long video in high definition some come in this time; those are shown.
LONGEST_SECONDS = 20.0

_PROGRAM = Path(__file__).with_name("drawing.py")


@dataclass(frozen=True)
class DrawnFrame:
    """One frame: the moment at which it begins, and its JPEG in base64, None where it could not be drawn."""

    seconds: float
    jpeg: str | None


@dataclass(frozen=True)
class Filmstrip:
    """Frames of one video by temporal view, in the order the model got them.

    Attributes:
        views: for each view its frames; a frame that was used twice is there twice.
        left_out: how many frames more the model looked at than are shown.
    """

    views: tuple[tuple[DrawnFrame, ...], ...]
    left_out: int = 0


def read_moments(report: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """When each frame used begins, by temporal view, from a report."""
    by_geometry = report.get("timestamps_seconds") or {}
    # A model reads clips of one geometry.
    return tuple(tuple(float(moment) for moment in view) for views in by_geometry.values() for view in views)


def draw_filmstrip(video: bytes, report: Mapping[str, Any]) -> Filmstrip:
    """Draw the frames that a report names. What cannot be drawn is left blank: the answer stands without it."""
    views: list[tuple[float, ...]] = []
    left_out = 0
    for view in read_moments(report):
        kept = view[: max(0, MOST_FRAMES - sum(map(len, views)))]
        left_out += len(view) - len(kept)
        if kept:
            views.append(kept)
    drawn = draw(video, [moment for view in views for moment in view])
    return Filmstrip(
        tuple(tuple(DrawnFrame(moment, drawn.get(moment)) for moment in view) for view in views), left_out=left_out
    )


def draw_poster(video: bytes, *, height: int = HEIGHT_PIXELS) -> str | None:
    """A JPEG in base64 from about the middle of the video; None if it cannot be drawn."""
    return next(iter(_draw(video, None, height).values()), None)


def draw(video: bytes, seconds: list[float], *, height: int = HEIGHT_PIXELS) -> dict[float, str]:
    """JPEGs in base64 of the frames that begin at these moments, as far as they can be drawn in the time given."""
    return _draw(video, seconds, height)


def _draw(video: bytes, seconds: list[float] | None, height: int) -> dict[float, str]:
    """In a process of its own: a crash or a hang in a decoder ends that one, never the page."""
    order = json.dumps({"seconds": seconds, "height": height}).encode() + b"\n"
    # Isolated: what lies in the working directory must not stand in for a module.
    command = [sys.executable, "-I", str(_PROGRAM)]
    try:
        done = subprocess.run(command, input=order + video, capture_output=True, timeout=LONGEST_SECONDS)
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    drawn = {}
    for line in output.splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last may be cut off
            frame = json.loads(line)
            drawn[frame["seconds"]] = frame["jpeg"]
    return drawn
