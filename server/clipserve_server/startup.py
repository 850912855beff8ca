"""Watches a Triton that starts, until its models are ready or cannot become ready."""

import math
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve_host.processes import Process, processes_of
from clipserve_server.errors import StartCrashed, StartStuck
from clipserve_server.log import TritonLog

POLL_SECONDS = 0.1
# Within this time Triton may log why a stub died, or end by the signal that ended the stub.
DEAD_STUB_SECONDS = 10.0
# Triton 2.51 may wait for ever for a process that it started. A start counts as stuck when for STUCK_SECONDS nothing is
# logged and its processes compute less than STUCK_CPU_SECONDS: while they load they take whole cores, and once they are
# idle 0.2 s a minute (measured on an AMD EPYC).
STUCK_SECONDS = 60.0
STUCK_CPU_SECONDS = 0.6
# How Triton's Python backend crashes at times on a busy machine:
# https://github.com/triton-inference-server/server/issues/8882
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)

# A proxy of the environment cannot reach this machine.
NO_PROXY = [("grpc.enable_http_proxy", 0)]

Progress = Callable[[int, int], None]


class Startup:
    """One start of Triton.

    Args:
        guard: the process that runs Triton.
        log: Triton's log.
        seconds: how long the models may take.
        is_last: whether no other start follows. Then a start that seems stuck may use all of its time.
    """

    def __init__(self, guard: subprocess.Popen[bytes], log: TritonLog, *, seconds: float, is_last: bool) -> None:
        self._guard, self._log, self._seconds = guard, log, seconds
        self._stub_died: float | None = None
        self._stuck_seconds = math.inf if is_last else STUCK_SECONDS
        self._active = (time.monotonic(), 0, 0.0)

    def wait(self, grpc_url: str, names: Sequence[str], others: Sequence[tuple[str, int]], progress: Progress) -> None:
        """Wait until the models `names` are ready; `progress` gets the number of ready ones and of all.

        others: host and port of Triton's other services, which it opens after gRPC.

        Raises:
            StartCrashed: Triton crashed. Another start may succeed.
            StartStuck: nothing happens any more. Another start may succeed.
            ServerStartError: the models cannot become ready, or are not ready in time.
        """
        deadline = time.monotonic() + self._seconds
        with triton_grpc.InferenceServerClient(grpc_url, channel_args=NO_PROXY) as client:
            while True:
                self._check_processes()
                late = [name for name in names if not _is_model_ready(client, name)]
                progress(len(names) - len(late), len(names))
                late = late or [f"port {port}" for host, port in others if not _is_open(host, port)]
                if not late:
                    return
                if time.monotonic() > deadline:
                    raise self._log.explain(f"{', '.join(late)} did not become ready within {self._seconds:.0f} s")
                time.sleep(POLL_SECONDS)

    def _check_processes(self) -> None:
        status = self._guard.poll()
        if status is not None:
            if status - 128 in CRASHES:
                name = signal.Signals(status - 128).name
                raise StartCrashed(self._log.with_path(f"Triton crashed as it started ({name})"))
            raise self._log.explain_exit(status, was_ready=False)
        processes = processes_of(self._guard.pid)
        if not any(process.is_dead_stub for process in processes):
            self._stub_died = None
            self._check_activity(processes)
            return
        self._stub_died = self._stub_died or time.monotonic()
        if self._log.loader_error() or time.monotonic() > self._stub_died + DEAD_STUB_SECONDS:
            raise self._log.explain("a stub of Triton's Python backend died as it started")

    def _check_activity(self, processes: Sequence[Process]) -> None:
        since, old_log, old_cpu = self._active
        log, cpu = self._log.size(), sum(process.cpu_seconds for process in processes)
        # A process that ends takes its time out of the sum.
        if log != old_log or abs(cpu - old_cpu) > STUCK_CPU_SECONDS:
            self._active = (time.monotonic(), log, cpu)
        elif time.monotonic() > since + self._stuck_seconds:
            raise StartStuck(self._log.with_path(f"Triton got stuck as it started: idle for {self._stuck_seconds:g} s"))


def _is_model_ready(client: triton_grpc.InferenceServerClient, name: str) -> bool:
    try:
        return bool(client.is_model_ready(name, client_timeout=5.0))
    except InferenceServerException:
        return False


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True
