"""`clipserve serve`: runs a real Triton on this machine until Ctrl-C."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipserve_server.options import PRECISION_VARIABLE, CpuPrecision, Decoder

if TYPE_CHECKING:
    from clipserve_server.errors import ServerStartError
    from clipserve_server.triton import Triton

POLL_SECONDS = 0.1  # between two looks for a signal
LOOK_SECONDS = 1.0  # between two looks whether Triton serves
# A Triton that fails sooner would fail again.
STABLE_SECONDS = 30.0


def _port_option(service: str) -> Any:
    return typer.Option(metavar="PORT", min=0, max=65535, help=f"Port for {service}; 0: any free port.")


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODELS...", help="What to serve; every exported model by default.", show_default=False),
    ] = None,
    *,
    repository: Annotated[Path, typer.Option(metavar="DIR", help="The Triton model repository.")] = Path(
        "model_repository"
    ),
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    http_port: Annotated[int, _port_option("HTTP")] = 8000,
    grpc_port: Annotated[int, _port_option("gRPC")] = 8001,
    metrics_port: Annotated[int, _port_option("metrics")] = 8002,
    start_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="How long the models may take to load.")
    ] = 300.0,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Append Triton's log to this file. Default: a temporary file, which is kept after a failure.",
            show_default=False,
        ),
    ] = None,
    cpu_precision: Annotated[
        CpuPrecision,
        typer.Option(
            envvar=PRECISION_VARIABLE,
            help="Precision of ONNX networks on a CPU. auto: bf16 if the export's check passed and the CPU"
            " supports it.",
        ),
    ] = CpuPrecision.AUTO,
    decoder: Annotated[
        Decoder | None,
        typer.Option(
            help="Decoder: cpu, or nvdec (the GPU's decoder) in addition to the CPU. auto: nvdec if there is one.",
            show_default="auto",
        ),
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline/--no-timeline", help="Also serve timelines of long videos.")
    ] = True,
) -> None:
    """Serve a model repository on this machine, with the Triton of the wheel nvidia-pytriton.

    Stops on Ctrl-C, SIGTERM or SIGHUP, after it has answered the requests in flight. Starts a crashed Triton again.

    \b
    clipserve serve
    clipserve serve motion x3d_m --grpc-port 9001
    """
    stop = _Stop()
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        from clipserve_server.errors import ServerStartError
        from clipserve_server.repository import read_repository
        from clipserve_server.triton import Triton
    except ModuleNotFoundError as error:
        errors.print(f"clipserve serve needs {error.name}: pip install 'clipserve[server]'", markup=False)
        raise typer.Exit(2) from error

    status = errors.status("starting Triton")

    def show_progress(ready: int, total: int) -> None:
        stop.check()
        status.update(f"starting Triton: {ready} of {total} models ready")

    failure = None
    try:
        stop.check()
        triton = Triton(
            repository,
            models=models or (),
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            start_seconds=start_seconds,
            log=log,
            cpu_precision=cpu_precision.value,
            decoder=decoder,
            timeline=timeline,
            progress=show_progress,
        )
        with status:
            triton.start()
        try:
            names = [model.name for model in triton.models]
            console.print(f"serving {', '.join(names)}", markup=False)
            for notice in triton.notices():
                errors.print(notice, style="yellow", markup=False)
            if use := triton.gpu_use():
                console.print(f"GPU      {use}", markup=False)
            idle = [name for name in read_repository(repository) if name not in names]
            if idle and not models:
                console.print(f"not exported yet: {', '.join(idle)}", markup=False)
            console.print(
                f"gRPC     {triton.grpc_url}\nHTTP     http://{triton.http_url}\nmetrics  {triton.metrics_url}\n"
                f"log      {triton.log_path}{'' if log else ' (removed at the end; --log FILE keeps it)'}\n"
                "Ctrl-C stops it",
                markup=False,
            )
            began = time.monotonic()
            while (failure := _wait(triton, stop)) and time.monotonic() > began + STABLE_SECONDS:
                errors.print(f"{failure}; starting Triton again", style="yellow", markup=False)
                triton.stop()
                with status:
                    triton.start()
                console.print(f"serving again; log {triton.log_path}", markup=False)
                began = time.monotonic()
        finally:
            triton.stop()
    except _Stopped:
        errors.print("stopped before the models were ready")
        raise typer.Exit(130) from None
    except ServerStartError as error:
        failure = error
    if failure:
        errors.print(str(failure), style="red", markup=False)
        raise typer.Exit(1)
    console.print("stopped")


def _wait(triton: "Triton", stop: "_Stop") -> "ServerStartError | None":
    """Until a signal comes: None. Until Triton serves no longer: why."""
    while not stop.is_requested:
        if failure := triton.find_failure():
            return failure
        looked = time.monotonic()
        while not stop.is_requested and time.monotonic() < looked + LOOK_SECONDS:
            time.sleep(POLL_SECONDS)
    return None


class _Stopped(BaseException):
    """A signal came while Triton was starting. Like KeyboardInterrupt, this is no failure."""


class _Stop:
    """Notes SIGINT, SIGTERM and SIGHUP. Their handlers raise nothing, which could end in a traceback of an import."""

    def __init__(self) -> None:
        self.is_requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as with `nohup`
                signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.is_requested = True

    def check(self) -> None:
        """Raise _Stopped if a signal came."""
        if self.is_requested:
            raise _Stopped
