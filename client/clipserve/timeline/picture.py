"""Timelines as a picture, for reports: a row for each label, bars where it lasts."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.atomic_files import open_atomically
from clipserve.evaluation.plots import cut_label
from clipserve.extras import load
from clipserve.names import make_printable
from clipserve.timeline.page import Row, list_rows
from clipserve.timeline.progress import format_time, shorten
from clipserve.timeline.segments import SegmentOptions, segments
from clipserve.timeline.window_file import VideoTimeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
COLOUR = "#1b7ea6"
WIDTH_INCHES, ROW_INCHES, DPI = 9.0, 0.28, 150
# Of all videos: a picture of 16,800 pixels. matplotlib's limit is 65,535, and its layout takes long for many plots.
MOST_ROWS_SHOWN = 400
# Ahead of the rows of a video: its name; below them: the axis.
_ROWS_AROUND = 2.5


def write_picture(path: str | os.PathLike[str], timelines: Sequence[VideoTimeline], options: SegmentOptions) -> None:
    """Write the picture, in the format of the suffix: PNG, SVG or PDF. Of very many videos it shows the first ones.

    Raises:
        InvalidRequest: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    videos: list[tuple[VideoTimeline, list[Row]]] = []
    height = 0.0
    for timeline in timelines:
        rows = list_rows([], segments(timeline.windows, options), 1.0)
        height += _measure(rows)
        if height > MOST_ROWS_SHOWN:
            break
        videos.append((timeline, rows))
    figure = draw(videos, left_out=len(timelines) - len(videos))
    with open_atomically(path, "wb") as file:
        figure.savefig(file, format=Path(path).suffix.lstrip(".").lower() or "png", dpi=DPI)


def draw(videos: Sequence[tuple[VideoTimeline, Sequence[Row]]], *, left_out: int = 0) -> "Figure":
    """One plot below the other. left_out: how many more videos there are. Raises InvalidRequest: no matplotlib."""
    kind: Any = load("matplotlib.figure", "evaluation").Figure
    heights = [_measure(rows) for _, rows in videos] or [1.0]
    figure: Figure = kind(figsize=(WIDTH_INCHES, ROW_INCHES * sum(heights)), layout="constrained")
    plots = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (timeline, rows) in zip(plots, videos, strict=False):
        _draw_video(axes, timeline, rows)
    if left_out:
        figure.supxlabel(f"and {left_out} more videos", fontsize=9)
    return figure


def _measure(rows: Sequence[Row]) -> float:
    return max(len(rows), 1) + _ROWS_AROUND


def _draw_video(axes: "Axes", timeline: VideoTimeline, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        spans = [(one.start_seconds, one.length_seconds) for one in row.segments]
        axes.broken_barh(spans, (place - 0.38, 0.76), color=COLOUR)
    axes.set(xlim=(0, timeline.length_seconds or 1.0), ylim=(max(len(rows), 1) - 0.5, -0.5))
    # $ and \ would start a formula.
    axes.set_title(_escape(shorten(make_printable(timeline.video))), loc="left", fontsize=9)
    axes.set_yticks(range(len(rows)), [_escape(cut_label(row.label)) for row in rows], fontsize=8)
    axes.xaxis.set_major_formatter(lambda seconds, _: format_time(seconds))
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _escape(text: str) -> str:
    return text.replace("$", r"\$")
