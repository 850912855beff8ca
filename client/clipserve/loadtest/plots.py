"""The two plots of a load test: latency against throughput, and where the time of a request goes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from clipserve.evaluation.plots import ACCENT, INK, STYLE, WRONG, to_svg
from clipserve.loadtest.load_levels import LatencyLimit
from clipserve.loadtest.measurements import Measurement

TITLES = {"ensemble": "the whole service", "decode": "decode alone", "net": "network alone"}
MODES = {"closed": "in flight", "open": "a second"}
DPI = 150


@dataclass(frozen=True)
class Palette:
    """The colours of a plot; by default the placeholders that an SVG replaces with the page's colours."""

    ink: str = INK
    accent: str = ACCENT
    wrong: str = WRONG


PNG_PALETTE = Palette("#1d2326", "#1b7ea6", "#c2491d")


def draw_latency(measurements: Sequence[Measurement], limit: LatencyLimit, palette: Palette) -> Figure | None:
    """Plot percentiles over throughput, one panel for each part of the service; None if every run failed."""
    carried = [found for found in measurements if not found.failure]
    parts = list(dict.fromkeys(found.through for found in carried))
    if not parts:
        return None
    figure = Figure(figsize=(3.6 * max(len(parts), 2), 3.7), layout="constrained")
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=True):
        for mode, line, marker in (("closed", "-", "o"), ("open", (0, (4, 2)), "s")):
            points = [found for found in carried if (found.through, found.mode) == (part, mode)]
            points.sort(key=lambda found: found.load)
            for percentile, colour in ((50, palette.ink), (95, palette.accent), (99, palette.wrong)):
                axes.plot(
                    [found.throughput for found in points],
                    [found.percentile(percentile) for found in points],
                    linestyle=line,
                    marker=marker,
                    markersize=4,
                    linewidth=1.4,
                    color=colour,
                    label=f"p{percentile}",
                    markerfacecolor=colour if mode == "closed" else "none",
                )
        if part == "ensemble":
            axes.axhline(limit.milliseconds, color=palette.ink, linewidth=0.7, linestyle=(0, (1, 2)))
            axes.annotate(
                f"limit of p{limit.percentile}",
                (0, limit.milliseconds),
                xycoords=("axes fraction", "data"),
                xytext=(4, 3),
                textcoords="offset points",
                ha="left",
                fontsize=7,
                color=palette.ink,
            )
        axes.set(title=TITLES[part], xlabel="answers a second", yscale="log")
        axes.set_xlim(left=0)
        _label_decades(axes)
    panels[0].set_ylabel("milliseconds")
    _add_legend(figure, palette)
    return figure


def _label_decades(axes: Axes) -> None:
    """Label 1, 2 and 5 of each decade with plain numbers, so that a panel of one decade has several labels."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.title.set_fontsize(10)


def _add_legend(figure: Figure, palette: Palette) -> None:
    colours = ((50, palette.ink), (95, palette.accent), (99, palette.wrong))
    handles = [Line2D([], [], color=colour, linewidth=2, label=f"p{percentile}") for percentile, colour in colours]
    ink: dict[str, Any] = {"color": palette.ink, "markersize": 4, "linewidth": 1.2}
    handles.append(Line2D([], [], marker="o", label="closed loop", **ink))
    handles.append(Line2D([], [], marker="s", markerfacecolor="none", linestyle="--", label="open loop", **ink))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8)


def draw_split(measurements: Sequence[Measurement], palette: Palette) -> Figure | None:
    """Plot where the mean request of the ensemble spends its time, one bar a load; None if every run failed."""
    carried = [found for found in measurements if found.through == "ensemble" and not found.failure]
    carried.sort(key=lambda found: (found.mode, found.load))
    if not carried:
        return None
    figure = Figure(figsize=(10.8, 1.0 + 0.3 * len(carried)), layout="constrained")
    axes = figure.subplots()
    parts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("decode", {"color": palette.accent}),
        ("model", {"color": palette.wrong}),
        ("queue", {"color": palette.ink, "alpha": 0.4}),
        ("outside", {"color": palette.ink, "alpha": 0.15}),
    )
    names = [f"{found.load:g} {MODES[found.mode]}" for found in carried]
    places = [number + (0.6 if found.mode == "open" else 0) for number, found in enumerate(carried)]
    left = [0.0] * len(carried)
    for part, style in parts:
        widths = [getattr(found, part) or 0.0 for found in carried]
        axes.barh(places, widths, left=left, height=0.72, label=part, linewidth=0, **style)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds of the mean request")
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def draw_svgs(measurements: Sequence[Measurement], limit: LatencyLimit) -> dict[str, str]:
    """Draw both plots for the page, as far as there are measurements."""
    titles = {"latency": "Latency against throughput", "split": "Where the time of a request goes, by load"}
    with _styled(Palette()):
        return {
            name: to_svg(figure, titles[name], salt=f"load {name}")
            for name, figure in _draw_all(measurements, limit, Palette())
        }


def write_pngs(folder: Path, measurements: Sequence[Measurement], limit: LatencyLimit) -> list[Path]:
    """Write latency.png and split.png, as far as there are measurements."""
    written = []
    with _styled(PNG_PALETTE):
        for name, figure in _draw_all(measurements, limit, PNG_PALETTE):
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=DPI, facecolor="white")
    return written


def _styled(palette: Palette) -> AbstractContextManager[None]:
    style: Any = {key: palette.ink if value == INK else value for key, value in STYLE.items()}
    return mpl.rc_context(style)


def _draw_all(
    measurements: Sequence[Measurement], limit: LatencyLimit, palette: Palette
) -> Iterator[tuple[str, Figure]]:
    if latency := draw_latency(measurements, limit, palette):
        yield "latency", latency
    if split := draw_split(measurements, palette):
        yield "split", split
