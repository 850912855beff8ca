"""`clipserve loadtest`."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clipserve import ClipserveError
from clipserve.commands.options import ConnectionOptions, KeyFileOption, read_admin_key, spread_options
from clipserve.extras import load
from clipserve.fleet.targets import split_urls
from clipserve.loadtest.embedded import embedded_server, write_sample_videos
from clipserve.loadtest.inputs import list_videos
from clipserve.loadtest.load_levels import LatencyLimit, LoadTestError, parse_numbers, parse_through, require_finite
from clipserve.loadtest.load_test import LoadTest, LoadTestPlan, Say
from clipserve.loadtest.measurements import PERCENTILES, can_read
from clipserve.loadtest.perf_analyzer import RunSettings, find_perf_analyzer
from clipserve.loadtest.server import Server

DRAWING_PACKAGES = ("matplotlib", "jinja2")
DIFFERENT, UNUSABLE, INTERRUPTED = 1, 2, 130  # exit codes


@dataclass(frozen=True)
class TargetOptions(ConnectionOptions):
    """The server to load."""

    url: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="CLIPSERVE_URL",
            help="The gRPC port of a running server, as host:port. Default: start a Triton on this machine.",
        ),
    ] = ""


@spread_options
def loadtest(
    *,
    target: TargetOptions,
    model: Annotated[str, typer.Option(metavar="NAME", help="A public model of the server.")] = "motion",
    key_file: KeyFileOption = None,
    metrics_url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Address of the server's metrics, the only source of the decode time.",
            show_default=False,
        ),
    ] = "",
    repository: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Model repository of the started Triton. Default: export the model into a temporary one.",
            show_default=False,
        ),
    ] = None,
    cpu_precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|auto|bf16", help="Precision of the started Triton on a CPU. bf16 needs a larger --tolerance."
        ),
    ] = "fp32",
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Videos to send. Default: generated videos.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="The most videos to use. They are sent in turn.")] = 64,
    through: Annotated[
        str,
        typer.Option(metavar="PARTS", help="Parts to measure: the ensemble, its decode step alone, its network alone."),
    ] = "ensemble,decode,net",
    concurrency: Annotated[
        str, typer.Option(metavar="N,...", help="Closed loop: numbers of requests in flight.")
    ] = "1,2,4,8",
    rate: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="Open loop: requests a second, at random times. auto: fractions of the highest rate of the closed"
            " loop.",
        ),
    ] = "auto",
    seconds: Annotated[
        float, typer.Option(min=0.3, metavar="SECONDS", help="Time to measure each load level. Slow ones take longer.")
    ] = 9.0,
    latency_limit: Annotated[
        float, typer.Option(metavar="MS", min=0, help="Search for the highest rate with at most this latency.")
    ] = 200.0,
    percentile: Annotated[
        int, typer.Option(help="Percentage of the requests that must meet --latency-limit: 50, 90, 95 or 99.")
    ] = 95,
    search_steps: Annotated[
        int, typer.Option(min=0, help="Number of bisections in the search for the highest rate; 0: no search.")
    ] = 5,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest allowed difference between scores under load and scores without load.")
    ] = 1e-5,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for results. Each load test makes a new folder in it.")
    ] = Path("loadtest-results"),
    keep_requests: Annotated[
        bool,
        typer.Option(
            "--keep-requests",
            help="Keep perf_analyzer's record of every request. It contains the videos: several GB.",
        ),
    ] = False,
    analyzer_options: Annotated[
        str, typer.Option(metavar="OPTIONS", help="More options for perf_analyzer.", show_default=False)
    ] = "",
) -> None:
    """Measure how much load a server can handle, with real videos and NVIDIA's perf_analyzer.

    \b
    clipserve loadtest
    clipserve loadtest --url gpu1:8001 --model x3d_m --videos videos \\
        --key-file admin_key --metrics-url http://gpu1:8002/metrics \\
        --concurrency 1,4,16,64 --latency-limit 300

    Measures the ensemble, the decode step alone and the network alone, in a
    closed and an open loop. Searches for the highest rate within the latency
    limit. Checks that answers under load equal answers without load. Writes a
    table, plots, an HTML page and perf_analyzer's own files.

    Exit code: 0 if all answers are equal, 1 if some differ, 2 if nothing could
    be measured.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160

    def say(text: str) -> None:
        console.print(text, markup=False)

    try:
        for package in DRAWING_PACKAGES:  # not after minutes of measuring
            load(package, "loadtest")
        from clipserve.loadtest.report import publish

        if percentile not in PERCENTILES:
            raise LoadTestError(f"--percentile must be one of {', '.join(map(str, PERCENTILES))}; got {percentile}")
        for number, option in ((seconds, "--seconds"), (latency_limit, "--latency-limit"), (tolerance, "--tolerance")):
            require_finite(number, option)
        rates = None if rate == "auto" else parse_numbers(rate, "--rate")
        concurrencies = parse_numbers(concurrency, "--concurrency", whole=True)
        parts = parse_through(through)
        url, tls, headers = target.url, target.choose_tls(), target.read_headers() | read_admin_key(key_file)
        analyzer = find_perf_analyzer(say=say)
        plan = LoadTestPlan(
            videos=list_videos(videos or write_sample_videos(out / "videos"), count=count),
            through=parts,
            concurrencies=concurrencies,
            rates=rates,
            limit=LatencyLimit(percentile, latency_limit),
            search_steps=search_steps,
            tolerance=tolerance,
            settings=RunSettings(seconds, percentile, keep_requests, analyzer_options),
        )
        folder = _make_folder(out)
        if len(split_urls(url)) > 1:
            raise LoadTestError(f"a load test measures one server, and --url has several: {url!r}. Give one of them")
        if not url:
            say(f"starting Triton with {model}")
        opened: AbstractContextManager[Server] = (
            nullcontext(Server(url, model, _check_metrics(metrics_url, say), tls, headers))
            if url
            else embedded_server(model, repository, cpu_precision=cpu_precision)
        )
        with opened as server:
            test = LoadTest(analyzer, server, plan, folder, say)
            started = time.monotonic()
            try:
                test.run()
            finally:
                publish(test, console, embedded=not url, seconds=time.monotonic() - started)
    except KeyboardInterrupt:
        say("stopped by Ctrl-C; perf_analyzer has ended, and so has every server and model started for the test")
        raise typer.Exit(INTERRUPTED) from None
    except (LoadTestError, ClipserveError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(UNUSABLE) from error
    accuracy = test.results.accuracy
    if accuracy is None or not accuracy.passed:
        raise typer.Exit(DIFFERENT)


def _make_folder(out: Path) -> Path:
    """Make the folder of this load test. Raises LoadTestError."""
    folder = out / datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LoadTestError(
            f"user {os.getuid()} cannot write into --out {out}: {error.strerror}; in docker compose, CLIPSERVE_UID is"
            " the user who runs the load test"
        ) from error
    return folder


def _check_metrics(metrics_url: str, say: Say) -> str | None:
    """The address, if it can be read: perf_analyzer fails where it cannot read the metrics."""
    if metrics_url and not can_read(metrics_url):
        say(f"no metrics at {metrics_url}: the results show decoding together with waiting for a decoder")
        return None
    return metrics_url or None
