"""FFmpeg's log: the only sign of damage that FFmpeg neither raises nor flags."""

from __future__ import annotations

import threading
from typing import ClassVar

from av import logging as av_logging


class FfmpegErrorLog:
    """Context manager that records whether FFmpeg logs an error in this thread, and prints nothing.

    A demuxer that lost synchronisation, or a decoder that concealed half a frame, logs an error and goes on.

    PyAV's log level belongs to the process: the first open log raises it, the last one restores it. A log that is alone
    in the process stops at the first error, because a hostile file can cause millions of them.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _open_count: ClassVar[int] = 0
    _saved: ClassVar[tuple[int | None, bool]] = (None, True)  # log level, skip repeated

    def __enter__(self) -> FfmpegErrorLog:
        self._has_errors = False
        with self._lock:
            if not FfmpegErrorLog._open_count:
                FfmpegErrorLog._saved = av_logging.get_level(), av_logging.get_skip_repeated()
                av_logging.set_skip_repeated(False)
            av_logging.set_level(av_logging.ERROR)
            FfmpegErrorLog._open_count += 1
        self._capture = av_logging.Capture(local=True)
        self._lines = self._capture.__enter__()
        return self

    @property
    def has_errors(self) -> bool:
        """Whether FFmpeg has logged an error so far."""
        if self._lines:
            self._has_errors = True
            self._lines.clear()
            with self._lock:
                if FfmpegErrorLog._open_count == 1:
                    av_logging.set_level(None)
        return self._has_errors

    def __exit__(self, *_: object) -> None:
        self._capture.__exit__(None, None, None)
        with self._lock:
            FfmpegErrorLog._open_count -= 1
            if not FfmpegErrorLog._open_count:
                level, skips = FfmpegErrorLog._saved
                av_logging.set_level(level)
                av_logging.set_skip_repeated(skips)
