"""Flow control: how many windows a client has not acknowledged yet.

A slow client leaves responses unread. Triton 2.51 keeps all of them in memory, and does not tell the model. A client
that wants a bound names its timeline and acknowledges windows as it reads them.
"""

from __future__ import annotations

import threading
import time


class Acknowledgements:
    """The windows of one timeline that were sent and acknowledged. Every method is thread-safe.

    Args:
        most: how many windows may be sent and not acknowledged; one response may always be.
        first: number of the first window.
    """

    def __init__(self, most: int, first: int) -> None:
        self._most = most
        self._sent = self._acknowledged = first
        self._heard = time.monotonic()  # or since when there is something to wait for
        self._changed = threading.Condition()

    def receive(self, windows: int) -> None:
        """The client has the windows before this number."""
        with self._changed:
            self._heard = time.monotonic()
            self._acknowledged = max(self._acknowledged, windows)
            self._changed.notify_all()

    def may_send(self, seconds: float) -> bool:
        """Wait for so many seconds until more windows may be sent, and return whether they may."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._is_full, seconds)

    def record_sent(self, windows: int) -> None:
        """The windows before this number are sent."""
        with self._changed:
            if not self._is_full:
                self._heard = time.monotonic()
            self._sent = max(self._sent, windows)

    @property
    def silent_seconds(self) -> float:
        """How long the client has let the timeline wait.

        0 while more may be sent: clients acknowledge many windows at once, and those may take an hour to decode.
        """
        with self._changed:
            return time.monotonic() - self._heard if self._is_full else 0.0

    @property
    def _is_full(self) -> bool:
        return self._sent - self._acknowledged >= self._most
