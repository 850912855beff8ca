"""The tab of the page where visitors fit a model to videos of their own."""

import logging
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.connection import Tls
from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.evaluation.report import HTML_MODULES
from clipserve.evaluation.run import check_installed
from clipserve.extras import load
from clipserve.fitting.fitted import Fitted
from clipserve.fitting.run import FitOptions, FitRun
from clipserve.showcase import rendering
from clipserve.showcase.model_server import ModelServer
from clipserve.showcase.uploads import unpack

if TYPE_CHECKING:
    import gradio

MOST_MODELS = 20  # that visitors may publish in one repository

log = logging.getLogger(__name__)


class FitTab:
    """What the controls of the tab do. Each method handles one event and raises nothing.

    Args:
        server: that the page shows.
        repository: its model repository.
        tls, headers: of the connection that lets the server load a model.
    """

    def __init__(
        self, server: ModelServer, repository: Path, *, tls: Tls | None, headers: Mapping[str, str] | None
    ) -> None:
        self._server = server
        self._repository = repository
        self._tls, self._headers = tls, headers

    def fit(self, archives: Sequence[str] | None, on: str | None, name: str | None) -> Iterator[tuple[str, Any]]:
        """(answer, choice of models): first what is being done, then the report and the new model."""
        import gradio as gr

        steps: queue.SimpleQueue[str | Fitted | Exception] = queue.SimpleQueue()
        try:
            if not archives:
                raise InvalidRequest("there are no videos yet: upload a zip archive with a folder for each class")
            if not on:
                raise InvalidRequest("no model was chosen: choose the base model, whose features the new model uses")
            with tempfile.TemporaryDirectory(prefix="clipserve-fit-") as folder:
                given = ([Path(each) for each in archives], on, (name or "").strip(), Path(folder))
                worker = threading.Thread(target=self._work, args=(*given, steps))
                worker.start()
                try:
                    while isinstance(step := steps.get(), str):
                        yield rendering.render_fitting(step), gr.update()
                finally:
                    worker.join()
                if isinstance(step, Exception):
                    raise step
                answer = rendering.render_fitted(step, without=f"{folder}/")
            loaded = step.publication is not None and step.publication.loaded
            choice = gr.update(choices=self._server.models(), value=step.name) if loaded else gr.update()
            yield answer, choice
        except ClipserveError as error:
            yield rendering.render_failure(error), gr.update()
        except Exception:
            log.exception("the page failed to fit a model")
            yield rendering.render_defect(), gr.update()

    def _work(
        self,
        archives: Sequence[Path],
        on: str,
        name: str,
        folder: Path,
        steps: "queue.SimpleQueue[str | Fitted | Exception]",
    ) -> None:
        """Fit in a thread of its own. The last step is the result, or the error."""
        try:
            self._require_room(name)
            steps.put("unpacking the videos")
            steps.put(f"embedding {unpack(archives, folder)} videos with {on}")
            options = FitOptions(repository=self._repository, progress=False)
            open_classifier, url = self._server.open_classifier, self._server.url
            run = FitRun(on, name, open_classifier, url, options, steps.put, tls=self._tls, headers=self._headers)
            steps.put(run.execute(folder))
        except Exception as error:
            steps.put(hide_folder(error, folder))

    def _require_room(self, name: str) -> None:
        """Raise InvalidRequest where visitors have published enough models."""
        fitted = {path.parents[1].name for path in self._repository.glob("*_net/*/fit.json")}
        if len(fitted | {f"{name}_net"}) > MOST_MODELS:
            raise InvalidRequest(f"there are {MOST_MODELS} fitted models already: take the name of one of them")


def check_fitting(repository: Path) -> None:
    """Raise InvalidRequest where no model can be fitted, or published in this repository."""
    check_installed()
    for module in (*HTML_MODULES, "clipserve_export.own.fitted"):
        load(module, "evaluation,export")
    if not repository.is_dir():
        raise InvalidRequest(f"there is no folder {str(repository)!r}: give the repository that the server serves")


def hide_folder(error: Exception, folder: Path) -> Exception:
    """The error without the folder of the unpacked videos, which would mean nothing to a visitor."""
    if not isinstance(error, ClipserveError) or str(folder) not in str(error):
        return error
    return InvalidRequest(str(error).replace(f"{folder}/", ""))


def add_fit_tab(tab: FitTab, models: "gradio.Dropdown", quiet: dict[str, Any]) -> "gradio.Dropdown":
    """Add the controls. `models` is the choice of models of the other tab, which gets the new one.

    Returns the choice of models to fit on, which each visit fills.
    """
    import gradio as gr

    with gr.Row(elem_id="cs-fit-columns"):
        with gr.Column(scale=5, min_width=260):
            gr.HTML(rendering.render_fit_introduction())
            archives = gr.File(
                label="Zip archives",
                show_label=False,
                file_count="multiple",
                file_types=[".zip"],
                elem_id="cs-archives",
            )
            with gr.Row():
                on = gr.Dropdown(label="Features of", choices=[], elem_id="cs-fit-on", scale=3, min_width=130)
                name = gr.Textbox(label="Name", placeholder="my_actions", elem_id="cs-fit-name", min_width=130)
            button = gr.Button("Fit", variant="primary", elem_id="cs-fit")
        with gr.Column(scale=7, min_width=260):
            answer = gr.HTML(elem_id="cs-fit-answer")
    button.click(
        tab.fit,
        inputs=[archives, on, name],
        outputs=[answer, models],
        concurrency_limit=1,
        concurrency_id="fit",
        **quiet,
    )
    return on
