"""The requests that the decode step has taken and not answered, as whoever stops the server sees them.

Triton that is told to stop refuses the next step of every ensemble (dynamic_batch_scheduler.cc, 2.51 and later), so a
video that is decoded then is lost. So it is told only when no request is in this step any more. A file says so: it is
locked while there is one, and a byte in it means that no more are taken. Whoever stops the server writes the byte and
waits until it can lock the file for itself. The kernel unlocks the file of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from clip_decode.errors import Busy

# Names the file; without it nobody waits for the requests under way.
VARIABLE = "CLIPSERVE_UNDER_WAY"
STOPPING = "the server is stopping; try again later, or ask another server"


class UnderWay:
    """Every method may be called from any thread.

    path: of the file; empty: none.
    """

    def __init__(self, path: str) -> None:
        # Open for as long as the process lives: closing it is unlocking it.
        self._file = Path(path).open("rb") if path else None  # noqa: SIM115
        self._count, self._lock = 0, threading.Lock()

    def begin(self) -> None:
        """A request is taken. Raises Busy where the server is stopping."""
        with self._lock:
            if not self._count:
                self._take()
            elif self._is_stopping():
                raise Busy(STOPPING)
            self._count += 1

    def end(self) -> None:
        """A request that had begun is answered."""
        with self._lock:
            self._count -= 1
            if not self._count and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _take(self) -> None:
        if self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(STOPPING) from None
        # Looked at under the lock: whoever writes the byte after this waits for the request.
        if self._is_stopping():
            fcntl.flock(self._file, fcntl.LOCK_UN)
            raise Busy(STOPPING)

    def _is_stopping(self) -> bool:
        return self._file is not None and os.fstat(self._file.fileno()).st_size > 0
