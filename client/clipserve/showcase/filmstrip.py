"""The frames that a model saw, extracted from the video that was sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipserve.frames.extraction import extract

# Ten views of 16 frames. With more, a page gets slow and nobody looks at them.
MOST_FRAMES = 160


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


def read_times(report: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """From a report, the times at which the used frames begin, by temporal view."""
    by_geometry = report.get("timestamps_seconds") or {}
    # A model has clips of one geometry.
    return tuple(tuple(float(time) for time in view) for views in by_geometry.values() for view in views)
