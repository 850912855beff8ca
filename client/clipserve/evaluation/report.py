"""Reports of evaluations and comparisons: plain data, saved as JSON, rendered as a page, printed on a terminal."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipserve.atomic_files import save_text
from clipserve.evaluation.metric_values import METRICS
from clipserve.extras import load
from clipserve.pages import render
from clipserve.tables.formats import write_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

HTML_MODULES = ("matplotlib", "jinja2")  # what a page needs
MOST_CONFUSIONS = 20
MOST_OPEN_ROWS = 30  # longer tables are folded at first
MOST_FAILURES = 500  # the JSON report has all


class Report(ABC):
    """A result that can be saved as JSON, rendered as a page and printed.

    The pages and tables are made from `to_dict()` alone, so that no module which draws depends on the results.
    """

    _kind: ClassVar[str]  # "evaluation" or "comparison": the name of its template
    _templates: ClassVar[str] = "clipserve.evaluation"  # the package of its template

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and texts. NaN is None."""

    @abstractmethod
    def draw_plots(self) -> dict[str, dict[str, str]]:
        """The plots as <svg> elements, by name of the evaluation and of the plot.

        Raises:
            InvalidRequest: matplotlib is not installed.
        """

    def to_json(self, path: str | Path | None = None) -> str:
        """The report as a JSON object. Also written to `path` if given."""
        return save_text(write_json(self.to_dict(), indent=2) + "\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one HTML page with plots that loads nothing else. Also written to `path` if given.

        Raises:
            InvalidRequest: matplotlib or jinja2 is not installed.
        """
        return save_text(render_page(self._kind, self.to_dict(), self.draw_plots(), package=self._templates), path)

    def show(self, console: "Console | None" = None) -> None:
        """Print the tables to the terminal. Raises InvalidRequest if rich is not installed."""
        (console or load("rich.console", "cli").Console()).print(self)

    def __rich__(self) -> "RenderableType":
        from clipserve.evaluation.terminal_report import tabulate

        return tabulate(self._kind, self.to_dict())


def render_page(
    kind: str,
    report: Mapping[str, Any],
    plots: Mapping[str, Mapping[str, str]],
    *,
    package: str = Report._templates,
) -> str:
    """An HTML page with the styles and plots inside.

    Args:
        kind: name of the template.
        report: as from `Report.to_dict`.
        plots: as from `Report.draw_plots`.
        package: the package of the template, which may use those of this one.
    """
    markup = load("markupsafe", "evaluation").Markup
    values = {
        "report": report,
        "plots": {name: {plot: markup(svg) for plot, svg in drawn.items()} for name, drawn in plots.items()},
        "metrics": METRICS,
        "reach": measure_reach(report) if kind == "comparison" else None,
        "most_confusions": MOST_CONFUSIONS,
        "most_open_rows": MOST_OPEN_ROWS,
        "most_failures": MOST_FAILURES,
    }
    filters = {
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "percent": lambda value: "" if value is None else f"{100 * value:.1f} %",
    }
    return render(package, f"{kind}.html", values, filters=filters)


def measure_reach(report: Mapping[str, Any]) -> float:
    """The largest share that a bar of differences has to show, at least 0.01."""
    shown = (
        abs(float(entry[key]))
        for contrast in report["contrasts"].values()
        for name, entry in contrast["differences"].items()
        if METRICS[name].is_share
        for key in ("value", "low", "high")
        if entry[key] is not None
    )
    return max([0.01, *shown])
