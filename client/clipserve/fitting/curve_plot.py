"""The plot of a learning curve."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipserve.evaluation.plots import ACCENT, STYLE, to_svg
from clipserve.extras import load
from clipserve.fitting.cross_validation import CurvePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curve(curve: Sequence[CurvePoint], *, salt: str) -> str:
    """Accuracy over videos a class, with intervals. `salt` makes ids unique on the page."""
    matplotlib = load("matplotlib", "evaluation")
    with matplotlib.rc_context(STYLE):
        figure: Figure = load("matplotlib.figure", "evaluation").Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.subplots()
        videos = [point.videos_per_class for point in curve]
        accuracy = [point.accuracy for point in curve]
        low = [point.interval.low if point.interval else point.accuracy for point in curve]
        high = [point.interval.high if point.interval else point.accuracy for point in curve]
        axes.fill_between(videos, low, high, color=ACCENT, alpha=0.2, linewidth=0)
        axes.plot(videos, accuracy, "o-", color=ACCENT, markersize=4, linewidth=1)
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="videos a class", ylabel="accuracy")
        axes.set_xticks(videos, [f"{count:.0f}" for count in videos])
        axes.minorticks_off()
        return to_svg(figure, "Learning curve: accuracy by videos a class", salt)
