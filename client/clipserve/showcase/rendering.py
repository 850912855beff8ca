"""The parts of the page as HTML. Everything that comes from a file or the server is escaped."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.errors import ClipserveError, RequestError, ServerError, VideoError
from clipserve.showcase.filmstrip import Filmstrip
from clipserve.showcase.inquiry import Inquiry

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent

# By kind of error; the message says the rest.
TITLES: tuple[tuple[type[ClipserveError], str], ...] = (
    (VideoError, "This video cannot be classified."),
    (RequestError, "This cannot be asked."),
    (ServerError, "The server has no answer."),
)
NOTHING = ""


def render_header(url: str, models: Sequence[str], failure: ClipserveError | None = None) -> str:
    """The top of the page: whose server it is, and whether it answers."""
    return _render("header", url=url, models=models, failure=str(failure) if failure else "")


def render_empty(*, samples: bool) -> str:
    """In the place of an answer, before there is one."""
    return _render("empty", samples=samples)


def render_preview(file: str | None) -> str:
    """A player for the file, as far as the browser can play it."""
    return _render("preview", path=file) if file else NOTHING


def render_pending(name: str, model: str | None) -> str:
    """In the place of an answer, while it is waited for."""
    return _render("pending", name=name, model=model)


def render_failure(error: ClipserveError) -> str:
    """In the place of an answer, when there will be none."""
    title = next((title for kind, title in TITLES if isinstance(error, kind)), "This did not work.")
    return _render("failure", title=title, message=_sentence(str(error)), code=error.code)


def render_answer(inquiry: Inquiry) -> str:
    """Labels with bars, a warning if the file is damaged or cut off, and where the time went."""
    return _render("answer", inquiry=inquiry, top=inquiry.prediction.top)


def render_filmstrip(inquiry: Inquiry, strip: Filmstrip) -> str:
    """The frames with their times; nothing where the report names none."""
    return _render("filmstrip", strip=strip, summary=describe_sampling(inquiry)) if strip.views else NOTHING


def render_facts(inquiry: Inquiry) -> str:
    """What the report says of the file."""
    return _render("facts", facts=list_facts(inquiry)) if inquiry.report else NOTHING


def describe_sampling(inquiry: Inquiry) -> str:
    """How the frames were chosen, as a sentence."""
    question = inquiry.options
    views = [view for views in inquiry.report.get("timestamps_seconds", {}).values() for view in views]
    frames = len(views[0]) if views else 0
    part = "the whole video"
    if question.start is not None or question.end is not None:
        end = "the end" if question.end is None else f"{question.end:g} s"
        part = f"what lies between {question.start or 0:g} s and {end}"
    if question.sampling == "uniform":
        chosen = f"{frames} frames, evenly spread over {part}"
    elif len(views) == 1:
        chosen = f"One clip of {frames} frames from {part}"
    else:
        chosen = f"{len(views)} clips of {frames} frames, spread over {part}"
    return f"{chosen}; three squares of each frame." if question.crops == 3 else f"{chosen}."


def list_facts(inquiry: Inquiry) -> list[tuple[str, str]]:
    """(name, value) of what there is to say, for people."""
    report = inquiry.report
    facts: list[tuple[str, str]] = []
    if report.get("codec"):
        # FFmpeg names all the containers that one demuxer reads.
        container = inquiry.name.rpartition(".")[2] if "." in inquiry.name else ""
        known = str(report.get("container", "")).split(",")
        facts.append(("codec", f"{report['codec']} in {container if container in known else known[0]}"))
    if report.get("width"):
        facts.append(("picture", f"{report['width']} x {report['height']}"))
    if report.get("rotation_degrees"):
        facts.append(("turned by", f"{report['rotation_degrees']} degrees"))
    if report.get("duration_seconds"):
        facts.append(("duration", f"{report['duration_seconds']:.2f} s"))
    if report.get("fps"):
        facts.append(("frame rate", f"{report['fps']:.4g} per second"))
    if report.get("frames"):
        facts.append(("frames", f"{report['frames']}"))
    if report.get("decoded_frames"):
        facts.append(("decoded", f"{report['decoded_frames']} of them"))
    return facts


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(f"{template}.html").render(values)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda score: f"{score * 100:.1f} %"
    environment.filters["width"] = lambda share: f"{max(0.0, min(1.0, share)) * 100:.2f}"
    environment.filters["seconds"] = lambda seconds: f"{seconds:.2f} s"
    environment.filters["milliseconds"] = lambda value: f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
    return environment


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
