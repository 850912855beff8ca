"""The embedded server: a real Triton on this machine, which runs as long as a `with` block."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve_server.device_fit import read_misfits
from clipserve_server.errors import ServerStartError
from clipserve_server.gpu import describe_use, find_conflict, nvdec_gpus, read_placement
from clipserve_server.guard import READY, remove_traces, shm_prefix
from clipserve_server.log import TritonLog
from clipserve_server.options import (
    DECODER_VARIABLE,
    LIMITS_VARIABLE,
    LOG_VARIABLE,
    METRICS_VARIABLE,
    PRECISION_VARIABLE,
    Decoder,
    check_precision,
    wanted_precision,
)
from clipserve_server.ports import claim_ports
from clipserve_server.python_stubs import dead_stubs, make_environment
from clipserve_server.repository import TIMELINE, ServedModel, choose_models, has_timeline
from clipserve_server.shared_memory import measure_room
from clipserve_server.wheel import find_wheel, make_backend_directory

START_SECONDS = 300.0  # to load every model; MViT as TorchScript takes 10 s on two cores
STOP_SECONDS = 20.0  # for the requests in flight, and for the exit
EXIT_SECONDS = 4.0  # of these, for what Triton does after it has given up waiting for requests
POLL_SECONDS = 0.1
DECODE = "decode"  # the step that runs no network
# Within this time Triton may log why a stub died.
DEAD_STUB_SECONDS = 3.0

# A proxy of the environment cannot reach this machine.
NO_PROXY = [("grpc.enable_http_proxy", 0)]

Progress = Callable[[int, int], None]


class Triton:
    """The embedded server over a model repository.

    with Triton(Path("model_repository"), models=["motion"]) as triton:
        ...  # triton.grpc_url

    Entering the block waits until every model is ready, and raises ServerStartError otherwise. Leaving it ends every
    process.

    Args:
        repository: the model repository.
        models: the public models to serve. None named: every exported one.
        host: the address to listen on.
        http_port, grpc_port, metrics_port: 0 is any free port.
        start_seconds: how long the models may take to load.
        options: more options for tritonserver.
        log: the file to append Triton's log to. None: a temporary file, removed at the end unless something failed.
        cpu_precision: what ONNX networks compute in on a CPU, a CpuPrecision. None: as CLIPSERVE_CPU_PRECISION says.
        decoder: what decodes videos. None: as CLIPSERVE_DECODER or the config of the decode step says.
        timeline: whether to make timelines of long videos, where the repository has the model for it.
        progress: called with the number of ready models, and of all.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] = (),
        host: str = "127.0.0.1",
        http_port: int = 8000,
        grpc_port: int = 8001,
        metrics_port: int = 8002,
        start_seconds: float = START_SECONDS,
        options: Sequence[str] = (),
        log: Path | None = None,
        cpu_precision: str | None = None,
        decoder: Decoder | None = None,
        timeline: bool = True,
        progress: Progress = lambda ready, total: None,
    ) -> None:
        self.repository = repository
        self.host = host
        self._names = tuple(models)
        self._ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._start_seconds = start_seconds
        self._options = tuple(options)
        self._decoder = decoder
        self._timeline = timeline and has_timeline(repository)
        self._cpu_precision = check_precision(cpu_precision or wanted_precision())
        self._progress = progress
        self._log_file = log
        self._log: TritonLog | None = None
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self.models: tuple[ServedModel, ...] = ()
        self._room_notice: str | None = None

    @property
    def grpc_url(self) -> str:
        """host:port, as tritonclient.grpc takes it."""
        return self._address("grpc")

    @property
    def http_url(self) -> str:
        """host:port, as tritonclient.http takes it."""
        return self._address("http")

    @property
    def metrics_url(self) -> str:
        """The address Prometheus reads."""
        return f"http://{self._address('metrics')}/metrics"

    def _address(self, service: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self._ports[service]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until every model is ready. Raises ServerStartError."""
        wheel = find_wheel()
        self.models = tuple(choose_models(self.repository, self._names))
        self._ports = claim_ports(self.host, self._ports)
        self._folder = Path(tempfile.mkdtemp(prefix="clipserve-triton-"))
        try:
            environment = make_environment(self._folder / "python", wheel)
            backends = make_backend_directory(self._folder / "backends", wheel)
            command = [str(wheel.binary), *self._arguments(self._folder, backends), *self._options]
            decoder = self._decoder or os.environ.get(DECODER_VARIABLE) or None
            room = measure_room(self.repository, self.models, decoder=decoder, nvdec_gpus=nvdec_gpus())
            self._room_notice = room.notice() if room else None
            self._log = TritonLog(self._log_file)
            with self._log.path.open("ab") as log:
                self._guard = subprocess.Popen(
                    [sys.executable, "-m", "clipserve_server.guard", str(STOP_SECONDS), str(self._folder), *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={
                        **environment,
                        PRECISION_VARIABLE: self._cpu_precision,
                        **({DECODER_VARIABLE: self._decoder.value} if self._decoder else {}),
                        LOG_VARIABLE: str(self._log.path),
                        METRICS_VARIABLE: self.metrics_url,
                        LIMITS_VARIABLE: json.dumps(room.limits() if room else {}),
                    },
                    start_new_session=True,
                )
            self._wait_until_ready()
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(READY)
                self._guard.stdin.flush()
            self._is_ready = True
        except BaseException as error:
            # Ctrl-C is no failure.
            self._end(keep_log=isinstance(error, Exception))
            raise

    def stop(self) -> None:
        """End the server and everything it started, after the requests in flight. Does nothing when it is stopped."""
        if self._guard is not None:
            self._end(keep_log=not self.is_running or bool(dead_stubs(self._guard.pid)))

    def _end(self, *, keep_log: bool) -> None:
        if self._guard is not None:
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
            self._is_ready = False
        if self._folder is not None:
            remove_traces(self._folder)
            self._folder = None
        if self._log is not None and not keep_log:
            self._log.discard()

    @property
    def is_running(self) -> bool:
        """Whether the server's process runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def log_path(self) -> Path:
        """The log of Triton and of all processes that it starts. After a failure it is kept."""
        assert self._log is not None
        return self._log.path

    @property
    def folder(self) -> Path:
        """Temporary files, removed when the server stops. Shared memory is named after it, see guard.shm_prefix."""
        assert self._folder is not None
        return self._folder

    def _arguments(self, folder: Path, backends: Path) -> list[str]:
        steps = {step: None for model in self.models for step in model.steps}
        return [
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix(folder)}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in (*steps, *self._top_models())),
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={STOP_SECONDS - EXIT_SECONDS:.0f}",
            "--allow-gpu-metrics=true",
            *(f"--{service}-address={self.host}" for service in self._ports),
            *(f"--{service}-port={port}" for service, port in self._ports.items()),
        ]

    def _top_models(self) -> list[str]:
        """The models that clients call."""
        return [*(model.name for model in self.models), *([TIMELINE] if self._timeline else [])]

    def _wait_until_ready(self) -> None:
        assert self._log is not None
        deadline = time.monotonic() + self._start_seconds
        names = self._top_models()
        stub_died: float | None = None
        with triton_grpc.InferenceServerClient(self.grpc_url, channel_args=NO_PROXY) as client:
            while True:
                stub_died = self._check_processes(stub_died)
                ready = [name for name in names if _is_model_ready(client, name)]
                self._progress(len(ready), len(names))
                if len(ready) == len(names):
                    return
                if time.monotonic() > deadline:
                    late = ", ".join(name for name in names if name not in ready)
                    raise self._log.explain(f"{late} did not become ready within {self._start_seconds:.0f} s")
                time.sleep(POLL_SECONDS)

    def _check_processes(self, stub_died: float | None) -> float | None:
        """Raise ServerStartError when the start cannot succeed any more.

        stub_died: time.monotonic() when a dead stub was first seen; returned for the next call.
        """
        assert self._guard is not None
        assert self._log is not None
        if self._guard.poll() is not None:
            raise self.failure()
        if not dead_stubs(self._guard.pid):
            return None
        stub_died = stub_died or time.monotonic()
        if self._log.loader_error() or time.monotonic() > stub_died + DEAD_STUB_SECONDS:
            raise self._log.explain("a stub of Triton's Python backend died as it started")
        return stub_died

    def notices(self) -> list[str]:
        """Warnings for the operator of a server that started: too little shared memory, packages that exclude each
        other, or networks that run on another kind of device than they were exported for.
        """
        misfits = [] if self._log is None else read_misfits(self._log.text())
        return [notice for notice in (self._room_notice, find_conflict(), *misfits) if notice]

    def gpu_use(self) -> str | None:
        """What a server that started uses GPUs for, for the operator; None where it uses none."""
        assert self._log is not None
        networks = [step for model in self.models for step in model.steps if step != DECODE]
        return describe_use(read_placement(self.grpc_url, networks), self._log.text())

    def failure(self) -> ServerStartError:
        """Why a server ended by itself, as far as its log says."""
        assert self._log is not None
        status = self._guard.poll() if self._guard is not None else None
        if status is not None and status > 128:
            # A killed Triton does not log that. The end of its log is about something else.
            signal_name = signal.Signals(status - 128).name
            return ServerStartError(self._log.with_path(f"Triton ended by itself ({signal_name})"))
        if self._is_ready:
            reason = self._log.last_error()
            message = f"Triton ended by itself (status {status}){': ' if reason else ''}{reason}"
            return ServerStartError(self._log.with_path(message))
        return self._log.explain("Triton ended by itself")


def _is_model_ready(client: triton_grpc.InferenceServerClient, name: str) -> bool:
    try:
        return bool(client.is_model_ready(name, client_timeout=5.0))
    except InferenceServerException:
        return False
