"""When to send the request of a timeline, to go on after a failure, and to give up, without the network (sans-IO).

As protocol.py of the client: a generator of commands, which a blocking and an awaiting driver execute.
"""

import itertools
import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tritonclient.utils import InferenceServerException

from clipserve.error_mapping import CallContext
from clipserve.errors import ClipserveError, DecodeTimedOut, ServerBusy, UnknownModel
from clipserve.protocol import Failed, Pick, Sleep
from clipserve.retry import RetryPolicy
from clipserve.timeline.request import ACKNOWLEDGE_EVERY, MODEL, TimelineRequest, is_last, says_room
from clipserve.timeline.window import VideoFacts, Window

# A caller that takes no window for so long may find its timeline ended by the server, which waits for 600 s.
LONG_PAUSE_SECONDS = 60.0
# The first answer comes after the upload. This slow network is still waited for.
UPLOAD_BYTES_PER_SECOND = 1_000_000


@dataclass(frozen=True)
class Open:
    """Open a stream, in place of the last one, and send this message."""

    message: bytes = field(repr=False)


@dataclass(frozen=True)
class Send:
    """Send another message on the stream."""

    message: bytes = field(repr=False)


@dataclass(frozen=True)
class Receive:
    """Wait for the next ModelInferResponse."""

    timeout_seconds: float


@dataclass(frozen=True)
class Explain:
    """Ask the server what the message about this failure needs; the answer is the error to raise."""

    failure: InferenceServerException
    call: CallContext


@dataclass(frozen=True)
class Deliver:
    """Give a window to the caller."""

    window: Window
    facts: VideoFacts


Command: TypeAlias = Open | Send | Receive | Explain | Deliver | Pick | Failed | Sleep
Commands: TypeAlias = Generator[Command, Any, None]


def follow(request: TimelineRequest, call: CallContext, first_window: int, retry: RetryPolicy) -> Commands:
    """Deliver every window from `first_window` on, once and in order.

    After a failure that `retry` allows, the request is sent again for the windows that are missing.

    Raises:
        ClipserveError: the timeline ends here.
    """
    position = _Position(first_window)
    failures, since = 0, 0.0
    error: ClipserveError | None = None
    for attempt in itertools.count():
        before, was_busy = position.next, isinstance(error, ServerBusy)
        here = call.at((yield Pick()))
        try:
            if was_busy:
                yield from _ask_for_room(request, here, attempt)
            return (yield from _follow_once(request, here, position, retry, attempt))
        except InferenceServerException as exc:
            failure = exc
        error = name_model((yield Explain(failure, here)), here)
        elsewhere = yield Failed(error)
        # Waiting begins with the failure: the attempt itself may have taken minutes, to upload a film or to decode one
        # that is damaged. Nor does the time count in which the server was busy before it.
        if not failures or position.next > before or (was_busy and not isinstance(error, ServerBusy)):
            failures, since = 0, time.monotonic()
        if isinstance(error, DecodeTimedOut) and position.longest_pause >= LONG_PAUSE_SECONDS:
            continue  # the caller took no window, so the server waited for it
        if elsewhere:
            continue
        delay = retry.choose_delay(error, call, failures, time.monotonic() - since)
        if delay is None:
            raise error from failure
        failures += 1
        yield Sleep(delay)


class TimelineRetry(RetryPolicy):
    """Waits for a busy server as long as other timelines of the same run go on: they are what it is busy with."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        self._answered_at = -math.inf

    def choose_delay(self, error: ClipserveError, call: CallContext, attempt: int, elapsed: float) -> float | None:
        if isinstance(error, ServerBusy):
            elapsed = min(elapsed, time.monotonic() - self._answered_at)
        return super().choose_delay(error, call, attempt, elapsed)

    def note_answer(self) -> None:
        super().note_answer()
        self._answered_at = time.monotonic()


@dataclass
class _Position:
    """next: the window that comes next. longest_pause: how long the caller took between two windows, at most."""

    next: int
    longest_pause: float = 0.0


def _ask_for_room(request: TimelineRequest, call: CallContext, attempt: int) -> Commands:
    """Raise what a busy server says, before it gets up to 2 GB that it refuses."""
    yield Open(request.build(0, attempt, has_video=False))
    try:
        yield Receive(call.timeout_seconds)
    except InferenceServerException as exc:
        if not says_room(exc.message() or ""):
            raise


def _follow_once(
    request: TimelineRequest, call: CallContext, position: _Position, retry: RetryPolicy, attempt: int
) -> Commands:
    acknowledged = position.next
    position.longest_pause = 0.0
    seconds = call.timeout_seconds + len(request.video.content) / UPLOAD_BYTES_PER_SECOND
    yield Open(request.build(position.next, attempt))
    while True:
        response = yield Receive(seconds)
        seconds = call.timeout_seconds
        windows, facts = request.parse(response, position.next)
        retry.note_answer()
        for window in windows:
            assert facts is not None
            position.next = window.index + 1
            begun = time.monotonic()
            yield Deliver(window, facts)
            position.longest_pause = max(position.longest_pause, time.monotonic() - begun)
            if position.next - acknowledged >= ACKNOWLEDGE_EVERY:
                acknowledged = position.next
                yield Send(request.acknowledge(acknowledged, attempt))
        if is_last(response):
            return


def name_model(error: ClipserveError, call: CallContext) -> ClipserveError:
    """Say which model is missing: not the one that the caller named, but the one which answers timelines."""
    if isinstance(error, UnknownModel) and repr(MODEL) in str(error) and call.model != MODEL:
        return UnknownModel(
            f"the server at {call.url} has no model {MODEL!r}, which answers timelines. `clipserve export` of this"
            " version adds it to the model repository; then start the server again.",
            video=error.video,
            model=error.model,
        )
    return error
