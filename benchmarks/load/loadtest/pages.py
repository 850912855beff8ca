"""The page of a load test: one HTML file that needs nothing but itself."""

from collections.abc import Mapping
from pathlib import Path

from clipserve.evaluation.extra import load
from loadtest.campaign import Plan, Results
from loadtest.plots import draw_svgs
from loadtest.tables import SHOWN, format_rows


def render_page(results: Results, plan: Plan, *, model: str, settings: Mapping[str, str]) -> str:
    """The whole page. `settings`: what else it should say about the run."""
    jinja2 = load("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            # The styles are those of the evaluation's reports.
            [jinja2.FileSystemLoader(Path(__file__).parent / "templates"), jinja2.PackageLoader("clipserve.evaluation")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    markup = load("markupsafe").Markup
    carried = [found for found in results.measurements if found.through == "ensemble" and not found.failure]
    return str(
        environment.get_template("load.html").render(
            model=model,
            plan=plan,
            results=results,
            settings=settings,
            best=max((found.throughput or 0.0 for found in carried), default=None),
            quickest=min((found.p50 or 0.0 for found in carried), default=None),
            rows=format_rows(results.measurements),
            headings=SHOWN,
            drawn={name: markup(svg) for name, svg in draw_svgs(results.measurements, plan.limit).items()},
        )
    )
