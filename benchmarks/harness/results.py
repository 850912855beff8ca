"""The results: where they go, Markdown tables and pages, CSV, plots."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CACHE = ROOT / ".cache" / "benchmarks"
BLUE, ORANGE, GREY = "#2f6fde", "#d9772b", "#8a8f98"


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with --out, the folder for the results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1) -> list[str]:
    """Lines of a Markdown table. The first `texts` columns are text, the others numbers, aligned right."""
    rule = ["---"] * texts + ["---:"] * (len(columns) - texts)
    return [f"| {' | '.join(map(str, row))} |" for row in (columns, rule, *rows)]


def write_page(path: Path, lines: Sequence[str]) -> None:
    """Write a Markdown file and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows; the columns are those of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def new_figure(columns: int, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels in the style of all benchmarks. `options`: those of matplotlib's subplots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, squeeze=False, layout="constrained", **options)
    panels = list(axes.flat)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e8ec", linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, panels


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG and close the figure."""
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
