"""The page: its parts, and what happens when one of them is used."""

import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.options import RequestOptions
from clipserve.showcase import rendering
from clipserve.showcase.filmstrip import draw_filmstrip
from clipserve.showcase.inquiry import Server, choose_model
from clipserve.showcase.samples import Sample

if TYPE_CHECKING:
    import gradio

MOST_LABELS = 10
MOST_VIEWS = 10
# Visitors who are served at once; more would only wait in the server's queue instead.
AT_ONCE = 4
# Uploaded files are looked for this often, and deleted once they are this old.
CLEAN_SECONDS = (600, 3600)
DROP_HEIGHT_PIXELS = 170

log = logging.getLogger(__name__)


class Page:
    """What the page does, without its looks. Each method answers one event; none of them raises."""

    def __init__(self, server: Server, *, samples: Sequence[Sample], model: str | None) -> None:
        self._server = server
        self._samples = samples
        self._model = model

    def open(self) -> tuple[str, Any]:
        """(header, model choice): asked for each time that the page is opened."""
        import gradio as gr

        try:
            models = self._server.models()
            chosen = choose_model(models, self._model)
        except ClipserveError as error:
            header = rendering.render_header(self._server.url, (), error)
            return header, gr.update(choices=[self._model] if self._model else [], value=self._model)
        return rendering.render_header(self._server.url, models), gr.update(choices=models, value=chosen)

    def pick(self, number: int) -> str:
        """The path of a sample."""
        return str(self._samples[number].path)

    def ask(
        self,
        file: str | None,
        model: str | None,
        top_k: float,
        sampling: str,
        views: float,
        crops: float,
        start: str | None,
        end: str | None,
        quality: str,
    ) -> Iterator[tuple[str, str, str]]:
        """(answer, filmstrip, facts), first while it is waited for, then the labels, then with the frames."""
        nothing = rendering.NOTHING
        try:
            if not file:
                raise InvalidRequest("there is no video yet: upload one, or pick a sample")
            yield rendering.render_pending(Path(file).name, model), nothing, nothing
            if not model:
                model = choose_model(self._server.models(), self._model)
            if not model:
                raise InvalidRequest("the server has no model that is ready: make one with `clipserve export`")
            clip = sampling == "clip"
            options = RequestOptions(
                top_k=int(top_k),
                report=True,
                sampling="clip" if clip else "uniform",
                # What is hidden for uniform sampling keeps its value, but does not count.
                views=int(views) if clip else None,
                crops=int(crops),
                start=read_seconds(start),
                end=read_seconds(end),
                quality="reference" if quality == "reference" else "fast",
            )
            inquiry = self._server.ask(Path(file), model, options)
            answer, facts = rendering.render_answer(inquiry), rendering.render_facts(inquiry)
            yield answer, nothing, facts
            yield answer, rendering.render_filmstrip(inquiry, draw_filmstrip(inquiry.video, inquiry.report)), facts
        except ClipserveError as error:
            yield rendering.render_failure(error), nothing, nothing
        except Exception:
            # A defect of the page: its traceback is for whoever runs it, not for the visitor.
            log.exception("the page failed on %s", file)
            failed = ClipserveError("something went wrong in the page itself; its log says what")
            yield rendering.render_failure(failed), nothing, nothing


def read_seconds(text: str | None) -> float | None:
    """A moment as somebody types it; None for none. Raises InvalidRequest."""
    if not text or not text.strip():
        return None
    try:
        return float(text.strip().removesuffix("s").replace(",", "."))
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no number of seconds: write one such as 2.5, or leave it empty") from error


def build_page(server: Server, *, samples: Sequence[Sample] = (), model: str | None = None) -> "gradio.Blocks":
    """The page as a Gradio app, ready to launch."""
    import gradio as gr

    page = Page(server, samples=samples, model=model)
    blocks: gradio.Blocks
    with gr.Blocks(title="clipserve", analytics_enabled=False, delete_cache=CLEAN_SECONDS) as blocks:
        header = gr.HTML(rendering.render_header(server.url, ()), elem_id="cs-top-bar")
        with gr.Row(elem_id="cs-columns"):
            with gr.Column(scale=5, min_width=260, elem_id="cs-left"):
                preview = gr.HTML(elem_id="cs-preview-place")
                # Not gr.Video: that one takes for an error what only this browser cannot play, an AVI file for one.
                file = gr.File(label="Video", show_label=False, height=DROP_HEIGHT_PIXELS, elem_id="cs-file")
                if samples:
                    gallery = _add_gallery(samples)
                with gr.Row():
                    name = gr.Dropdown(label="Model", choices=[], elem_id="cs-model", scale=3, min_width=130)
                    top_k = gr.Slider(
                        1, MOST_LABELS, value=RequestOptions.top_k, step=1, label="Labels", scale=2, min_width=110
                    )
                with gr.Accordion("Which frames it looks at", open=False, elem_id="cs-sampling"):
                    sampling = gr.Radio(
                        [("the whole video, evenly", "uniform"), ("clips", "clip")],
                        value=RequestOptions.sampling,
                        label="Sampling",
                        info="Clips are as long as those the model was trained on.",
                    )
                    views = gr.Slider(1, MOST_VIEWS, value=2, step=1, label="Clips", visible=False, elem_id="cs-views")
                    crops = gr.Radio(
                        [("the middle", 1), ("three squares", 3)], value=1, label="Of each frame", elem_id="cs-crops"
                    )
                    with gr.Row():
                        start = gr.Textbox(
                            label="From second", value="", placeholder="the start", min_width=120, elem_id="cs-start"
                        )
                        end = gr.Textbox(
                            label="To second", value="", placeholder="the end", min_width=120, elem_id="cs-end"
                        )
                    quality = gr.Radio(
                        [("fast", "fast"), ("as in training", "reference")],
                        value=RequestOptions.quality,
                        label="Scaling",
                    )
                button = gr.Button("Classify", variant="primary", elem_id="cs-classify")
            with gr.Column(scale=7, min_width=260, elem_id="cs-right"):
                answer = gr.HTML(rendering.render_empty(samples=bool(samples)), elem_id="cs-answer-place")
                filmstrip = gr.HTML(elem_id="cs-filmstrip-place")
                facts = gr.HTML(elem_id="cs-facts-place")

        # Quiet: the answer's own place says that it is being worked on. Private: no other programs, see the SDK.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asking: dict[str, Any] = {
            "fn": page.ask,
            "inputs": [file, name, top_k, sampling, views, crops, start, end, quality],
            "outputs": [answer, filmstrip, facts],
            "concurrency_limit": AT_ONCE,
            "concurrency_id": "ask",
            **quiet,
        }
        blocks.load(page.open, outputs=[header, name], **quiet)
        sampling.change(
            lambda chosen: gr.update(visible=chosen == "clip"), inputs=sampling, outputs=views, queue=False, **quiet
        )
        file.change(rendering.render_preview, inputs=file, outputs=preview, queue=False, **quiet)
        file.upload(**asking)
        button.click(**asking)
        if samples:

            def pick(event: gr.SelectData) -> str:
                return page.pick(event.index)

            gallery.select(pick, outputs=file, **quiet).then(**asking)
    return blocks


def _add_gallery(samples: Sequence[Sample]) -> "gradio.Gallery":
    import gradio as gr
    from PIL import Image

    pictures: list[tuple[Image.Image, str]] = []
    for sample in samples:
        picture: Image.Image
        if sample.poster:
            picture = Image.open(io.BytesIO(sample.poster))
        else:
            picture = Image.new("RGB", (160, 120), (148, 148, 156))  # no picture, but still something to click on
        pictures.append((picture, sample.title))
    return gr.Gallery(
        pictures,
        label="Samples",
        show_label=False,
        container=False,
        columns=3,
        object_fit="cover",
        height="auto",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="cs-samples",
    )
