"""How long the client retries while a server is busy or away."""

import random

from clipserve.error_mapping import CallContext
from clipserve.errors import (
    ClipserveError,
    DeadlineExceeded,
    ModelNotReady,
    RequestCancelled,
    ServerBusy,
    ServerUnavailable,
)

# Delays are random below a limit that doubles from the first to the longest: "full jitter", which keeps many clients
# from coming back at the same moment (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 5.0

# Not DeadlineExceeded: after it no time is left for another attempt. RequestCancelled is the status CANCELLED, by which
# a Triton that stops ends calls that were just coming in (2.51); what the client cancels itself is not sent again.
RETRIED_ERRORS = (ServerBusy, ServerUnavailable, ModelNotReady, RequestCancelled)


class RetryPolicy:
    """Decides whether and when to send a request again. The calls of one run share it, and so learn from each other.

    Without `seconds` a call is retried until its own deadline, and only if the server has answered before in this run:
    a server that was never there is reported at once. With `seconds` calls are retried for that long, however the run
    begins, and each attempt has the whole deadline of a call. Zero seconds are the deadline of the call.

    When the retries of a call have failed, each following call is tried only once until the server is back: a thousand
    videos do not wait a thousand times for a server that is gone.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._answered = seconds is not None
        self._gone = False

    def limit_attempt(self, call: CallContext, elapsed: float) -> float:
        """Seconds that the next attempt may take."""
        if self._seconds:
            return call.timeout_seconds
        return max(call.timeout_seconds - elapsed, 0.001)

    def choose_delay(self, error: ClipserveError, call: CallContext, attempt: int, elapsed: float) -> float | None:
        """Seconds to wait before the next attempt; None to give up.

        Args:
            attempt: attempts before this one.
            elapsed: seconds since the first attempt began.
        """
        if not isinstance(error, RETRIED_ERRORS):
            if not isinstance(error, DeadlineExceeded):
                self.note_answer()
            return None
        if self._gone or not (self._answered or isinstance(error, ServerBusy)):
            return None
        left = max(self._seconds or 0, call.timeout_seconds) - elapsed
        if left < FIRST_RETRY_SECONDS:
            self._gone = not isinstance(error, ServerBusy)
            return None
        limit = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(attempt, 30))
        return random.uniform(0, min(limit, left))

    def note_answer(self) -> None:
        """The server is there."""
        self._answered, self._gone = True, False
