"""Waits until the decode step has answered the requests that it took, so that a stop loses none of them.

model_repository/decode/1/decode_pool/under_way.py has the other side, and says why.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "CLIPSERVE_UNDER_WAY"
POLL_SECONDS = 0.05
# From the decode step's answer until the network has the request. 2.51 does both in one call; later Tritons have
# threads for it.
HANDOVER_SECONDS = 0.2


def finish(path: Path, *, deadline: float, is_running: Callable[[], bool]) -> bool:
    """Take no more requests, and wait for those under way until `deadline` (time.monotonic()).

    path: the file that CLIPSERVE_UNDER_WAY names. is_running: whether Triton is.
    Returns whether all of them left the decode step.
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
