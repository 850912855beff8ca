"""The page: its controls, and what they do."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.options import Quality, RequestOptions, Sampling
from clipserve.showcase import rendering
from clipserve.showcase.filmstrip import extract_filmstrip
from clipserve.showcase.fit_tab import FitTab, add_fit_tab
from clipserve.showcase.model_server import ModelServer, choose_model
from clipserve.showcase.samples import Sample
from clipserve.showcase.timeline_tab import TimelineTab, add_timeline_tab

if TYPE_CHECKING:
    import gradio

MOST_LABELS = 10
MOST_VIEWS = 10
# Requests at the same time. More would only wait in the server's queue.
MOST_CONCURRENT = 4
# Gradio looks for uploaded files this often and deletes those that are this old.
CLEAN_SECONDS = (600, 3600)
DROP_HEIGHT_PIXELS = 170

log = logging.getLogger(__name__)


class Page:
    """What the controls of the page do. Each method handles one event and raises nothing."""

    def __init__(self, server: ModelServer, *, samples: Sequence[Sample], model: str | None) -> None:
        self._server = server
        self._samples = samples
        self._model = model

    def open(self) -> tuple[str, Any]:
        """(header, choice of models), each time that a visitor opens the page."""
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

    def classify(
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
        """(answer, filmstrip, facts): first a note that the server works, then the labels, then the frames as well."""
        nothing = rendering.NOTHING
        try:
            if not file:
                raise InvalidRequest("there is no video yet: upload one, or pick a sample")
            yield rendering.render_pending(Path(file).name, model), nothing, nothing
            if not model:
                model = choose_model(self._server.models(), self._model)
            if not model:
                raise InvalidRequest("the server has no model that is ready: export one with `clipserve export`")
            options = RequestOptions(
                top_k=int(top_k),
                report=True,
                sampling=cast(Sampling, sampling),  # checked, as quality is
                # Where the slider is hidden, it keeps its value, which must not count.
                views=int(views) if sampling == "clip" else None,
                crops=int(crops),
                start=read_seconds(start),
                end=read_seconds(end),
                quality=cast(Quality, quality),
            )
            result = self._server.classify(Path(file), model, options)
            answer, facts = rendering.render_answer(result), rendering.render_facts(result)
            yield answer, nothing, facts
            yield answer, rendering.render_filmstrip(result, extract_filmstrip(result.video, result.report)), facts
        except ClipserveError as error:
            yield rendering.render_failure(error), nothing, nothing
        except Exception:
            log.exception("the page failed on %s", file)
            yield rendering.render_defect(), nothing, nothing


def read_seconds(text: str | None) -> float | None:
    """Seconds as a visitor types them; None for an empty text. Raises InvalidRequest."""
    if not text or not text.strip():
        return None
    try:
        return float(text.strip().removesuffix("s").replace(",", "."))
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is not a number of seconds: enter a number such as 2.5, or leave the field empty"
        ) from error


def build_page(
    server: ModelServer, *, samples: Sequence[Sample], model: str | None, fit_tab: FitTab | None
) -> "gradio.Blocks":
    """The page as a Gradio app, ready to launch. With `fit_tab`, visitors can fit models."""
    import gradio as gr

    page = Page(server, samples=samples, model=model)
    blocks: gradio.Blocks
    with gr.Blocks(title="clipserve", analytics_enabled=False, delete_cache=CLEAN_SECONDS) as blocks:
        header = gr.HTML(rendering.render_header(server.url, ()), elem_id="cs-top-bar")
        with contextlib.ExitStack() as first_tab:
            tabs = first_tab.enter_context(gr.Tabs(elem_id="cs-tabs"))
            first_tab.enter_context(gr.Tab("Classify"))
            first_tab.enter_context(gr.Row(elem_id="cs-columns"))
            with gr.Column(scale=5, min_width=260, elem_id="cs-left"):
                preview = gr.HTML(elem_id="cs-preview-place")
                # Not gr.Video, which reports an error for every file that the browser cannot play, such as AVI.
                file = gr.File(label="Video", show_label=False, height=DROP_HEIGHT_PIXELS, elem_id="cs-file")
                if samples:
                    gallery = _add_gallery(samples)
                with gr.Row():
                    name = gr.Dropdown(label="Model", choices=[], elem_id="cs-model", scale=3, min_width=130)
                    top_k = gr.Slider(
                        1, MOST_LABELS, value=RequestOptions.top_k, step=1, label="Labels", scale=2, min_width=110
                    )
                with gr.Accordion("Which frames the model sees", open=False, elem_id="cs-sampling"):
                    sampling = gr.Radio(
                        [("frames from the whole video", "uniform"), ("clips", "clip"), ("key frames", "keyframes")],
                        value=RequestOptions.sampling,
                        label="Sampling",
                        info="A clip is as long as the clips of the model's training. Key frames: faster, not exact.",
                    )
                    views = gr.Slider(1, MOST_VIEWS, value=2, step=1, label="Clips", visible=False, elem_id="cs-views")
                    crops = gr.Radio(
                        [("the middle square", 1), ("three squares", 3)],
                        value=1,
                        label="Part of each frame",
                        elem_id="cs-crops",
                    )
                    with gr.Row():
                        start = gr.Textbox(
                            label="From second", value="", placeholder="the start", min_width=120, elem_id="cs-start"
                        )
                        end = gr.Textbox(
                            label="To second", value="", placeholder="the end", min_width=120, elem_id="cs-end"
                        )
                    quality = gr.Radio(
                        [("fast", "fast"), ("as in training", "reference"), ("draft: faster, other frames", "draft")],
                        value=RequestOptions.quality,
                        label="Scaling",
                    )
                button = gr.Button("Classify", variant="primary", elem_id="cs-classify")
            with gr.Column(scale=7, min_width=260, elem_id="cs-right"):
                answer = gr.HTML(rendering.render_empty(samples=bool(samples)), elem_id="cs-answer-place")
                filmstrip = gr.HTML(elem_id="cs-filmstrip-place")
                facts = gr.HTML(elem_id="cs-facts-place")

        # No progress bars, because the answer's place shows that the server works. No API: programs use the SDK.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        classifying: dict[str, Any] = {
            "fn": page.classify,
            "inputs": [file, name, top_k, sampling, views, crops, start, end, quality],
            "outputs": [answer, filmstrip, facts],
            "concurrency_limit": MOST_CONCURRENT,
            "concurrency_id": "classify",
            **quiet,
        }
        blocks.load(page.open, outputs=[header, name], **quiet)
        with tabs, gr.Tab("Timeline"):
            choices = [add_timeline_tab(TimelineTab(server), quiet)]
        if fit_tab:
            with tabs, gr.Tab("Your own classes"):
                choices.append(add_fit_tab(fit_tab, name, quiet))
        for choice in choices:
            blocks.load(lambda: page.open()[1], outputs=choice, **quiet)
        sampling.change(
            lambda chosen: gr.update(visible=chosen == "clip"), inputs=sampling, outputs=views, queue=False, **quiet
        )
        file.change(rendering.render_preview, inputs=file, outputs=preview, queue=False, **quiet)
        file.upload(**classifying)
        button.click(**classifying)
        if samples:

            def pick(event: gr.SelectData) -> str:
                return page.pick(event.index)

            gallery.select(pick, outputs=file, **quiet).then(**classifying)
    return blocks


def _add_gallery(samples: Sequence[Sample]) -> "gradio.Gallery":
    import gradio as gr
    from PIL import Image

    images: list[tuple[Image.Image, str]] = []
    for sample in samples:
        image: Image.Image
        if sample.thumbnail:
            image = Image.open(io.BytesIO(sample.thumbnail))
        else:
            image = Image.new("RGB", (160, 120), (148, 148, 156))  # something to click on
        images.append((image, sample.title))
    return gr.Gallery(
        images,
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
