"""The two pictures of a load test: latency against throughput, and where the time goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.evaluation.extra import load
from clipserve.evaluation.plots import ACCENT, INK, STYLE, WRONG, to_svg
from loadtest.loads import Limit
from loadtest.measurements import Measurement
from loadtest.tables import MODES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"ensemble": "the whole service", "decode": "decode alone", "net": "network alone"}
DPI = 150


@dataclass(frozen=True)
class Palette:
    """Colours of a picture; the page's stand-ins where it is SVG."""

    ink: str = INK
    accent: str = ACCENT
    wrong: str = WRONG


ON_PAPER = Palette("#1d2326", "#1b7ea6", "#c2491d")


def draw_latency(measurements: Sequence[Measurement], limit: Limit, palette: Palette) -> "Figure | None":
    """Percentiles over throughput, one panel for each way through; None where nothing succeeded."""
    carried = [found for found in measurements if not found.failure]
    ways = list(dict.fromkeys(found.through for found in carried))
    if not ways:
        return None
    figure: Figure = load("matplotlib.figure").Figure(figsize=(3.6 * max(len(ways), 2), 3.7), layout="constrained")
    panels = figure.subplots(1, len(ways), squeeze=False)[0]
    for axes, way in zip(panels, ways, strict=True):
        for mode, line, marker in (("closed", "-", "o"), ("open", (0, (4, 2)), "s")):
            points = [found for found in carried if (found.through, found.mode) == (way, mode)]
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
        if way == "ensemble":
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
        axes.set(title=TITLES[way], xlabel="answers a second", yscale="log")
        axes.set_xlim(left=0)
        _label_decades(axes)
    panels[0].set_ylabel("milliseconds")
    _explain_lines(figure, palette)
    return figure


def _label_decades(axes: "Axes") -> None:
    """Plain numbers, and 1, 2 and 5 of each decade, so that a panel of one decade has more than one."""
    ticker = load("matplotlib.ticker")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.title.set_fontsize(10)


def _explain_lines(figure: "Figure", palette: Palette) -> None:
    line = load("matplotlib.lines").Line2D
    colours = ((50, palette.ink), (95, palette.accent), (99, palette.wrong))
    handles = [line([], [], color=colour, linewidth=2, label=f"p{percentile}") for percentile, colour in colours]
    ink = {"color": palette.ink, "markersize": 4, "linewidth": 1.2}
    handles.append(line([], [], marker="o", label="closed loop", **ink))
    handles.append(line([], [], marker="s", markerfacecolor="none", linestyle="--", label="open loop", **ink))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8)


def draw_split(measurements: Sequence[Measurement], palette: Palette) -> "Figure | None":
    """Where the mean request of the ensemble spends its time, one bar for each load; None where nothing succeeded."""
    carried = [found for found in measurements if found.through == "ensemble" and not found.failure]
    carried.sort(key=lambda found: (found.mode, found.load))
    if not carried:
        return None
    figure: Figure = load("matplotlib.figure").Figure(figsize=(10.8, 1.0 + 0.3 * len(carried)), layout="constrained")
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


def draw_svgs(measurements: Sequence[Measurement], limit: Limit) -> dict[str, str]:
    """Both pictures for the page, as far as there is anything to draw."""
    with load("matplotlib").rc_context(STYLE):
        figures = {
            "latency": (draw_latency(measurements, limit, Palette()), "Latency against throughput"),
            "split": (draw_split(measurements, Palette()), "Where the time of a request goes, by load"),
        }
        return {
            name: to_svg(figure, title, salt=f"load {name}")
            for name, (figure, title) in figures.items()
            if figure is not None
        }


def write_pngs(folder: Path, measurements: Sequence[Measurement], limit: Limit) -> list[Path]:
    """latency.png and split.png, as far as there is anything to draw."""
    own = {key: ON_PAPER.ink if value == INK else value for key, value in STYLE.items()}
    written = []
    with load("matplotlib").rc_context(own):
        figures = {
            "latency.png": draw_latency(measurements, limit, ON_PAPER),
            "split.png": draw_split(measurements, ON_PAPER),
        }
        for name, figure in figures.items():
            if figure is not None:
                figure.savefig(folder / name, dpi=DPI, facecolor="white")
                written.append(folder / name)
    return written
