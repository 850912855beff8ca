"""Runs a command, and ends it when the process that started the guard ends, whatever ends that.

    python -m clipserve_server.guard SECONDS FOLDER COMMAND...

The guard watches its standard input. When that closes, because the starter closed it or died (kill -9 included), the
guard kills the command with everything it started. A byte on standard input tells that the command is ready to serve;
then the guard first waits for the requests in flight and asks the command to stop, SECONDS at most for both. Then it
removes FOLDER, the command's temporary folder, and the shared memory named after it. The guard ignores Ctrl-C, which is
for its starter.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from clipserve_host.in_flight import VARIABLE as IN_FLIGHT_VARIABLE
from clipserve_host.in_flight import finish_requests

READY = b"!"
EXIT_SECONDS = 5.0  # of the grace, for the exit itself
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    # When the guard itself is killed. Safe here, because the thread that starts the command is the only one.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_guarded(command: Sequence[str], *, grace_seconds: float, folder: Path) -> int:
    """Run `command` in a process group of its own; returns its exit status."""
    in_flight = folder / "in_flight"
    in_flight.touch()
    with contextlib.suppress(OSError):  # a file system without locks
        # Until the guard ends. systemd-tmpfiles removes what is old from /tmp, and passes over a folder with a lock.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(folder), IN_FLIGHT_VARIABLE: str(in_flight)},
        process_group=0,
        preexec_fn=_die_with_parent,
    )
    stdin, exited = sys.stdin.fileno(), os.pidfd_open(child.pid)
    ready: Sequence[int] = ()
    is_ready = False
    try:
        while exited not in ready:
            ready, _, _ = select.select([stdin, exited], [], [])
            if stdin in ready and not os.read(stdin, len(READY)):
                break
            is_ready = True
        if exited not in ready and is_ready:
            end = time.monotonic() + grace_seconds
            finish_requests(in_flight, deadline=end - EXIT_SECONDS, is_running=lambda: child.poll() is None)
            child.terminate()
            select.select([exited], [], [], max(end - time.monotonic(), 0))
    finally:
        _kill_group(child.pid)
        status = child.wait()
        # When the command ended by itself, the starter reads its log to find out why, and removes the folder.
        if exited not in ready:
            remove_traces(folder)
    return status


def _kill_group(group: int) -> None:
    # The kernel does not reuse the number before the leader is waited for.
    for _ in range(2):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def shm_prefix(folder: Path) -> str:
    """The prefix of the command's shared memory regions."""
    return folder.name.replace("-", "_")


def remove_traces(folder: Path) -> None:
    """Remove the folder and the shared memory named after it, if they exist."""
    for region in Path("/dev/shm").glob(f"{shm_prefix(folder)}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the command line above."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    seconds, folder, *command = sys.argv[1:]
    status = run_guarded(command, grace_seconds=float(seconds), folder=Path(folder))
    # A signal is reported as a shell does.
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
