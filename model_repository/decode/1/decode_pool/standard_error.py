"""What a worker writes to its standard error: Python's last words, and faulthandler's when the process crashes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# Of what was written, the last: a traceback of some hundred calls.
KEPT_BYTES = 16_384
_READ_BYTES = 65_536
_READS_AT_ONCE = 4


class StandardError:
    """A pipe that stands for a worker's standard error, and the end of what came through it.

    A pipe, because a worker may not write to files, and the server's log is one. Neither side waits for the other: a
    write to a full pipe fails, and `read` takes what is there. So read it now and then while the worker works.
    """

    def __init__(self, users: int = 1) -> None:
        """users: that read it, each in its own thread, and close it."""
        self._users, self._lock = users, threading.Lock()
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._kept = b""

    @property
    def text(self) -> str:
        """What was kept."""
        return self._kept.decode(errors="backslashreplace").strip()

    @property
    def last_line(self) -> str:
        """What a traceback ends with: the exception. Empty where nothing was written."""
        return self.text.rpartition("\n")[2].strip()

    def read(self) -> None:
        """Take what has come since the last time."""
        # Not until it is empty: a worker that a hostile video has taken over may write without end.
        with contextlib.suppress(BlockingIOError), self._lock:
            for _ in range(_READS_AT_ONCE):
                self._kept = (self._kept + os.read(self._read_end, _READ_BYTES))[-KEPT_BYTES:]

    def forget(self) -> None:
        """Drop what was written so far."""
        self.read()
        self._kept = b""

    @contextlib.contextmanager
    def writable(self) -> Iterator[int]:
        """The end to write to, for as long as it takes to start a worker with it."""
        try:
            yield self._write_end
        except OSError:
            self._users = 1  # Nobody else got it.
            self.close()
            raise
        finally:
            os.close(self._write_end)

    def close(self) -> None:
        """Take the rest; `text` stays. The last user's call closes it."""
        self.read()
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._read_end)
