"""The plots of a report, as SVG that takes the fonts and colours of its page, light or dark."""

import io
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipserve.evaluation.metrics import Confusion, Reliability
from clipserve.extras import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib takes no CSS. `to_svg` replaces these placeholders by the page's colours.
INK, ACCENT, WRONG = "#010101", "#020202", "#030303"
CSS_COLOURS = {INK: "currentColor", ACCENT: "var(--accent)", WRONG: "var(--wrong)"}

# A raster image takes no CSS either. These colours are visible on white and on black; transparency makes them paler.
RIGHT_RGB, WRONG_RGB = (0.13, 0.50, 0.68), (0.85, 0.33, 0.18)
FAINTEST, STRONGEST = 0.25, 0.85  # a single mistake among many must be visible
FAINTEST_DOT = 0.6

MOST_NAMED_CLASSES = 24  # with more classes, names and numbers do not fit
# In characters. A label of 300, such as a whole sentence, leaves no room for the plot.
LONGEST_LABEL = 40

RASTER_DPI = 200

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label with two $ is no formula
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def draw_reliability(reliability: Reliability, *, salt: str) -> str:
    """Accuracy over confidence above, the number of answers below. `salt` makes ids unique on the page."""
    matplotlib = load("matplotlib", "evaluation")
    with matplotlib.rc_context(STYLE):
        figure: Figure = load("matplotlib.figure", "evaluation").Figure(figsize=(4.6, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        edges, width = reliability.edges[:-1], 1 / len(reliability.counts)
        used = reliability.counts > 0
        upper.bar(edges[used], reliability.accuracy[used], width, align="edge", color=ACCENT, alpha=0.55)
        upper.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        upper.plot(
            reliability.confidence[used], reliability.accuracy[used], "o", color=ACCENT, markersize=4, linestyle="none"
        )
        upper.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
        lower.bar(edges, reliability.counts, width, align="edge", color=INK, alpha=0.35)
        lower.set(xlabel="score of the top label", ylabel="answers")
        lower.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        return to_svg(figure, "Reliability diagram: share of right answers by the score of the top label", salt)


def draw_confusion(confusion: Confusion, classes: tuple[str, ...], *, salt: str) -> str:
    """One row per true label, one column per predicted label. The stronger a cell, the larger its share of the row."""
    named = len(confusion.classes) <= MOST_NAMED_CLASSES
    matplotlib = load("matplotlib", "evaluation")
    with matplotlib.rc_context(STYLE):
        side = 2.6 + 0.33 * len(confusion.classes) if named else 6.6
        figure: Figure = load("matplotlib.figure", "evaluation").Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="predicted label", ylabel="true label", aspect="equal")
        if named:
            axes.pcolormesh(_colour_cells(confusion.counts))
            _name_cells(axes, confusion, [cut_label(classes[index]) for index in confusion.classes])
        else:
            _dot_cells(axes, confusion)
        axes.set(xlim=(0, len(confusion.classes)), ylim=(len(confusion.classes), 0))
        return to_svg(figure, f"Confusion matrix of {len(confusion.classes)} classes", salt)


def cut_label(label: str) -> str:
    """The label, or its beginning."""
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 3]}..."


def to_svg(figure: "Figure", title: str, salt: str) -> str:
    """The figure as an <svg> element that takes fonts and colours from its page. `salt` makes ids unique there."""
    matplotlib = load("matplotlib", "evaluation")
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # The plots of one page must not share ids.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        # The letters are text, which the browser draws with fonts of its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=RASTER_DPI)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(
        r'<svg width="([\d.]+)pt" height="[\d.]+pt"',
        rf'<svg style="max-width:\1pt" role="img" aria-label="{title}"',
        text,
    )
    for placeholder, colour in CSS_COLOURS.items():
        text = text.replace(placeholder, colour)
    return text


def _colour_cells(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """RGBA [M, M, 4]: the diagonal in one colour, mistakes in another, empty cells transparent."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.empty((*counts.shape, 4))
    cells[..., :3] = WRONG_RGB
    cells[np.eye(len(counts), dtype=bool), :3] = RIGHT_RGB
    cells[..., 3] = np.where(counts > 0, FAINTEST + (STRONGEST - FAINTEST) * share, 0)
    return cells


def _name_cells(axes: "Axes", confusion: Confusion, names: list[str]) -> None:
    middles = np.arange(len(names)) + 0.5
    axes.set_xticks(middles, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, names)
    axes.tick_params(length=0)
    for row, column in zip(*np.nonzero(confusion.counts), strict=True):
        count = str(confusion.counts[row, column])
        axes.text(column + 0.5, row + 0.5, count, ha="center", va="center", fontsize=8)


def _dot_cells(axes: "Axes", confusion: Confusion) -> None:
    """Draw dots larger than their cells: a cell of 400 x 400 would be too small to see."""
    rows, columns = np.nonzero(confusion.counts)
    colours = _colour_cells(confusion.counts)[rows, columns]
    colours[:, 3] = np.maximum(colours[:, 3], FAINTEST_DOT)
    order = np.argsort(colours[:, 3])  # strong colours on top
    points = max(2.2, 400 / len(confusion.classes))
    axes.scatter(
        columns[order] + 0.5,
        rows[order] + 0.5,
        s=points**2,
        c=colours[order],
        marker="s",
        linewidths=0,
        rasterized=True,  # thousands of dots would make the page megabytes long
    )
    axes.set_xlabel(f"predicted label: {len(confusion.classes)} classes in the model's order")
