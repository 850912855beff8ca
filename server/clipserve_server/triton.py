"""The embedded server: a real Triton on this machine, which runs as long as a `with` block."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from clipserve_host.device_fit import read_misfits
from clipserve_host.processes import processes_of
from clipserve_server.errors import ServerStartError, UnstableStart
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
from clipserve_server.python_stubs import make_environment
from clipserve_server.repository import TIMELINE, ServedModel, choose_models, has_timeline
from clipserve_server.shared_memory import measure_room
from clipserve_server.startup import Progress, Startup
from clipserve_server.wheel import TritonWheel, find_wheel, make_backend_directory

START_SECONDS = 300.0  # to load every model; MViT as TorchScript takes 10 s on two cores
STOP_SECONDS = 20.0  # for the requests in flight, and for the exit
EXIT_SECONDS = 4.0  # of these, for what Triton does after it has given up waiting for requests
REAPED_SECONDS = 0.5  # for Triton to wait for a process that it has ended
DECODE = "decode"  # the step that runs no network


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
        self.host = host.strip("[]")  # an address of IPv6, as clients write it
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
        self._server: int | None = None  # pidfd of tritonserver
        self._is_ready = False
        self.models: tuple[ServedModel, ...] = ()
        self._room_notice: str | None = None
        self._restart_notice: str | None = None

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
        return f"{self._bracketed_host}:{self._ports[service]}"

    @property
    def _bracketed_host(self) -> str:
        """The host; an address of IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until every model is ready. A start that crashes or gets stuck is tried a second time.

        Raises ServerStartError.
        """
        wheel = find_wheel()
        self.models = tuple(choose_models(self.repository, self._names))
        self._ports = claim_ports(self.host, self._ports)
        self._restart_notice = None
        try:
            self._start(wheel, is_last=False)
        except UnstableStart as error:
            self._restart_notice = f"{error}; it started the second time"
            self._start(wheel, is_last=True)

    def _start(self, wheel: TritonWheel, *, is_last: bool) -> None:
        try:
            folder, environment, backends = self._make_folder(wheel)
            command = [str(wheel.binary), *self._arguments(folder, backends), *self._options]
            decoder = self._decoder or os.environ.get(DECODER_VARIABLE) or None
            room = measure_room(self.repository, self.models, decoder=decoder, nvdec_gpus=nvdec_gpus())
            self._room_notice = room.notice() if room else None
            self._log = TritonLog(self._log_file)
            with self._log.path.open("ab") as log:
                self._guard = subprocess.Popen(
                    [sys.executable, "-m", "clipserve_server.guard", str(STOP_SECONDS), str(folder), *command],
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
            startup = Startup(self._guard, self._log, seconds=self._start_seconds, is_last=is_last)
            others = [(self.host, port) for service, port in self._ports.items() if service != "grpc"]
            startup.wait(self.grpc_url, self._top_models(), others, self._progress)
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(READY)
                self._guard.stdin.flush()
            servers = [process.pid for process in processes_of(self._guard.pid) if process.pid == process.group]
            self._server = os.pidfd_open(servers[0]) if servers else None
            self._is_ready = True
        except BaseException as error:
            # Ctrl-C is no failure.
            self._end(keep_log=isinstance(error, Exception))
            raise

    def _make_folder(self, wheel: TritonWheel) -> tuple[Path, dict[str, str], Path]:
        """Make the temporary folder. Returns it, tritonserver's environment, and the backend directory in it.

        Raises ServerStartError.
        """
        try:
            self._folder = folder = Path(tempfile.mkdtemp(prefix="clipserve-triton-"))
            if os.statvfs(folder).f_flag & os.ST_NOEXEC:
                raise ServerStartError(f"{folder.parent} is mounted with noexec: set TMPDIR to a folder that is not")
            environment = make_environment(folder / "python", wheel)
            return folder, environment, make_backend_directory(folder / "backends", wheel)
        except OSError as error:
            place = f" in {self._folder.parent}" if self._folder else ""
            raise ServerStartError(
                f"Triton's temporary files cannot be written{place}: {error.strerror or error}; make room there, or set"
                " TMPDIR to a folder with room"
            ) from error

    def stop(self) -> None:
        """End the server and everything it started, after the requests in flight. Does nothing when it is stopped."""
        if self._guard is not None:
            failure = self.find_failure()
            if failure:
                self._kill()  # the requests in flight get no answer
            self._end(keep_log=failure is not None)

    def _kill(self) -> None:
        """End Triton; then the guard ends its processes. Without a guard Triton would hold its ports for seconds."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._server, signal.SIGKILL)
            exited = select.poll()  # select takes no number above 1023, and the program may have more files open
            exited.register(self._server, select.POLLIN)
            exited.poll(STOP_SECONDS * 1000)

    def _end(self, *, keep_log: bool) -> None:
        if self._guard is not None:
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()
            if self._server is not None:
                os.close(self._server)
            self._guard = self._server = None
            self._is_ready = False
        if self._folder is not None:
            remove_traces(self._folder)
            self._folder = None
        if self._log is not None and not keep_log:
            self._log.discard()

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
            *(f"--{service}-address={self._listen_address(service)}" for service in self._ports),
            *(f"--{service}-port={port}" for service, port in self._ports.items()),
        ]

    def _listen_address(self, service: str) -> str:
        """The host as Triton takes it: of IPv6, gRPC wants brackets, and the others a prefix."""
        return f"ipv6:{self.host}" if ":" in self.host and service != "grpc" else self._bracketed_host

    def _top_models(self) -> list[str]:
        """The models that clients call."""
        return [*(model.name for model in self.models), *([TIMELINE] if self._timeline else [])]

    def notices(self) -> list[str]:
        """Warnings for the operator of a server that started: a second try, too little shared memory, packages that
        exclude each other, or networks that run on another kind of device than they were exported for.
        """
        misfits = [] if self._log is None else read_misfits(self._log.text())
        return [notice for notice in (self._restart_notice, self._room_notice, find_conflict(), *misfits) if notice]

    def gpu_use(self) -> str | None:
        """What a server that started uses GPUs for, for the operator; None where it uses none."""
        assert self._log is not None
        networks = [step for model in self.models for step in model.steps if step != DECODE]
        return describe_use(read_placement(self.grpc_url, networks), self._log.text())

    def find_failure(self) -> ServerStartError | None:
        """Why a server that was ready serves no longer: it has ended, or one of its Python models' processes has died,
        which Triton does not replace. None: it serves.
        """
        if self._guard is None or self._log is None:
            return None
        if (status := self._guard.poll()) is not None:
            # A negative status is the signal that killed the guard, and Triton with it.
            return self._log.explain_exit(status if status >= 0 else 128 - status, was_ready=self._is_ready)
        # Triton waits a second for a sign of life (python_backend/src/stub_launcher.cc, ReceiveMessageFromStub). After
        # a longer pause of the machine it may give up a call that is answered all the same: one of the two crashes. Of
        # 72 pauses of 1.2 s under four callers, three ended Triton and three a process.
        if dead := self._dead_stubs():
            # One that Triton has ended is dead for milliseconds: it reloads its model.
            time.sleep(REAPED_SECONDS)
            if dead & self._dead_stubs():
                return ServerStartError(self._log.with_path("a process of Triton's Python backend died"))
        return None

    def _dead_stubs(self) -> set[int]:
        assert self._guard is not None
        return {process.pid for process in processes_of(self._guard.pid) if process.is_dead_stub}
