"""How long a server that is busy or away is asked again."""

import random

from clipserve import defaults
from clipserve.errors import ClipserveError, DeadlineExceeded, ModelNotReady, ServerBusy, ServerUnavailable
from clipserve.failures import Call

# A passed deadline is none of them: there is no time left to ask again.
WORTH_ASKING_AGAIN = (ServerBusy, ServerUnavailable, ModelNotReady)


class Patience:
    """Shared by the calls of one run, so that they learn from each other.

    Without `seconds` a call is repeated within its own deadline, and only for a server that has answered before in this
    run: one that was never there is reported at once. With `seconds`, however the run begins, calls are repeated for so
    long, each attempt with the whole deadline of a call.

    When patience has run out once, the videos that follow are tried only once, until the server is back: a thousand
    videos do not wait a thousand times for a server that is gone.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._answered = seconds is not None
        self._gone = False

    def limit_attempt(self, call: Call, waited: float) -> float:
        """Seconds that the next attempt may take."""
        if self._seconds is not None:
            return call.timeout_seconds
        return max(call.timeout_seconds - waited, 0.001)

    def choose_pause(self, error: ClipserveError, call: Call, attempt: int, waited: float) -> float | None:
        """Seconds to wait before asking again; None for not again."""
        if not isinstance(error, WORTH_ASKING_AGAIN):
            if not isinstance(error, DeadlineExceeded):
                self.note_answer()
            return None
        if self._gone or not (self._answered or isinstance(error, ServerBusy)):
            return None
        left = max(self._seconds or 0, call.timeout_seconds) - waited
        if left < defaults.FIRST_RETRY_SECONDS:
            self._gone = not isinstance(error, ServerBusy)
            return None
        limit = min(defaults.LONGEST_RETRY_SECONDS, defaults.FIRST_RETRY_SECONDS * 2 ** min(attempt, 30))
        return random.uniform(0, min(limit, left))

    def note_answer(self) -> None:
        """The server is there."""
        self._answered, self._gone = True, False
