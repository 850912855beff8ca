"""Hearing what FFmpeg complains of: the one sign of damage that it does not raise or flag."""

from __future__ import annotations

from types import TracebackType

from av import logging as av_logging


class Complaints:
    """While entered, remembers whether FFmpeg logged an error in this thread; prints nothing.

    A demuxer that lost its place, or a decoder that concealed half a frame, says so in the log and
    goes on. Listening stops at the first complaint: a hostile file can cause millions of them.
    PyAV's log level belongs to the process, so a complaint may be missed while another thread
    leaves; nothing else can go wrong.
    """

    def __enter__(self) -> Complaints:
        self._level = av_logging.get_level()
        self._skips = av_logging.get_skip_repeated()
        av_logging.set_skip_repeated(False)
        av_logging.set_level(av_logging.ERROR)
        self._capture = av_logging.Capture(local=True)
        self._logs = self._capture.__enter__()
        return self

    @property
    def heard(self) -> bool:
        """Whether there was one so far."""
        if self._logs:
            av_logging.set_level(None)
        return bool(self._logs)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.__exit__(None, None, None)
        av_logging.set_level(self._level)
        av_logging.set_skip_repeated(self._skips)
