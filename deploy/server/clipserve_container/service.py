"""Triton and the little it needs around it: a port that says whether to send requests, a watch, and a soft end.

Why not Triton alone: at SIGTERM it refuses the *next step* of requests under way ("Server is stopping, scheduler for
model has stopped accepting new inference requests", 2.51), so every ensemble being served fails; unloading the ensemble
first does the same to them. So it is told only when the decode step has answered what it took. And a Python model whose
process died stays dead, while Docker restarts only what has ended.
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
from clipserve_container.settings import LEAVING_SECONDS
from clipserve_container.under_way import VARIABLE, finish

POLL_SECONDS = 0.1


class Service:
    """One run of Triton.

    ready_port: where GET /ready is answered, 0 is any.
    watch_seconds, restart_after: how often the watch looks, and after how many failures in a row it ends Triton; 0 is
        never.
    drain_seconds: between saying "not ready" and taking no more requests: for a balancer to hear.
    exit_seconds: from being told to stop to the end. What of it is left after drain_seconds is for requests under way.
    under_way: a file to make, which tells whether there are any.
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
        under_way: Path,
    ) -> None:
        self._command, self._readiness = command, readiness
        self._restart_after, self._watch_seconds = restart_after, watch_seconds
        self._drain_seconds, self._exit_seconds = drain_seconds, exit_seconds
        self._under_way = under_way
        self._leaving = threading.Event()
        self._server = ThreadingHTTPServer(("", ready_port), self._make_handler())
        self.ready_port = self._server.server_port

    def run(self) -> int:
        """Until Triton ends, by itself or at SIGTERM; returns its exit status."""
        asked_twice = threading.Event()

        def leave(number: int, frame: FrameType | None) -> None:
            if self._leaving.is_set():
                asked_twice.set()
            self._leaving.set()

        # Before Triton starts: a signal in between would end this process and leave it alone.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
        self._under_way.parent.mkdir(parents=True, exist_ok=True)
        self._under_way.write_bytes(b"")
        triton = subprocess.Popen(self._command, env={**os.environ, VARIABLE: str(self._under_way)})
        threading.Thread(target=self._server.serve_forever, name="ready", daemon=True).start()
        threading.Thread(target=self._watch, args=(triton,), name="watch", daemon=True).start()
        while triton.poll() is None:
            if self._leaving.wait(POLL_SECONDS):
                self._leave(triton, asked_twice)
        self._server.server_close()
        # A shell's way to say "by signal n"; a negative status would be lost.
        return triton.returncode if triton.returncode >= 0 else 128 - triton.returncode

    def _leave(self, triton: subprocess.Popen[bytes], asked_twice: threading.Event) -> None:
        """End Triton when its requests are answered, or the time is up, or somebody asks again."""
        deadline = time.monotonic() + self._exit_seconds
        say(f"stopping: not ready any more; takes requests for {self._drain_seconds:g} s")
        pause(self._drain_seconds, triton, asked_twice)
        say("stopping: takes no more requests, and answers those under way")

        def may_go_on() -> bool:
            return triton.poll() is None and not asked_twice.is_set()

        if not finish(self._under_way, deadline=deadline - LEAVING_SECONDS, is_running=may_go_on):
            say("stopping: requests under way are given up")
        end(triton, 0 if asked_twice.is_set() else deadline - time.monotonic())

    def find_problems(self) -> list[str]:
        """Why no request should be sent here; empty when it may."""
        if self._leaving.is_set():
            return ["the server is stopping"]
        return name_problems(self._readiness.look())

    def write_metrics(self) -> str:
        """What Triton's own metrics lack: which model is ready. In Prometheus' text format."""
        lines = ["# HELP clipserve_model_ready 1 when the model takes requests", "# TYPE clipserve_model_ready gauge"]
        lines += [
            f'clipserve_model_ready{{model="{name}"}} {int(not why)}' for name, why in self._readiness.look().items()
        ]
        return "\n".join(lines) + "\n"

    def _watch(self, triton: subprocess.Popen[bytes]) -> None:
        """End a Triton that was ready and has not been for several looks in a row."""
        was_ready, failures = False, 0
        while not self._leaving.wait(self._watch_seconds):
            problems = name_problems(self._readiness.look())
            was_ready, failures = was_ready or not problems, failures + 1 if problems else 0
            if problems and was_ready:
                say(f"not ready, {failures} times in a row: {'; '.join(problems)}")
                if self._restart_after and failures >= self._restart_after:
                    say("ending Triton, to be started anew")
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
                pass  # somebody asks every second

        return Handler


def name_problems(models: dict[str, str]) -> list[str]:
    """Of the models that are not ready."""
    return [f"{name}: {why}" for name, why in models.items() if why]


def end(triton: subprocess.Popen[bytes], seconds: float = LEAVING_SECONDS) -> None:
    """Ask it to end within so long, and make it: 2.51 that runs out of its time crashes and then hangs."""
    triton.terminate()
    try:
        # A second less: whoever told this process to stop kills it then.
        triton.wait(max(seconds, LEAVING_SECONDS) - 1)
    except subprocess.TimeoutExpired:
        triton.kill()
        triton.wait()


def pause(seconds: float, triton: subprocess.Popen[bytes], asked_twice: threading.Event) -> None:
    """Sleep, but not longer than Triton lives, or than until somebody asks again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and triton.poll() is None and not asked_twice.is_set():
        time.sleep(POLL_SECONDS)


def say(text: str) -> None:
    """Into the container's log, beside Triton's."""
    print(f"clipserve: {text}", file=sys.stderr, flush=True)  # noqa: T201
