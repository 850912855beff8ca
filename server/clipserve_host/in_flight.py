"""Waits until the decode step has answered the requests in flight, so that stopping the server loses none of them.

decode_model/in_flight.py of the model repository is the other side, and says why.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "CLIPSERVE_UNDER_WAY"
POLL_SECONDS = 0.05
# From the decode step's response until the network has the request. Triton 2.51 does both in one call; later Tritons
# use threads for it.
HANDOVER_SECONDS = 0.2


def finish_requests(path: Path, *, deadline: float, is_running: Callable[[], bool]) -> bool:
    """Let the decode step take no more requests, and wait for those in flight until `deadline` (time.monotonic()).

    path: the file that CLIPSERVE_UNDER_WAY names. is_running: whether Triton runs.
    Returns whether the decode step has answered all of them.
    """
    with path.open("wb", buffering=0) as file:
        file.write(b"!")
        while is_running():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_SECONDS)
            else:
                time.sleep(HANDOVER_SECONDS)
                return True
    return False
