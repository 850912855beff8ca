"""The pictures of growth.py: one panel for each thing that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

BLUE, ORANGE, GREY = "#2f6fde", "#d9772b", "#8a8f98"
LABELS = {
    "concurrency": "requests at a time",
    "batch": "videos in a request",
    "views": "clips of a video",
    "length": "seconds of video",
    "servers": "servers, a core each",
}


def draw(table: pd.DataFrame, model: str, path: Path) -> None:
    """Write a PNG of the kinds of growth that the table has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kinds = [kind for kind in LABELS if (table.kind == kind).any()]
    panels = [kind for kind in ("rate", "latency") if "concurrency" in kinds] + [k for k in kinds if k != "concurrency"]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        draw_panel(axis, panel, table)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8ec", linewidth=0.8)
        axis.set_axisbelow(True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(f"{model}: how cost and latency grow with the work", x=0.01, ha="left", weight="bold")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_panel(axis: Any, panel: str, table: pd.DataFrame) -> None:
    """One of them."""
    if panel in ("rate", "latency"):
        points = table[table.kind == "concurrency"]
        axis.set_xscale("log", base=2)
        axis.set_xticks(points["size"], [f"{size:g}" for size in points["size"]])
        axis.set_xlabel(LABELS["concurrency"])
        if panel == "rate":
            axis.plot(points["size"], points.rate, "o-", color=BLUE)
            overload = table[table.kind == "overload"]
            for _, point in overload.iterrows():
                axis.axhline(point.rate, color=ORANGE, linestyle="--", linewidth=1)
                words = f"asked for {point['size']:g} times the peak"
                axis.text(16, point.rate * 0.97, words, color=ORANGE, ha="center", va="top")
            axis.set_ylim(bottom=0)
            axis.set_title("videos a second", loc="left", fontsize=10)
        else:
            axis.plot(points["size"], points.p50 * 1000, "o-", color=BLUE, label="p50")
            axis.plot(points["size"], points.p95 * 1000, "o-", color=ORANGE, label="p95")
            axis.set_yscale("log")
            axis.legend(frameon=False)
            axis.set_title("latency, ms", loc="left", fontsize=10)
        return
    points = table[table.kind == panel]
    axis.set_xlabel(LABELS[panel])
    if panel == "servers":
        axis.bar(points["size"], points.rate, color=BLUE, width=0.5)
        axis.plot(points["size"], points.rate.iloc[0] * points["size"], "--", color=GREY, label="twice as many for two")
        axis.set_xticks(points["size"])
        axis.legend(frameon=False)
        axis.set_title("videos a second", loc="left", fontsize=10)
    else:
        axis.plot(points["size"], points.p50 * 1000, "o-", color=BLUE)
        axis.set_xlim(left=0)
        axis.set_title("latency, ms", loc="left", fontsize=10)
    axis.set_ylim(bottom=0)
