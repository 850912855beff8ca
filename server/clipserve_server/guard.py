"""Runs a command and makes sure that it ends when the process that asked for it ends, however that ends.

    python -m clipserve_server.guard SECONDS COMMAND...

Standard input is the lifeline: when it closes (the other end closed it, or died, kill -9 included), the command is
asked to stop, given SECONDS for it, and then killed with everything it started. Ctrl-C is the other end's business.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    # For the guard's own death; safe here, where the thread that starts the command is the whole process.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_guarded(command: Sequence[str], *, grace_seconds: float) -> int:
    """Run `command` in a process group of its own; gives its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_parent)
    lifeline, exited = sys.stdin.fileno(), os.pidfd_open(child.pid)
    try:
        ready, _, _ = select.select([lifeline, exited], [], [])
        if exited not in ready:
            child.terminate()
            select.select([exited], [], [], grace_seconds)
    finally:
        _kill_group(child.pid)
    return child.wait()


def _kill_group(group: int) -> None:
    # Until the leader is waited for, its number cannot be another group's.
    for _ in range(2):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def main() -> None:
    """The command line above."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(run_guarded(sys.argv[2:], grace_seconds=float(sys.argv[1])))


if __name__ == "__main__":
    main()
