"""A worker process as the pool sees it: start it, give it a job, kill it when it exceeds its limits."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType

from clip_decode.errors import Crashed, Declined, DecodeError, OutOfMemory, TimedOut
from clip_decode.limits import Limits
from clip_decode.windows import WindowClips

from .messages import READY, TAKEN, Decoded, Job, receive_answer, send_job
from .settings import PoolSettings
from .standard_error import StandardError
from .window_messages import Ended, WindowJob, receive_window, send_window_job

# Workers import the packages of this repository, whatever is installed or in the working directory.
IMPORT_OWN_CODE = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONSAFEPATH": "1"}
START_SECONDS = 30.0
# Names the server's log where that is a file. Errors about a dead worker name the file.
LOG_VARIABLE = "CLIPSERVE_LOG"
WATCH_SECONDS = 0.05
# Between the end of a socket and the exit of its process.
EXIT_SECONDS = 0.2
# Between SIGKILL and the exit. A process that hangs in a GPU's driver may never exit.
KILL_SECONDS = 5.0
# One thread in each worker: there is a worker for each core.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class WorkerGone(Exception):
    """The process died before it had the job. Another worker may do it."""


class WorkerNotStarted(WorkerGone):
    """The process did not start. The notes have what it wrote to its standard error."""


class WorkerProcess:
    """A started worker, or one of several connections to the same one. Not thread-safe, but for `kill`.

    Attributes:
        step: what the worker said last that it does, before it was ready. Nothing where somebody else killed it.
        summary: what it said of itself when it was.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        stderr: StandardError,
        settings: PoolSettings,
        program: str,
    ) -> None:
        """See start_worker."""
        self._program = program
        self._process, self._connection, self._stderr, self._settings = process, connection, stderr, settings
        self._is_ready = False
        self._first_megabytes = 0.0
        self.step = self.summary = ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, and has not been ended."""
        return not self._connection.closed and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded its decoder. Raises WorkerNotStarted; the process is dead then."""
        if self._is_ready:
            return
        deadline = time.monotonic() + START_SECONDS
        try:
            while True:
                if not self._connection.poll(max(deadline - time.monotonic(), 0)):
                    raise self._not_started(f"it was not ready after {START_SECONDS:g} s")
                message = self._connection.recv_bytes()
                if message.startswith(READY):
                    self.summary = message[len(READY) :].decode()
                    break
                self.step = message.decode()
        except (EOFError, OSError) as error:
            self.end()
            if self._process.returncode == -signal.SIGKILL:
                self.step = ""
            raise self._not_started(self._describe_exit()) from error
        self._is_ready = True
        self._first_megabytes = self._memory_megabytes()

    def decode(self, job: Job) -> Decoded:
        """Give the worker a job, and wait for the result.

        Raises:
            WorkerGone: the process was dead before; ask another.
            Declined: the worker leaves the job to another.
            DecodeError: the worker's own, or TimedOut, Crashed or OutOfMemory, after which the process is dead.
                The notes are for the server's log.
        """
        self.wait_until_ready()
        self._stderr.clear()
        try:
            return self._exchange(job)
        except (DecodeError, Declined):
            raise
        except BaseException:
            # Part of a job or an answer may be on its way. It would be taken for the beginning of the next one.
            self.end()
            raise

    def decode_windows(self, job: WindowJob) -> Iterator[WindowClips]:
        """Give the worker a video, and receive its windows one after the other. The process is dead afterwards.

        The worker may be silent for `max_decode_seconds`: it sends signs of life while it works.

        Raises:
            WorkerNotStarted: the process did not start.
            DecodeError: the worker's own, or TimedOut, Crashed or OutOfMemory.
        """
        self.wait_until_ready()
        expected = job.windows.first_window
        try:
            send_window_job(self._connection, job, self.pid)
            while True:
                self._watch()
                self._check_memory()
                if (window := receive_window(self._connection, job)) is None:
                    continue
                if window.window.span.number != expected:
                    raise ValueError("a worker answered with another window than the next one")
                expected += 1
                yield window
        except Ended:
            return
        except (BlockingIOError, TimedOut) as error:
            raise TimedOut(f"decoding made no progress for {self._settings.max_decode_seconds} seconds") from error
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self.end()
            raise self._crashed() from error
        finally:
            self.end()

    def _exchange(self, job: Job) -> Decoded:
        started = time.monotonic()
        try:
            send_job(self._connection, job)
            self._connection.recv_bytes(len(TAKEN))
        except (OSError, EOFError) as error:
            # The worker did not have the whole video yet, so the video is not the cause.
            raise WorkerGone("a worker died while it was idle") from error
        try:
            self._watch()
            return receive_answer(self._connection, job, started=started)
        except BlockingIOError as error:
            self.end()
            raise self._timed_out() from error
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            # The worker is dead, or what it sends is no answer.
            self.end()
            raise self._crashed() from error

    def _watch(self) -> None:
        """Wait until an answer begins. Kill the worker when its time or memory is used up.

        The pool watches the memory, because a decoder does not always report that an allocation failed: the one of
        H.264 calls the data invalid, and the video would look damaged.
        """
        deadline = time.monotonic() + self._settings.max_decode_seconds
        while not self._connection.poll(WATCH_SECONDS):
            self._stderr.read()
            if time.monotonic() > deadline:
                self.end()
                raise self._timed_out()
            self._check_memory()

    def _check_memory(self) -> None:
        if self._memory_megabytes() > self._first_megabytes + self._settings.max_worker_megabytes:
            self.end()
            raise OutOfMemory(
                f"decoding this video takes more than {self._settings.max_worker_megabytes} MiB of memory"
            )

    def _memory_megabytes(self) -> float:
        """Resident memory of the process that it does not share with others; 0 when it is gone."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.pid}/statm").read_text().split()
        except (OSError, ValueError):
            return 0.0
        return (int(resident) - int(shared)) * resource.getpagesize() / 2**20

    def _timed_out(self) -> DecodeError:
        return TimedOut(f"decoding took more than {self._settings.max_decode_seconds} seconds")

    def _crashed(self) -> DecodeError:
        log = os.environ.get(LOG_VARIABLE)
        place = f"the server's log, {log}," if log else "the server's log"
        error = Crashed(f"the process that decoded this video died ({self._describe_exit()}); {place} says more")
        if self._stderr.text:
            error.add_note(self._stderr.text)
        return error

    def _not_started(self, how: str) -> WorkerNotStarted:
        self.end()
        output = f": {self._stderr.last_line}" if self._stderr.text else " and wrote nothing"
        error = WorkerNotStarted(f"{self._program} could not start a decode worker ({how}){output}")
        if self._stderr.text:
            error.add_note(self._stderr.text)
        return error

    def _describe_exit(self) -> str:
        status = self._process.returncode
        if status is None:
            return "it does not end after SIGKILL"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Kill the process, from any thread. The thread that waits for its answer gets an error."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process, if it lives, and close the socket. A process that is exiting keeps its exit status.

        Does nothing the second time.
        """
        if self._connection.closed:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        self._connection.close()
        self._stderr.close()


def start_worker(program: Sequence[str], settings: PoolSettings, limits: Limits) -> WorkerProcess:
    """Start a worker.

    program: what to run, for example worker_program("worker"). It gets three more arguments: the file descriptor of its
        socket, the limits of a video as JSON, and the megabytes of memory it may take.
    """
    return start_workers(program, settings, limits, 1)[0]


def start_workers(
    program: Sequence[str],
    settings: PoolSettings,
    limits: Limits,
    count: int,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[WorkerProcess]:
    """Start one process that does `count` jobs at a time. Returns that many connections to it.

    program: as for start_worker; the file descriptors of its sockets are joined by commas.
    """
    with contextlib.ExitStack() as sockets:  # closes theirs; ours too, unless the process has started
        pairs = []
        for _ in range(count):
            ours, theirs = map(sockets.enter_context, socket.socketpair())
            # The kernel enforces the time limit: a read or write that takes longer fails with EAGAIN.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", settings.max_decode_seconds, 0))
            pairs.append((ours, theirs))
        descriptors = [theirs.fileno() for _, theirs in pairs]
        stderr = StandardError(users=count)
        with stderr.writable() as output:
            process = subprocess.Popen(
                [
                    *program,
                    ",".join(map(str, descriptors)),
                    json.dumps(asdict(limits)),
                    str(settings.max_worker_megabytes),
                ],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **_SINGLE_THREADED, **IMPORT_OWN_CODE, **environment},
            )
        return [WorkerProcess(process, Connection(ours.detach()), stderr, settings, program[0]) for ours, _ in pairs]


def worker_program(module: str) -> list[str]:
    """The program that is this module. When it crashes, faulthandler writes its Python stack."""
    return [python(), "-X", "faulthandler", "-m", f"decode_pool.{module}"]


def python() -> str:
    """The interpreter with the packages of this process. Embedded, sys.executable may be another program."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    return shutil.which("python3") or "python3"
