"""The tab of the page that shows what happens when in a long video."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.options import RequestOptions
from clipserve.showcase import rendering
from clipserve.showcase.model_server import ModelServer
from clipserve.timeline.options import TimelineOptions
from clipserve.timeline.page import describe_video, render_page
from clipserve.timeline.progress import describe_time
from clipserve.timeline.segments import SegmentOptions
from clipserve.timeline.window_file import VideoTimeline

if TYPE_CHECKING:
    import gradio

# The server runs four timelines at a time, and others use it, too.
MOST_CONCURRENT = 2
# Between two updates: each is a message to the browser.
SHOW_EVERY_SECONDS = 0.5

log = logging.getLogger(__name__)


class TimelineTab:
    """What the controls of the tab do. Each method handles one event and raises nothing."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def follow(
        self, file: str | None, model: str | None, window: float, step: float, enter: float, min_length: float
    ) -> Iterator[str]:
        """First how far the server is, again and again; then the timeline.

        Gradio closes this generator when the visitor leaves, and that ends the work of the server.
        """
        try:
            if not file:
                raise InvalidRequest("there is no video yet: upload one")
            if not model:
                raise InvalidRequest("choose a model")
            options = TimelineOptions(window=window, step=step, top_k=RequestOptions.top_k)
            joining = SegmentOptions(enter=enter, min_length=min_length)
            path = Path(file)
            yield rendering.render_following(path.name, model, "")
            found = VideoTimeline(0, path.name, path.name)
            due = 0.0
            with self._server.follow(path, model, options) as timeline:
                for one in timeline:
                    found.windows.append(one)
                    found.facts = timeline.facts
                    if time.monotonic() >= due:
                        due = time.monotonic() + SHOW_EVERY_SECONDS
                        yield rendering.render_following(path.name, model, describe_time(one, timeline.facts))
            # The page's own address of the file, which its visitors may load.
            video = describe_video(found, joining, file=path, source=f"gradio_api/file={quote(str(path))}")
            yield rendering.render_timeline(render_page([video]))
        except ClipserveError as error:
            yield rendering.render_failure(error)
        except Exception:
            log.exception("the page failed on the timeline of %s", file)
            yield rendering.render_defect()


def add_timeline_tab(tab: TimelineTab, quiet: dict[str, Any]) -> "gradio.Dropdown":
    """Add the controls. Returns the choice of models, which each visit fills."""
    import gradio as gr

    with gr.Row():
        file = gr.File(label="Video", show_label=False, height=140, elem_id="cs-long-file", scale=3, min_width=260)
        with gr.Column(scale=4, min_width=260):
            with gr.Row():
                model = gr.Dropdown(label="Model", choices=[], elem_id="cs-timeline-model", min_width=130)
                window = gr.Number(TimelineOptions.window, label="Window, seconds", elem_id="cs-window", min_width=110)
                step = gr.Number(TimelineOptions.step, label="Step, seconds", elem_id="cs-step", min_width=110)
            with gr.Row():
                enter = gr.Slider(
                    0.05, 1, value=SegmentOptions.enter, step=0.05, label="A segment begins at the score", min_width=150
                )
                shortest = gr.Number(SegmentOptions.min_length, label="Shortest segment, seconds", min_width=150)
            button = gr.Button("What happens when?", variant="primary", elem_id="cs-follow")
    answer = gr.HTML(elem_id="cs-timeline-place")
    button.click(
        tab.follow,
        inputs=[file, model, window, step, enter, shortest],
        outputs=answer,
        concurrency_limit=MOST_CONCURRENT,
        concurrency_id="timeline",
        **quiet,
    )
    return model
