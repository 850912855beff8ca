"""A contestant from outside: its process is started, given videos, watched and ended here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from rivals.lineup import Contestant, Setting
from rivals.networks import Ground
from rivals.process_tree import members, resident_bytes

START_SECONDS, SLICE_SECONDS, STOP_SECONDS = 300.0, 1800.0, 30.0
SAMPLE_SECONDS = 0.2  # between two looks at the memory
# Settings of the caller's shell that would bend a contestant's own.
PRIVATE_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CLIPSERVE_CPU_PRECISION")


class ContestantFailed(Exception):
    """A contestant did not start, or its process ended; the message has the end of its log."""


class Seat:
    """The process of one contestant with one setting; a context manager that ends all it started.

    Entered, it is on its way; `wait_until_ready` before its first video.
    libraries: the library path for it. log: where its output goes. folder: for its temporary files.
    """

    def __init__(
        self, contestant: Contestant, setting: Setting, ground: Ground, *, libraries: str, log: Path, folder: Path
    ) -> None:
        self.contestant, self.setting = contestant, setting
        self._ground, self._libraries, self._log, self._folder = ground, libraries, log, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._started: list[psutil.Process] = []  # the whole tree, as it was when it was asked to stop

    @property
    def pid(self) -> int:
        """Of the root of the tree."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if name not in PRIVATE_VARIABLES}
        environment |= {
            "LD_LIBRARY_PATH": self._libraries,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "TMPDIR": str(self._folder),
        }
        command = [sys.executable, "-m", "rivals.process", self.contestant.key, self._ground.to_json()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(dict(self.setting))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                # Ctrl-C is for the one who measures, who then ends all of them.
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(patient=kind is None)

    def wait_until_ready(self) -> None:
        """Wait until it would take videos. Raises ContestantFailed."""
        self._read(START_SECONDS, lambda: None)

    def classify(
        self, videos: Sequence[str], *, concurrency: int, watch_memory: bool = False
    ) -> tuple[dict[str, Any], int]:
        """The answers of its process, and the most memory it had, in bytes (0 if not watched)."""
        assert self._process is not None
        assert self._process.stdin is not None
        peak = 0

        def look() -> None:
            nonlocal peak
            peak = max(peak, resident_bytes(self.pid) if watch_memory else 0)

        order = json.dumps({"videos": list(videos), "concurrency": concurrency})
        try:
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("its process has ended") from error
        reply = self._read(SLICE_SECONDS, look)
        look()  # A short slice may have gone by between two looks.
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
        return ContestantFailed(f"{self.contestant.title}: {reason}\n{tail}")

    def ask_to_stop(self) -> None:
        """Let it end by itself while others are asked as well."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._started = self._started or list(members(self._process.pid))
            self._process.stdin.close()

    def stop(self, *, patient: bool = True) -> None:
        """End the process and what it started; not patient: what is under way is not waited for."""
        if self._process is None:
            return
        self.ask_to_stop()
        if not patient:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS if patient else STOP_SECONDS / 3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(self._started[1:], timeout=3)
        for process in alive:
            process.kill()
        self._process = None
