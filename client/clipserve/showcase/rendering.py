"""The parts of the page as HTML. All text from files and from the server is escaped."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.errors import ClipserveError, RequestError, ServerError, VideoError
from clipserve.evaluation.metric_values import METRICS
from clipserve.fitting.fitted import Fitted
from clipserve.showcase.filmstrip import Filmstrip
from clipserve.showcase.model_server import Classification
from clipserve.showcase.uploads import MOST_BYTES, MOST_VIDEOS

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent

# By kind of error. The message says more.
TITLES: tuple[tuple[type[ClipserveError], str], ...] = (
    (VideoError, "This video cannot be classified."),
    (RequestError, "This request is not possible."),
    (ServerError, "The server did not answer."),
)
NOTHING = ""


def render_header(url: str, models: Sequence[str], failure: ClipserveError | None = None) -> str:
    """The top of the page: the server and its models, or why it does not answer."""
    return _render("header", url=url, models=models, failure=str(failure) if failure else "")


def render_empty(*, samples: bool) -> str:
    """What the answer's place shows before the first video."""
    return _render("empty", samples=samples)


def render_preview(file: str | None) -> str:
    """A player for the file, or a note if the browser cannot play it."""
    return _render("preview", path=file) if file else NOTHING


def render_pending(name: str, model: str | None) -> str:
    """What the answer's place shows while the server works."""
    return _render("pending", name=name, model=model)


def render_following(name: str, model: str, time: str) -> str:
    """What the timeline's place shows while the server works; `time`: how far it is."""
    return _render("following", name=name, model=model, time=time)


def render_timeline(page: str) -> str:
    """A page of its own inside this one, whose scripts run there."""
    return _render("timeline", page=page)


def render_failure(error: ClipserveError) -> str:
    """What the answer's place shows after an error."""
    title = next((title for kind, title in TITLES if isinstance(error, kind)), "Something went wrong.")
    return _render("failure", title=title, message=_sentence(str(error)), code=error.code)


def render_defect() -> str:
    """As `render_failure`, of the page itself: the traceback is for the log of whoever runs it, not for the visitor."""
    return render_failure(ClipserveError("the page itself failed; its log has the details"))


def render_fit_introduction() -> str:
    """What the tab for one's own classes asks for."""
    return _render("fit_introduction", videos=MOST_VIDEOS, megabytes=MOST_BYTES >> 20)


def render_fitting(step: str) -> str:
    """What the report's place shows while a model is fitted."""
    return _render("fitting", step=_capitalise(step))


def render_fitted(fitted: Fitted, *, without: str) -> str:
    """What a fit has given, and its report, without the folder of the uploaded videos."""
    accuracy, metric = fitted.held_out.metrics["top_1_accuracy"], METRICS["top_1_accuracy"]
    interval = accuracy.interval
    notes = fitted.publication.notes if fitted.publication else ()
    return _render(
        "fitted",
        name=fitted.name,
        accuracy=metric.format(accuracy.value),
        videos=fitted.held_out.answered,
        interval=metric.format_interval(interval.low, interval.high) if interval else "",
        advice=_capitalise(fitted.advice),
        # The name of a model is one only as it is spelt.
        notes=[note if note.startswith(fitted.name) else _capitalise(note) for note in notes],
        page=fitted.to_html().replace(without, ""),
    )


def render_answer(classification: Classification) -> str:
    """The labels with bars, a warning if the file is damaged or truncated, and the times."""
    return _render("answer", classification=classification, top=classification.prediction.top)


def render_filmstrip(classification: Classification, strip: Filmstrip) -> str:
    """The frames with their times; nothing if the report lists none."""
    return _render("filmstrip", strip=strip, summary=describe_sampling(classification)) if strip.views else NOTHING


def render_facts(classification: Classification) -> str:
    """What the report says about the file."""
    return _render("facts", facts=list_facts(classification)) if classification.report else NOTHING


def describe_sampling(classification: Classification) -> str:
    """How the server chose the frames, as a sentence."""
    options = classification.options
    views = [view for views in classification.report.get("timestamps_seconds", {}).values() for view in views]
    frames = len(views[0]) if views else 0
    part = "the whole video"
    if options.start is not None or options.end is not None:
        end = "the end" if options.end is None else f"{options.end:g} s"
        part = f"the part between {options.start or 0:g} s and {end}"
    # The server says where it used exact frames although a shortcut was allowed.
    policy = classification.report.get("policy", options.sampling)
    quality = classification.report.get("quality", options.quality)
    if policy == "keyframes":
        chosen = f"{frames} key frames, spread over {part}"
    elif policy == "uniform":
        chosen = f"{frames} frames, evenly spread over {part}"
    elif len(views) == 1:
        chosen = f"One clip of {frames} frames from {part}"
    else:
        chosen = f"{len(views)} clips of {frames} frames, spread over {part}"
    if quality == "draft":
        chosen += ", each moved to one that takes less decoding"
    return f"{chosen}; three squares of each frame." if options.crops == 3 else f"{chosen}."


def list_facts(classification: Classification) -> list[tuple[str, str]]:
    """(name, value) of each known fact, for people."""
    report = classification.report
    facts: list[tuple[str, str]] = []
    if report.get("codec"):
        # FFmpeg lists all containers that the demuxer reads.
        container = classification.name.rpartition(".")[2] if "." in classification.name else ""
        known = str(report.get("container", "")).split(",")
        facts.append(("codec", f"{report['codec']} in {container if container in known else known[0]}"))
    if report.get("width"):
        facts.append(("frame size", f"{report['width']} x {report['height']}"))
    if report.get("rotation_degrees"):
        facts.append(("rotation", f"{report['rotation_degrees']} degrees"))
    if report.get("duration_seconds"):
        facts.append(("duration", f"{report['duration_seconds']:.2f} s"))
    if report.get("fps"):
        facts.append(("frame rate", f"{report['fps']:.4g} fps"))
    if report.get("frames"):
        facts.append(("frames", f"{report['frames']}"))
    if report.get("decoded_frames"):
        facts.append(("decoded frames", f"{report['decoded_frames']}"))
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


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
