"""The standard error of a worker: what it says when it crashes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

# The end is kept: a traceback of some hundred calls.
KEPT_BYTES = 16_384
_READ_BYTES = 65_536
_READS_AT_ONCE = 4


class StandardError:
    """A pipe for a worker's standard error, and the end of what came through it.

    Python and faulthandler write there when the process crashes. It is a pipe because a worker may not write to files,
    and the server's log is one. It never blocks: a write to a full pipe fails, and `read` takes what is there. So read
    it now and then while the worker works.
    """

    def __init__(self, users: int = 1) -> None:
        """users: how many threads read it; each of them closes it."""
        self._users, self._lock = users, threading.Lock()
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._kept = b""

    @property
    def text(self) -> str:
        """The kept end of the output."""
        return self._kept.decode(errors="backslashreplace").strip()

    @property
    def last_line(self) -> str:
        """The last line, which is the exception where a traceback was written."""
        return self.text.rpartition("\n")[2].strip()

    def read(self) -> None:
        """Take what has come since the last call."""
        # Not until the pipe is empty: a worker that a hostile video controls may write without end.
        with contextlib.suppress(BlockingIOError), self._lock:
            for _ in range(_READS_AT_ONCE):
                self._kept = (self._kept + os.read(self._read_end, _READ_BYTES))[-KEPT_BYTES:]

    def clear(self) -> None:
        """Drop the output so far."""
        self.read()
        self._kept = b""

    @contextlib.contextmanager
    def writable(self) -> Iterator[int]:
        """The end to write to. It is closed after the block, in which a worker is started with it."""
        try:
            yield self._write_end
        except BaseException:
            self._users = 1  # No worker got it.
            self.close()
            raise
        finally:
            os.close(self._write_end)

    def close(self) -> None:
        """Take the rest; `text` remains. The last user's call closes the pipe."""
        self.read()
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._read_end)
