"""Contestants in processes of their own: started fresh, asked by JSON lines, watched, ended with all they started."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.machine import process_tree, tree_bytes
from benchmarks.harness.results import ROOT

START_SECONDS, ORDER_SECONDS, STOP_SECONDS = 300.0, 1800.0, 30.0
SAMPLE_SECONDS = 0.2  # between two readings of the memory
# Settings of the caller's shell that would change a contestant's own.
PRIVATE_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CLIPSERVE_CPU_PRECISION")


def answer_orders(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: answer each order on stdin until it closes. Tells first that it is ready."""
    print(json.dumps({"ready": True}), file=_replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), file=_replies, flush=True)


def redirect_output() -> None:
    """The child's side, first of all: what libraries print goes to the log; a SIGTERM ends the program as usual."""
    global _replies
    _replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


_replies = sys.stdout


class ContestantFailed(Exception):
    """A contestant did not start, or its process ended. The message has the end of its log."""


class ContestantProcess:
    """The process of a contestant; a context manager that ends it with all that it started.

    Args:
        title: for messages.
        command: its command line.
        variables: environment variables in addition to ours.
        log: the file for what it prints.
    """

    def __init__(self, title: str, command: Sequence[str], *, variables: Mapping[str, str], log: Path) -> None:
        self._title, self._command, self._variables, self._log = title, command, variables, log
        self._process: subprocess.Popen[bytes] | None = None
        self._started: list[Any] = []  # the process tree when it was asked to stop

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if name not in PRIVATE_VARIABLES}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**environment, **self._variables},
                # Ctrl-C reaches only the program that measures, which ends the contestants.
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(wait_for_order=kind is None)

    def wait_until_ready(self) -> None:
        """Wait until it takes orders. Raises ContestantFailed."""
        self._read(START_SECONDS, lambda: None)

    def ask(self, order: Mapping[str, Any], *, watch_memory: bool = False) -> tuple[dict[str, Any], int]:
        """Send an order; returns the answer, and the peak memory of its tree in bytes (0 if not watched)."""
        assert self._process is not None
        assert self._process.stdin is not None
        peak = 0

        def look() -> None:
            nonlocal peak
            peak = max(peak, tree_bytes(self.pid) if watch_memory else 0)

        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("its process has ended") from error
        reply = self._read(ORDER_SECONDS, look)
        look()  # a short order may end between two readings
        return reply, peak

    def _read(self, seconds: float, look: Callable[[], None]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while not select.select([self._process.stdout], [], [], SAMPLE_SECONDS)[0]:
            look()
            if time.monotonic() > deadline:
                raise self._failure(f"no answer in {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure("its process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self, reason: str) -> ContestantFailed:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        return ContestantFailed(f"{self._title}: {reason}\n{tail}")

    def ask_to_stop(self) -> None:
        """Close its stdin: it ends while others are asked as well."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._started = self._started or list(process_tree(self._process.pid))
            self._process.stdin.close()

    def stop(self, *, wait_for_order: bool = True) -> None:
        """End the process and all that it started. `wait_for_order`: let it end the order that it works on."""
        if self._process is None:
            return
        import psutil

        self.ask_to_stop()
        if not wait_for_order:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS if wait_for_order else STOP_SECONDS / 3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(self._started[1:], timeout=3)
        for process in alive:
            process.kill()
        self._process = None
