"""HTML pages that load nothing else, from templates."""

from collections.abc import Callable, Mapping
from typing import Any

from clipserve.extras import load
from clipserve.names import make_printable

STYLES = "clipserve.evaluation"  # the package of the styles that all pages share


def render(
    package: str,
    template: str,
    values: Mapping[str, Any],
    *,
    filters: Mapping[str, Callable[..., str]] | None = None,
    extra: str = "evaluation",
) -> str:
    """A page.

    Args:
        package: has the template in its folder `templates`; those of STYLES can be used in it.
        template: its file.
        values: what the template shows, by name.
        filters: functions that the template calls, by name.
        extra: of clipserve, which brings jinja2 along.

    Raises:
        InvalidRequest: jinja2 is not installed.
    """
    jinja2 = load("jinja2", extra)
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((package, STYLES))]),
        autoescape=True,  # anybody may have chosen the names of files and labels
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # Names may contain characters that change the direction of the text after them. Plots are Markup, not str.
        finalize=lambda value: make_printable(value) if type(value) is str else value,
    )
    environment.filters.update(filters or {})
    return str(environment.get_template(template).render(values))
