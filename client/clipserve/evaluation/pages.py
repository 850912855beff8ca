"""Reports as HTML pages that need nothing but themselves: styles and plots are inside."""

from typing import Any

from clipserve.evaluation.comparisons import Comparison
from clipserve.evaluation.documents import describe_milliseconds
from clipserve.evaluation.evaluations import Evaluation
from clipserve.evaluation.extra import load
from clipserve.evaluation.figures import MEANINGS
from clipserve.evaluation.plots import draw_confusion, draw_reliability
from clipserve.names import make_printable

MOST_CONFUSIONS = 20
MOST_OPEN_ROWS = 30  # longer tables start folded
MOST_FAILURES = 500  # the JSON has all of them


def render_evaluation(evaluation: Evaluation) -> str:
    """The report on one evaluation."""
    return _render("evaluation.html", evaluation=evaluation)


def render_comparison(comparison: Comparison) -> str:
    """The report on several, with each one's own report folded below."""
    reach = max(
        [
            abs(bound)
            for contrast in comparison.contrasts.values()
            for difference in contrast.differences
            if MEANINGS[difference.metric].is_share
            for bound in (difference.value, *_bounds(difference.interval))
        ],
        default=0.0,
    )
    return _render("comparison.html", comparison=comparison, reach=max(reach, 0.01))


def _render(template: str, **content: Any) -> str:
    jinja2 = load("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clipserve.evaluation"),
        autoescape=True,  # names of files and labels are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # Names may hold what turns the direction of the text after them. Plots are marked up, and no plain str.
        finalize=lambda value: make_printable(value) if type(value) is str else value,
    )
    environment.filters["percent"] = _percent
    environment.globals.update(
        meanings=MEANINGS,
        most_confusions=MOST_CONFUSIONS,
        most_open_rows=MOST_OPEN_ROWS,
        most_failures=MOST_FAILURES,
        milliseconds=describe_milliseconds,
        draw=_draw,
    )
    return str(environment.get_template(template).render(**content))


def _draw(evaluation: Evaluation) -> dict[str, Any]:
    """The plots, marked as HTML."""
    markup = load("markupsafe").Markup
    found = {"reliability": markup(draw_reliability(evaluation.reliability, salt=f"reliability {evaluation.name}"))}
    if evaluation.confusion.classes.size:
        matrix = draw_confusion(evaluation.confusion, evaluation.classes, salt=f"confusion {evaluation.name}")
        found["confusion"] = markup(matrix)
    return found


def _bounds(interval: Any) -> tuple[float, ...]:
    return () if interval is None else (interval.low, interval.high)


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.1f} %"
