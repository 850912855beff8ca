"""Runs Triton with a readiness port, a watch, and a graceful stop.

Triton alone is not enough. At SIGTERM it refuses the *next step* of the requests in flight ("Server is stopping,
scheduler for model has stopped accepting new inference requests", 2.51), so every ensemble in flight fails. Unloading
the ensemble first has the same effect. So Triton is told to stop only when the decode step has answered its requests.
And a Python model whose process died stays dead, while Docker restarts only a container that has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

from clipserve_container.readiness import Readiness
from clipserve_container.settings import TRITON_EXIT_SECONDS
from clipserve_container.start_activity import STUCK_SECONDS, StartActivity
from clipserve_host.in_flight import VARIABLE as IN_FLIGHT_VARIABLE
from clipserve_host.in_flight import finish_requests

POLL_SECONDS = 0.1


class Service:
    """One run of Triton.

    ready_port: where GET /ready is answered; 0 is any free port.
    watch_seconds, restart_after: how often the watch checks the models, and after how many failures in a row it ends
        Triton; 0 is never.
    stuck_seconds: how long a Triton that starts may do nothing before the watch ends it, unless restart_after is 0.
    drain_seconds: from "not ready" until no more requests are taken, so that a balancer notices.
    exit_seconds: from the signal to the end. The requests in flight have what drain_seconds leaves of it.
    certificate_expiry: when the certificate that Triton has read expires, in seconds since 1970.
    in_flight: a file to make, which tells whether there are requests in flight.
    """

    def __init__(
        self,
        command: list[str],
        readiness: Readiness,
        *,
        ready_port: int,
        restart_after: int,
        watch_seconds: float,
        drain_seconds: float,
        exit_seconds: float,
        in_flight: Path,
        stuck_seconds: float = STUCK_SECONDS,
        certificate_expiry: float | None = None,
    ) -> None:
        self._command, self._readiness = command, readiness
        self._restart_after, self._watch_seconds = restart_after, watch_seconds
        self._drain_seconds, self._exit_seconds = drain_seconds, exit_seconds
        self._in_flight = in_flight
        self._stuck_seconds, self._certificate_expiry = stuck_seconds, certificate_expiry
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("", ready_port), self._make_handler())
        self.ready_port = self._server.server_port

    def run(self) -> int:
        """Run until Triton ends, by itself or after SIGTERM. Returns its exit status."""
        second_signal = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stopping.is_set():
                second_signal.set()
            self._stopping.set()

        # Before Triton starts: a signal in between would end this process and leave Triton behind.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        self._in_flight.parent.mkdir(parents=True, exist_ok=True)
        self._in_flight.write_bytes(b"")
        # In a session of its own, so that Ctrl-C in the container's terminal reaches only this process.
        triton = subprocess.Popen(
            self._command,
            env={**os.environ, IN_FLIGHT_VARIABLE: str(self._in_flight)},
            start_new_session=True,
        )
        threading.Thread(target=self._server.serve_forever, name="ready", daemon=True).start()
        threading.Thread(target=self._watch, args=(triton,), name="watch", daemon=True).start()
        while triton.poll() is None:
            if self._stopping.wait(POLL_SECONDS):
                self._stop(triton, second_signal)
        self._server.server_close()
        # As a shell reports a signal. A negative exit status would be lost.
        return triton.returncode if triton.returncode >= 0 else 128 - triton.returncode

    def _stop(self, triton: subprocess.Popen[bytes], second_signal: threading.Event) -> None:
        """End Triton when its requests are answered, the time is up, or a second signal comes."""
        deadline = time.monotonic() + self._exit_seconds
        log(f"stopping: no longer ready; accepts requests for {self._drain_seconds:g} s")
        pause(self._drain_seconds, triton, second_signal)
        log("stopping: accepts no more requests, and answers those in flight")

        def may_wait() -> bool:
            return triton.poll() is None and not second_signal.is_set()

        if not finish_requests(self._in_flight, deadline=deadline - TRITON_EXIT_SECONDS, is_running=may_wait):
            log("stopping: gives up the requests in flight")
        end(triton, 0 if second_signal.is_set() else deadline - time.monotonic())

    def find_problems(self) -> list[str]:
        """Why no request should be sent here; empty when the server is ready."""
        if self._stopping.is_set():
            return ["the server is stopping"]
        return name_problems(self._readiness.check())

    def write_metrics(self) -> str:
        """What Triton's metrics lack, in Prometheus' text format: ready models, the end of the certificate."""
        lines = ["# HELP clipserve_model_ready 1 when the model accepts requests", "# TYPE clipserve_model_ready gauge"]
        lines += [
            f'clipserve_model_ready{{model="{name}"}} {int(not why)}' for name, why in self._readiness.check().items()
        ]
        if self._certificate_expiry is not None:
            name = "clipserve_certificate_expiry_timestamp_seconds"
            lines += [f"# HELP {name} When the server's certificate expires", f"# TYPE {name} gauge"]
            lines.append(f"{name} {self._certificate_expiry:.0f}")
        return "\n".join(lines) + "\n"

    def _watch(self, triton: subprocess.Popen[bytes]) -> None:
        """End a Triton that does nothing as it starts, or was ready and is not in several checks in a row."""
        failures, activity = 0, StartActivity(self._stuck_seconds)
        while not self._stopping.wait(self._watch_seconds):
            was_ready = self._readiness.has_been_ready
            try:
                problems = name_problems(self._readiness.check())
            except Exception as error:
                # Without the watch, a Triton that dies later would never be restarted.
                log(f"cannot check the models ({type(error).__name__}: {error}); tries again")
                continue
            if self._restart_after and not self._readiness.has_been_live and activity.is_stuck():
                log(f"Triton got stuck as it started: idle for {self._stuck_seconds:g} s; ends it for a new start")
                end(triton)
                return
            # While Triton starts, failed checks do not count.
            failures = failures + 1 if problems and was_ready else 0
            if failures:
                log(f"not ready, {failures} times in a row: {'; '.join(problems)}")
                if self._restart_after and failures >= self._restart_after:
                    log("ends Triton, so that it is restarted")
                    end(triton)
                    return

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self.answer(200, "text/plain; version=0.0.4", service.write_metrics())
                elif self.path == "/ready":
                    problems = service.find_problems()
                    text = json.dumps({"ready": not problems, "problems": problems})
                    self.answer(503 if problems else 200, "application/json", text)
                else:
                    self.send_error(404)

            def answer(self, status: int, kind: str, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass  # requests come every second

        return Handler


def name_problems(models: dict[str, str]) -> list[str]:
    """A message for each model that is not ready."""
    return [f"{name}: {why}" for name, why in models.items() if why]


def end(triton: subprocess.Popen[bytes], seconds: float = TRITON_EXIT_SECONDS) -> None:
    """Ask Triton to end, and kill it when it has not ended after `seconds`: 2.51 crashes and hangs then."""
    triton.terminate()
    try:
        # A second less than Docker allows before it kills this process.
        triton.wait(max(seconds, TRITON_EXIT_SECONDS) - 1)
    except subprocess.TimeoutExpired:
        triton.kill()
        triton.wait()


def pause(seconds: float, triton: subprocess.Popen[bytes], second_signal: threading.Event) -> None:
    """Sleep, at most until Triton ends or a second signal comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and triton.poll() is None and not second_signal.is_set():
        time.sleep(POLL_SECONDS)


def log(text: str) -> None:
    """Write to the container's log, beside Triton's."""
    print(f"clipserve: {text}", file=sys.stderr, flush=True)  # noqa: T201
