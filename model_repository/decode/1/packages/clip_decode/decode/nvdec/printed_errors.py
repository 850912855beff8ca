"""What PyNvVideoCodec prints."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress


class PrintedErrors:
    """Errors that PyNvVideoCodec prints to the standard output: its only report of damage that the hardware found.

    A line does not say which stream it is about, so it counts for every stream that is being decoded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._count = 0

    def listen(self) -> None:
        """Redirect the standard output of this process for good."""
        self._library = ctypes.CDLL(None)
        self._pipe, end = os.pipe()
        for descriptor in (self._pipe, end):
            os.set_blocking(descriptor, False)  # Nobody reads while a video is decoded: what exceeds the pipe is lost.
        os.dup2(end, 1)
        os.close(end)

    def count(self) -> int:
        """Number of errors so far; always 0 before `listen`."""
        with self._lock, suppress(BlockingIOError):
            if self._pipe is not None:
                self._library.fflush(None)
                while printed := os.read(self._pipe, 65536):
                    self._count += printed.count(b"Error")
        return self._count
