"""Tells whoever stops the server whether the decode step has requests in flight: taken, and not answered yet.

When Triton is told to stop, it refuses the next step of every ensemble (dynamic_batch_scheduler.cc, 2.51 and later),
so it loses each video that is being decoded then. So Triton is told only when this step has no request any more. A file
carries the state. The decode step locks it while it has a request. Whoever stops the server writes a byte into it,
after which the step takes no more requests, and waits until it can lock the file itself. When a process dies, the
kernel unlocks its file.

The other side is server/clipserve_host/in_flight.py.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from clip_decode.errors import Busy

# Names the file. Without it nobody waits for the requests in flight.
VARIABLE = "CLIPSERVE_UNDER_WAY"
STOPPING = "the server is stopping; try again later, or ask another server"


class InFlight:
    """Counts the requests in flight, and locks the file while there is one. Every method is thread-safe.

    path: the file; empty for none.
    """

    def __init__(self, path: str) -> None:
        # Stays open as long as the process lives: closing the file unlocks it.
        self._file = Path(path).open("rb") if path else None  # noqa: SIM115
        self._count, self._lock = 0, threading.Lock()

    def begin(self) -> None:
        """Take a request. Raises Busy when the server is stopping."""
        with self._lock:
            if not self._count:
                self._lock_file()
            elif self.is_stopping:
                raise Busy(STOPPING)
            self._count += 1

    def end(self) -> None:
        """A request that begin() took is answered."""
        with self._lock:
            self._count -= 1
            if not self._count and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock_file(self) -> None:
        if self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(STOPPING) from None
        # Checked under the lock: whoever writes the byte after this waits for the request.
        if self.is_stopping:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            raise Busy(STOPPING)

    @property
    def is_stopping(self) -> bool:
        """Whether the server is stopping. Requests that take long should end then."""
        return self._file is not None and os.fstat(self._file.fileno()).st_size > 0
