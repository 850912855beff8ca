"""One worker as the pool sees it: a process to start, ask, and replace when it dies."""

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType

from clip_decode.errors import Crashed, Declined, DecodeError, OutOfMemory, TimedOut
from clip_decode.limits import Limits
from decode_pool.messages import TAKEN, Decoded, Job, receive_answer, send_job
from decode_pool.settings import PoolSettings
from decode_pool.standard_error import StandardError

CODE = Path(__file__).parents[1]
# Workers import the code of this repository, whatever is installed or in the working directory.
IMPORT_OWN_CODE = {"PYTHONPATH": f"{CODE / 'packages'}{os.pathsep}{CODE}", "PYTHONSAFEPATH": "1"}
START_SECONDS = 30.0
# The server names its log here where it is a file, and errors about a dead worker name it in turn.
LOG_VARIABLE = "CLIPSERVE_LOG"
WATCH_SECONDS = 0.05
# Between the end of a socket and the end of the process that held it.
DYING_SECONDS = 0.2
# One thread a worker: there is a worker for each core.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class WorkerGone(Exception):
    """The process had died before it was given a job; nothing is lost but time."""


class WorkerNotStarted(WorkerGone):
    """The process did not come so far as to take jobs. Its notes are what it wrote to its standard error."""


class WorkerProcess:
    """A started worker, or one of several ways to the same one. Not for two threads at a time."""

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

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded FFmpeg. Raises WorkerNotStarted, after which the process is dead."""
        if self._is_ready:
            return
        try:
            if not self._connection.poll(START_SECONDS):
                raise self._not_started(f"it was not ready after {START_SECONDS:g} s")
            self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.end()
            raise self._not_started(self._describe_end()) from error
        self._is_ready = True
        self._first_megabytes = self._memory_megabytes()

    def decode(self, job: Job) -> Decoded:
        """Have a job done.

        Raises:
            WorkerGone: the process was dead before; ask another.
            Declined: the worker leaves the job to another.
            DecodeError: the worker's own, or TimedOut, Crashed or OutOfMemory, after which the process is dead.
                Its notes are for the server's log.
        """
        self.wait_until_ready()
        self._stderr.forget()
        try:
            return self._exchange(job)
        except (DecodeError, Declined):
            raise
        except BaseException:
            # Part of a job or of an answer may be on its way: whatever came next would be taken for the rest of it.
            self.end()
            raise

    def _exchange(self, job: Job) -> Decoded:
        started = time.monotonic()
        try:
            send_job(self._connection, job)
            self._connection.recv_bytes(len(TAKEN))
        except (OSError, EOFError) as error:
            # Before it had the whole video, so not because of it.
            raise WorkerGone("a worker died while it was idle") from error
        try:
            self._watch()
            return receive_answer(self._connection, job, started=started)
        except BlockingIOError as error:
            self.end()
            raise self._overdue() from error
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            # Dead, or talking nonsense, which is no better.
            self.end()
            raise self._post_mortem() from error

    def _watch(self) -> None:
        """Wait for the beginning of an answer; kill the worker when its time or memory is used up.

        Memory is watched from outside, because a decoder whose allocation fails does not always say so: H.264 calls the
        data invalid, and the video would look damaged.
        """
        deadline = time.monotonic() + self._settings.max_decode_seconds
        while not self._connection.poll(WATCH_SECONDS):
            self._stderr.read()
            if time.monotonic() > deadline:
                self.end()
                raise self._overdue()
            if self._memory_megabytes() > self._first_megabytes + self._settings.max_worker_megabytes:
                self.end()
                raise OutOfMemory(
                    f"decoding this video takes more than {self._settings.max_worker_megabytes} MiB of memory"
                )

    def _memory_megabytes(self) -> float:
        """Resident memory of the process; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        except OSError:
            return 0.0

    def _overdue(self) -> DecodeError:
        return TimedOut(f"decoding took more than {self._settings.max_decode_seconds} seconds")

    def _post_mortem(self) -> DecodeError:
        log = os.environ.get(LOG_VARIABLE)
        place = f"the server's log, {log}," if log else "the server's log"
        error = Crashed(
            f"the process that decoded this video died ({self._describe_end()}); {place} has its last words"
        )
        if self._stderr.text:
            error.add_note(self._stderr.text)
        return error

    def _not_started(self, how: str) -> WorkerNotStarted:
        self.end()
        said = f": {self._stderr.last_line}" if self._stderr.text else " and said nothing"
        error = WorkerNotStarted(f"{self._program} could not start a decode worker ({how}){said}")
        if self._stderr.text:
            error.add_note(self._stderr.text)
        return error

    def _describe_end(self) -> str:
        status = self._process.returncode
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Kill the process; from any thread. Whoever waits for its answer is told."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process, if it lives, and close the socket. The exit status of one that was dying stays its own.

        Harmless when it has been ended.
        """
        if self._connection.closed:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DYING_SECONDS)
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()


def start_worker(program: Sequence[str], settings: PoolSettings, limits: Limits) -> WorkerProcess:
    """Start a worker.

    program: what to run, decode_worker() for instance. It is given three arguments more: the number of its socket, the
        limits of a video as JSON, and the megabytes of memory it may take.
    """
    return start_workers(program, settings, limits, 1)[0]


def start_workers(
    program: Sequence[str],
    settings: PoolSettings,
    limits: Limits,
    count: int,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[WorkerProcess]:
    """Start one process that does `count` jobs at a time: as many workers, which live and die together.

    program: as for start_worker; the numbers of its sockets come with commas between them.
    """
    stderr = StandardError(users=count)
    pairs = [socket.socketpair() for _ in range(count)]
    theirs = [pair[1] for pair in pairs]
    for ours, _ in pairs:
        # The kernel keeps the time: a read or write that takes longer fails with EAGAIN.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", settings.max_decode_seconds, 0))
    descriptors = [end.fileno() for end in theirs]
    try:
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
    finally:
        for end in theirs:
            end.close()
    return [WorkerProcess(process, Connection(ours.detach()), stderr, settings, program[0]) for ours, _ in pairs]


def decode_worker() -> list[str]:
    """The program that decodes by FFmpeg. faulthandler writes the Python stack of one that crashes."""
    return [python(), "-X", "faulthandler", "-m", "decode_pool.worker"]


def python() -> str:
    """The interpreter whose packages are those of this process; embedded, sys.executable need not be one."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    return shutil.which("python3") or "python3"
