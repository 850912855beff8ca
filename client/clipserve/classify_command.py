"""`clipserve classify`: name the actions in video files."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clipserve import defaults
from clipserve.channel import Tls
from clipserve.classifier import VideoClassifier
from clipserve.errors import (
    AccessDenied,
    ClipserveError,
    ModelNotReady,
    ServerUnavailable,
    UnknownModel,
)
from clipserve.results import Prediction

# These would fail every file alike, so they are reported once.
HOPELESS = (ServerUnavailable, AccessDenied, UnknownModel, ModelNotReady)


class Output(Protocol):
    """Shows files as they finish."""

    def show(self, file: Path, prediction: Prediction, milliseconds: float) -> None: ...

    def show_failure(self, file: Path | None, error: ClipserveError) -> None:
        """Show what went wrong with `file`, or, if None, with all that are left."""


def classify(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Video files.")],
    *,
    model: Annotated[str, typer.Option(help="Name of a model that the server has.")] = (defaults.MODEL),
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to show.")] = defaults.TOP_K,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    features: Annotated[bool, typer.Option("--features", help="With --json: add the embedding.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="With --json: add what the server did with the video.")
    ] = False,
    url: Annotated[
        str, typer.Option(envvar="CLIPSERVE_URL", help="host:port of the server's gRPC port.")
    ] = defaults.URL,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Longest wait for one file.")
    ] = defaults.TIMEOUT_SECONDS,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    root_certificates: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Authorities to trust; implies --tls.", show_default=False),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="Sent with every call; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Name the human actions in video files.

    \b
    clipserve classify archery.mp4
    clipserve classify *.mp4 --model mvit_base_16x4 --top-k 1
    clipserve classify *.mp4 --json | jq -r '[.file, .labels[0].label] | @tsv'
    clipserve classify archery.mp4 --url video.example.org:443 --tls

    Exits with 0 if every file was classified, 1 if some were not,
    2 if the server cannot be reached or has no such model.
    """
    if (features or report) and not as_json:
        raise typer.BadParameter("a table has no room for it; add --json", param_hint="--features/--report")
    try:
        classifier = VideoClassifier(
            model,
            url,
            timeout_seconds=timeout,
            tls=Tls(root_certificates) if tls or root_certificates else None,
            headers=_read_headers(header or []),
        )
    except ClipserveError as error:
        raise typer.BadParameter(str(error)) from error

    failed = False
    with classifier, ExitStack() as stack:
        output: Output = JsonLines() if as_json else stack.enter_context(LiveTable(model))
        for file in files:
            start = time.perf_counter()
            try:
                prediction = classifier.classify(file, top_k=top_k, features=features, report=report)
            except HOPELESS as error:
                output.show_failure(None, error)
                raise typer.Exit(2) from error
            except ClipserveError as error:
                output.show_failure(file, error)
                failed = True
            else:
                output.show(file, prediction, (time.perf_counter() - start) * 1000)
    if failed:
        raise typer.Exit(1)


class JsonLines:
    """One JSON object a line on stdout; messages for people on stderr."""

    def show(self, file: Path, prediction: Prediction, milliseconds: float) -> None:
        line = {
            "file": str(file),
            "model": prediction.model,
            "labels": [{"label": scored.label, "index": scored.index, "score": scored.score} for scored in prediction],
            "milliseconds": round(milliseconds, 1),
        }
        if prediction.features is not None:
            line["features"] = prediction.features.tolist()
        if prediction.report is not None:
            line["report"] = dict(prediction.report)
        self._print(line)

    def show_failure(self, file: Path | None, error: ClipserveError) -> None:
        what = {"code": error.code, "message": str(error), "retryable": error.retryable}
        self._print({"file": None if file is None else str(file), "model": error.model, "error": what})
        print_error(error)

    def _print(self, line: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()  # the next program in the pipe should not wait for a full buffer


class LiveTable:
    """A table that grows on a terminal, and is printed whole anywhere else."""

    def __init__(self, model: str) -> None:
        self._console = Console()
        self._table = Table("file", model, "ms")
        self._table.columns[0].overflow = "fold"
        self._table.columns[2].justify = "right"
        # Only the table may go where it is drawn again and again: messages wait for the end.
        self._live = Live(self._table, console=self._console, transient=True)
        self._errors: list[ClipserveError] = []

    def show(self, file: Path, prediction: Prediction, milliseconds: float) -> None:
        # Text: names and labels may hold square brackets, which str would turn into markup.
        labels = Text(", ").join(
            Text(str(scored), style="bold" if scored is prediction.top else "") for scored in prediction
        )
        self._table.add_row(Text(str(file)), labels, f"{milliseconds:.0f}")

    def show_failure(self, file: Path | None, error: ClipserveError) -> None:
        if file is not None:
            self._table.add_row(Text(str(file)), Text(error.code, style="red"), "")
        self._errors.append(error)

    def __enter__(self) -> "LiveTable":
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._table.rows:
            self._console.print(self._table)
        for error in self._errors:
            print_error(error)


def print_error(error: ClipserveError) -> None:
    """One line on stderr."""
    sys.stderr.write(f"error: {error}\n")


def _read_headers(pairs: list[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise typer.BadParameter(f"a header is NAME:VALUE, got {pair!r}", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers
