"""`python benchmarks/load`."""

import os
import platform
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clipserve import ClipserveError, Tls
from loadtest.analyzer import Analyzer, digest_of, find_analyzer
from loadtest.campaign import Campaign, Plan
from loadtest.decoding_time import can_read
from loadtest.errors import LoadTestError
from loadtest.inputs import list_videos
from loadtest.loads import Limit, read_numbers, read_through
from loadtest.measurements import PERCENTILES
from loadtest.pages import render_page
from loadtest.plots import write_pngs
from loadtest.runs import Settings
from loadtest.samples import ROOT, embedded_server, write_samples
from loadtest.server import Server
from loadtest.tables import print_table, write_table

ADMIN_HEADER = "triton-grpc-protocol-clipserve-admin"
LIMIT_PANEL, LOAD_PANEL, SERVER_PANEL = "What is good enough", "Load", "Server"
FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130

application = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@application.command()
def load(
    *,
    url: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="CLIPSERVE_URL",
            help="gRPC port of a running server; without it a Triton is started here.",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="A public model of it.", rich_help_panel=SERVER_PANEL)] = "motion",
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What is sent; without it generated motions.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Most videos to use; they are sent in turn.")] = 64,
    through: Annotated[
        str, typer.Option(help="What is asked: the whole ensemble, its decode step alone, its network alone.")
    ] = "ensemble,decode,net",
    concurrency: Annotated[str, typer.Option(help="Closed loop: requests at a time.")] = "1,2,4,8",
    rate: Annotated[
        str,
        typer.Option(help="Open loop: requests a second, at random moments. auto: shares of the closed loop's best."),
    ] = "auto",
    seconds: Annotated[float, typer.Option(min=0.3, help="Of measuring, for each load; slow ones take longer.")] = 9.0,
    latency_limit: Annotated[
        float, typer.Option(metavar="MS", min=0, help="The search is for the highest rate within it.")
    ] = 200.0,
    percentile: Annotated[int, typer.Option(help="Of the requests must be within it: 50, 90, 95 or 99.")] = 95,
    search_steps: Annotated[int, typer.Option(min=0, help="Halvings of the search; 0: none.")] = 5,
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far scores under load may be from those without.")
    ] = 1e-5,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Gets a folder for each run.")] = ROOT / ".cache/loadtest",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Sent with every call.", show_default=False)
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The server's admin key: statistics and loading ask for it.", show_default=False
        ),
    ] = None,
    metrics_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The server's metrics: what decoders work is only known from there.", show_default=False
        ),
    ] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False,
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_ROOT_CERTIFICATES",
            help="Authorities to trust; implies --tls.",
            show_default=False,
        ),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", envvar="CLIPSERVE_CLIENT_KEY", help="Your own key.", show_default=False),
    ] = None,
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_CLIENT_CERTIFICATE",
            help="The certificate of --client-key.",
            show_default=False,
        ),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of the embedded server; without it the model is exported.", show_default=False
        ),
    ] = None,
    cpu_precision: Annotated[
        str, typer.Option(help="Of the embedded server on a CPU: fp32, auto, bf16; bf16 needs another --tolerance.")
    ] = "fp32",
    keep_requests: Annotated[
        bool,
        typer.Option(
            "--keep-requests", help="Keep perf_analyzer's record of every request: gigabytes, it has the videos in it."
        ),
    ] = False,
    analyzer_options: Annotated[str, typer.Option(help="More options of perf_analyzer.", show_default=False)] = "",
) -> None:
    """Put a server under load with real videos, by NVIDIA's perf_analyzer.

    Measures closed and open loop through the ensemble, decode alone and the network alone; searches for the highest
    rate within the latency limit; checks that answers under load are those without. Leaves a table, pictures, a page
    and perf_analyzer's own files in a new folder of --out. The exit code is 1 if answers differ, 2 if nothing could be
    measured.

    \b
    python benchmarks/load
    python benchmarks/load --url gpu1:8001 --model x3d_m --videos videos --key-file admin_key \\
        --metrics-url http://gpu1:8002/metrics --concurrency 1,4,16,64 --latency-limit 300
    """
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 160
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = out / datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    say = _speaker(console)
    try:
        if percentile not in PERCENTILES:
            raise LoadTestError(f"--percentile is one of {', '.join(map(str, PERCENTILES))}; got {percentile}")
        rates = None if rate == "auto" else read_numbers(rate, "--rate")
        concurrencies = read_numbers(concurrency, "--concurrency", whole=True)
        ways = read_through(through)
        chosen_tls = _choose_tls(tls, root_certificates, client_key, client_certificate)
        headers = _read_headers(header or [], key_file)
        analyzer = find_analyzer(say=say)
        paths = list_videos(videos or write_samples(out / "videos"), count=count)
        plan = Plan(
            videos=paths,
            through=ways,
            concurrencies=concurrencies,
            rates=rates,
            limit=Limit(percentile, latency_limit),
            halvings=search_steps,
            tolerance=tolerance,
            settings=Settings(seconds, percentile, keep_requests, analyzer_options),
        )
        if not url:
            say(f"starting Triton with {model}")
        chosen: AbstractContextManager[Server] = (
            nullcontext(Server(url, model, _reachable(metrics_url, say), chosen_tls, headers))
            if url
            else embedded_server(model, repository, cpu_precision=cpu_precision)
        )
        with chosen as server:
            folder.mkdir(parents=True)
            campaign = Campaign(analyzer, server, plan, folder, say)
            started = time.monotonic()
            try:
                campaign.run()
            finally:
                facts = describe(server, plan, analyzer, embedded=not url, seconds=time.monotonic() - started)
                publish(campaign, facts, console)
    except KeyboardInterrupt:
        say("ended by Ctrl-C; perf_analyzer and what was started for it are gone")
        raise typer.Exit(INTERRUPTED) from None
    except (LoadTestError, ClipserveError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(UNUSABLE) from error
    verdict = campaign.results.verdict
    if verdict is None or not verdict.passed:
        raise typer.Exit(FAILED)


def _reachable(metrics_url: str, say: Any) -> str | None:
    """The address, if it answers: perf_analyzer fails where it cannot read metrics that it was told of."""
    if metrics_url and not can_read(metrics_url):
        say(f"no metrics at {metrics_url}: decoding is shown together with the wait for a decoder")
        return None
    return metrics_url or None


def _speaker(console: Console) -> Any:
    return lambda text: console.print(text, markup=False)


def _choose_tls(tls: bool, roots: Path | None, key: Path | None, certificate: Path | None) -> Tls | None:
    return Tls(roots, key, certificate) if tls or roots or key or certificate else None


def _read_headers(pairs: list[str], key_file: Path | None) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise LoadTestError("--header is NAME:VALUE; got one without a colon")
        headers[name.strip()] = value.strip()
    if key_file is not None:
        try:
            headers[ADMIN_HEADER] = key_file.read_text().strip()
        except OSError as error:
            raise LoadTestError(f"cannot read --key-file {key_file}: {error.strerror}") from error
    return headers


def describe(server: Server, plan: Plan, analyzer: Analyzer, *, embedded: bool, seconds: float) -> dict[str, str]:
    """What a page says about the run beside its numbers."""
    sizes = [path.stat().st_size for path in plan.videos]
    return {
        "server": f"{server.url}, started for this test" if embedded else server.url,
        "metrics": server.metrics_url or "not read",
        "videos": f"{len(sizes)}, {min(sizes) / 1000:.0f} to {max(sizes) / 1000:.0f} kB",
        "seconds for each load": f"{plan.settings.seconds:g}",
        "limit": str(plan.limit),
        "perf_analyzer": f"sha256 {digest_of(analyzer.command)[:16]}",
        "client": f"clipserve {version('clipserve')}, {platform.node()}, {os.cpu_count()} cores, {platform.platform()}",
        "finished": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}, after {seconds / 60:.1f} minutes",
    }


def publish(campaign: Campaign, facts: dict[str, str], console: Console) -> None:
    """Table, pictures and page of what there is."""
    found, folder = campaign.results.measurements, campaign.folder
    if not found:
        return
    write_table(folder / "load.csv", found)
    pictures = write_pngs(folder, found, campaign.plan.limit)
    page = folder / "load.html"
    page.write_text(render_page(campaign.results, campaign.plan, model=campaign.server.model, settings=facts))
    print_table(found, console)
    if campaign.results.found:
        console.print(str(campaign.results.found), markup=False)
    if campaign.results.verdict:
        console.print(str(campaign.results.verdict), markup=False)
    files = ", ".join(path.name for path in (page, folder / "load.csv", *pictures))
    console.print(f"{folder}: {files}, raw/", markup=False)


def main() -> None:
    """Run, and end with its exit code."""
    application()
