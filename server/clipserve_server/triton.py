"""A real Triton on this machine, for as long as a `with` block lasts."""

import contextlib
import json
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

from clipserve_server.backends import lay_out_backends
from clipserve_server.decoder import DECODER_VARIABLE, Decoder
from clipserve_server.device_fit import read_misfits
from clipserve_server.errors import ServerStartError
from clipserve_server.guard import SERVES, remove_traces, shm_prefix
from clipserve_server.log import LOG_VARIABLE, TritonLog
from clipserve_server.ports import claim_ports
from clipserve_server.precision import PRECISION_VARIABLE, check_precision, wanted_precision
from clipserve_server.processes import dead_stubs
from clipserve_server.repository import ServedModel, choose_models
from clipserve_server.shared_memory import LIMITS_VARIABLE, measure_room
from clipserve_server.stub_python import lay_out_python
from clipserve_server.wheel import find_wheel

START_SECONDS = 300.0  # to load every model; MViT as TorchScript takes 10 on two cores
STOP_SECONDS = 20.0  # for requests under way when asked to stop
LEAVE_SECONDS = 4.0  # of these, for what Triton does after it has given up waiting for them
POLL_SECONDS = 0.1
# For Triton to say itself why a stub died, where it will.
DEAD_STUB_SECONDS = 3.0
# Where the decode step reads how many requests wait for a network.
METRICS_VARIABLE = "CLIPSERVE_METRICS_URL"

NO_PROXY = [("grpc.enable_http_proxy", 0)]  # whatever the environment says: the server is on this machine

Progress = Callable[[int, int], None]


class Triton:
    """The embedded server over a model repository.

    with Triton(Path("model_repository"), models=["motion"]) as triton:
        ...  # triton.grpc_url

    models: the public models to serve; all that are exported where none is named. A port of 0 is any free one.
    log: the file that Triton's log is appended to; None: one of its own, removed at the end unless something failed.
    cpu_precision: what ONNX files are run in on the CPU, see precision.py; None: what CLIPSERVE_CPU_PRECISION says.
    decoder: what decodes videos; None: what CLIPSERVE_DECODER says, or else the config of the decode step.
    Entering waits until every model is ready and raises ServerStartError otherwise; leaving ends every process.
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
        progress: Progress = lambda ready, total: None,
    ) -> None:
        self.repository = repository
        self.host = host
        self._names = tuple(models)
        self._ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._start_seconds = start_seconds
        self._options = tuple(options)
        self._decoder = decoder
        self._cpu_precision = check_precision(cpu_precision or wanted_precision())
        self._progress = progress
        self._log_file = log
        self._log: TritonLog | None = None
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._serves = False
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
            environment = lay_out_python(self._folder / "python", wheel)
            backends = lay_out_backends(self._folder / "backends", wheel)
            command = [str(wheel.binary), *self._arguments(self._folder, backends), *self._options]
            room = measure_room(self.repository, self.models)
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
                self._guard.stdin.write(SERVES)
                self._guard.stdin.flush()
            self._serves = True
        except BaseException as error:
            # Ctrl-C is no failure.
            self._end(well=not isinstance(error, Exception))
            raise

    def stop(self) -> None:
        """End the server and everything it started; requests under way get STOP_SECONDS. Harmless when stopped."""
        if self._guard is not None:
            self._end(well=self.is_running and not dead_stubs(self._guard.pid))

    def _end(self, *, well: bool) -> None:
        if self._guard is not None:
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
            self._serves = False
        if self._folder is not None:
            remove_traces(self._folder)
            self._folder = None
        if self._log is not None and well:
            self._log.discard()

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def log_path(self) -> Path:
        """The log of Triton and of all that it starts. Stays after an end that was no good one."""
        assert self._log is not None
        return self._log.path

    @property
    def folder(self) -> Path:
        """Temporary files; gone when the server is stopped. Shared memory has its name, see guard.shm_prefix."""
        assert self._folder is not None
        return self._folder

    def _arguments(self, folder: Path, backends: Path) -> list[str]:
        steps = {step: None for model in self.models for step in model.steps}
        return [
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix(folder)}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in (*steps, *(model.name for model in self.models))),
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={STOP_SECONDS - LEAVE_SECONDS:.0f}",
            "--allow-gpu-metrics=true",
            *(f"--{service}-address={self.host}" for service in self._ports),
            *(f"--{service}-port={port}" for service, port in self._ports.items()),
        ]

    def _wait_until_ready(self) -> None:
        assert self._log is not None
        deadline = time.monotonic() + self._start_seconds
        names = [model.name for model in self.models]
        died: float | None = None
        with triton_grpc.InferenceServerClient(self.grpc_url, channel_args=NO_PROXY) as client:
            while True:
                died = self._look_for_the_dead(died)
                ready = [name for name in names if _is_ready(client, name)]
                self._progress(len(ready), len(names))
                if len(ready) == len(names):
                    return
                if time.monotonic() > deadline:
                    late = ", ".join(name for name in names if name not in ready)
                    raise ServerStartError(
                        self._log.naming(f"{late} did not become ready within {self._start_seconds:.0f} s")
                    )
                time.sleep(POLL_SECONDS)

    def _look_for_the_dead(self, died: float | None) -> float | None:
        """Raise where the start cannot succeed any more. died: when a dead stub was first seen, by time.monotonic()."""
        assert self._guard is not None
        assert self._log is not None
        if self._guard.poll() is not None:
            raise self.failure()
        if not dead_stubs(self._guard.pid):
            return None
        died = died or time.monotonic()
        if self._log.unloadable() or time.monotonic() > died + DEAD_STUB_SECONDS:
            raise self._log.explain("a stub of Triton's Python backend died as it started")
        return died

    def notices(self) -> list[str]:
        """What an operator should know of a server that started, in sentences: too little shared memory, networks that
        run on another kind of device than they were exported for.
        """
        misfits = [] if self._log is None else read_misfits(self._log.text())
        return misfits if self._room_notice is None else [self._room_notice, *misfits]

    def failure(self) -> ServerStartError:
        """Why a server that ended by itself did so, as far as its log tells."""
        assert self._log is not None
        status = self._guard.poll() if self._guard is not None else None
        if status is not None and status > 128:
            # It said nothing of that; what its log ends with is about something else.
            signal_name = signal.Signals(status - 128).name
            return ServerStartError(self._log.naming(f"Triton ended by itself ({signal_name})"))
        if self._serves:
            last_words = self._log.last_words()
            what_happened = f"Triton ended by itself (status {status})"
            return ServerStartError(self._log.naming(": ".join(filter(None, (what_happened, last_words)))))
        return self._log.explain("Triton ended by itself")


def _is_ready(client: triton_grpc.InferenceServerClient, name: str) -> bool:
    try:
        return bool(client.is_model_ready(name, client_timeout=5.0))
    except InferenceServerException:
        return False
