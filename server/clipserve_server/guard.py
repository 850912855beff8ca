"""Runs a command and makes sure that it ends when the process that asked for it ends, however that ends.

    python -m clipserve_server.guard SECONDS FOLDER COMMAND...

Standard input is the lifeline: when it closes (the other end closed it, or died, kill -9 included), the command is
killed with everything it started. A byte on it says that the command serves: then it is first asked to stop once the
requests under way are answered, and given SECONDS for both. FOLDER, which is its temporary folder, and the shared
memory that has the folder's name go with it.
Ctrl-C is the other end's business.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from clipserve_server.under_way import VARIABLE, finish

SERVES = b"!"
ENDING_SECONDS = 5.0  # of the grace, for the end itself
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    # For the guard's own death; safe here, where the thread that starts the command is the whole process.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_guarded(command: Sequence[str], *, grace_seconds: float, folder: Path) -> int:
    """Run `command` in a process group of its own; gives its exit status."""
    under_way = folder / "under_way"
    under_way.touch()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(folder), VARIABLE: str(under_way)},
        process_group=0,
        preexec_fn=_die_with_parent,
    )
    lifeline, exited = sys.stdin.fileno(), os.pidfd_open(child.pid)
    ready: Sequence[int] = ()
    serves = False
    try:
        while exited not in ready:
            ready, _, _ = select.select([lifeline, exited], [], [])
            if lifeline in ready and not os.read(lifeline, len(SERVES)):
                break
            serves = True
        if exited not in ready and serves:
            end = time.monotonic() + grace_seconds
            finish(under_way, deadline=end - ENDING_SECONDS, is_running=lambda: child.poll() is None)
            child.terminate()
            select.select([exited], [], [], max(end - time.monotonic(), 0))
    finally:
        _kill_group(child.pid)
        status = child.wait()
        # A command that ended by itself leaves its log to the other end, which wants to know why.
        if exited not in ready:
            remove_traces(folder)
    return status


def _kill_group(group: int) -> None:
    # Until the leader is waited for, its number cannot be another group's.
    for _ in range(2):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def shm_prefix(folder: Path) -> str:
    """What the names of the command's shared memory begin with."""
    return folder.name.replace("-", "_")


def remove_traces(folder: Path) -> None:
    """Remove the folder and the shared memory named after it; harmless when they are gone."""
    for region in Path("/dev/shm").glob(f"{shm_prefix(folder)}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """The command line above."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    seconds, folder, *command = sys.argv[1:]
    status = run_guarded(command, grace_seconds=float(seconds), folder=Path(folder))
    # As a shell tells of a signal.
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
