"""Hearing what FFmpeg complains of: the one sign of damage that it does not raise or flag."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import ClassVar

from av import logging as av_logging


class Complaints:
    """While entered, remembers whether FFmpeg logged an error in this thread; prints nothing.

    A demuxer that lost its place, or a decoder that concealed half a frame, says so in the log and
    goes on. PyAV's log level belongs to the process: the first thread that listens raises it, the last
    one puts it back. A thread that listens alone stops at the first complaint: a hostile file can cause
    millions of them.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _listeners: ClassVar[int] = 0
    _found: ClassVar[tuple[int | None, bool]] = (None, True)

    def __enter__(self) -> Complaints:
        self._heard = False
        with self._lock:
            if not Complaints._listeners:
                Complaints._found = av_logging.get_level(), av_logging.get_skip_repeated()
                av_logging.set_skip_repeated(False)
            av_logging.set_level(av_logging.ERROR)
            Complaints._listeners += 1
        self._capture = av_logging.Capture(local=True)
        self._logs = self._capture.__enter__()
        return self

    @property
    def heard(self) -> bool:
        """Whether there was one so far."""
        if self._logs:
            self._heard = True
            self._logs.clear()
            with self._lock:
                if Complaints._listeners == 1:
                    av_logging.set_level(None)
        return self._heard

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.__exit__(None, None, None)
        with self._lock:
            Complaints._listeners -= 1
            if not Complaints._listeners:
                level, skips = Complaints._found
                av_logging.set_level(level)
                av_logging.set_skip_repeated(skips)
