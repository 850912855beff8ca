"""What the client and a server say to each other, without the network.

A conversation is a generator: it yields one `Step` after another, is sent what the server answered
(or has the failure thrown in), and returns the result or raises one of the errors in errors.py. It
is written once; the two classifiers only take its steps, one blocking and one awaiting.
"""

import itertools
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from grpc import StatusCode  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException

from clipserve import defaults
from clipserve.errors import ClipserveError, DeadlineExceeded
from clipserve.exchange import Exchange, list_parts, list_public_models
from clipserve.failures import (
    Call,
    FollowUp,
    choose_follow_up,
    explain,
    explain_absence,
    give_up_waiting,
    is_refusal,
    lacks_report,
    read_status,
)
from clipserve.patience import Patience
from clipserve.results import Prediction


@dataclass(frozen=True)
class Ask:
    """Call a method of tritonclient's InferenceServerClient: sync and async have the same ones."""

    method: str
    timeout_seconds: float
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Pause:
    """Wait before the next step."""

    seconds: float


Step: TypeAlias = Ask | Pause
Result = TypeVar("Result")
Conversation: TypeAlias = Generator[Step, Any, Result]


def classify(exchange: Exchange, call: Call, *, timeout_seconds: float | None = None) -> Conversation[Prediction]:
    """Send the video, read the prediction. Another timeout than the call's is for an attempt among several."""
    seconds = timeout_seconds or call.timeout_seconds
    try:
        result = yield from _infer(exchange, seconds)
    except InferenceServerException as exc:
        raise (yield from _name_failure(exc, call)) from exc
    return exchange.read_prediction(result)


def classify_patiently(exchange: Exchange, call: Call, patience: Patience) -> Conversation[Prediction]:
    """Send the video, again and again while the server is busy or away and patience lasts."""
    start = time.monotonic()
    for attempt in itertools.count():
        waited = time.monotonic() - start
        try:
            seconds = patience.limit_attempt(call, waited)
            prediction = yield from classify(exchange, call, timeout_seconds=seconds)
        except ClipserveError as error:
            pause = patience.choose_pause(error, call, attempt, time.monotonic() - start)
            if pause is None:
                raise
        else:
            patience.note_answer()
            return prediction
        yield Pause(pause)
    raise AssertionError("unreachable")


def list_models(call: Call) -> Conversation[list[str]]:
    """Ask which models take videos now."""
    try:
        index = yield Ask("get_model_repository_index", call.timeout_seconds)
    except InferenceServerException as exc:
        raise (yield from _name_failure(exc, call)) from exc
    return list(list_public_models(index))


def wait_until_ready(call: Call) -> Conversation[None]:
    """Ask again and again, until the model is ready or `call.timeout_seconds` are over."""
    end = time.monotonic() + call.timeout_seconds
    obstacle: ClipserveError | None = None
    while True:
        try:
            # A server that accepts and never answers must not outlast the wait.
            return (yield from _check_ready(call, max(end - time.monotonic(), 0.001)))
        except ClipserveError as exc:
            if not exc.retryable:
                raise
            # What an answer said tells more than that no time was left for another one.
            if obstacle is None or not isinstance(exc, DeadlineExceeded):
                obstacle = exc
            if time.monotonic() + defaults.READY_POLL_SECONDS >= end:
                raise give_up_waiting(obstacle, call.timeout_seconds) from obstacle
        yield Pause(defaults.READY_POLL_SECONDS)


def _infer(exchange: Exchange, timeout_seconds: float) -> Conversation[Any]:
    """Send the video; a second time, without asking for the report, where the model turns out to have none."""
    start = time.monotonic()
    try:
        return (yield Ask("infer", timeout_seconds, exchange.infer_arguments(timeout_seconds)))
    except InferenceServerException as exc:
        if exchange.question.report or not lacks_report(exc):
            raise
    exchange.model.has_report = False
    left = max(timeout_seconds - (time.monotonic() - start), 0.001)
    return (yield Ask("infer", left, exchange.infer_arguments(left)))


def _check_ready(call: Call, timeout_seconds: float) -> Conversation[None]:
    """Ask once for the model and for what it is made of.

    An ensemble counts as ready once its steps were loaded, even if one of them has died since.
    """
    try:
        yield from _check_part(call, call.model, timeout_seconds)
        config = yield Ask("get_model_config", timeout_seconds, {"model_name": call.model})
        for part in list_parts(config):
            yield from _check_part(call, part, timeout_seconds)
    except InferenceServerException as exc:
        raise (yield from _name_failure(exc, call)) from exc


def _check_part(call: Call, part: str, timeout_seconds: float) -> Conversation[None]:
    if not (yield Ask("is_model_ready", timeout_seconds, {"model_name": part})):
        index = None
        try:
            index = yield Ask("get_model_repository_index", timeout_seconds)
        except InferenceServerException as exc:
            # The model may come up all the same, so this ends no wait.
            if not is_refusal(exc):
                raise
        raise explain_absence(call, part=part, index=index)


def _name_failure(exc: InferenceServerException, call: Call) -> Conversation[ClipserveError]:
    """Ask the server what is missing for a good message, then write it."""
    index = ready = None
    seconds = min(defaults.FOLLOW_UP_SECONDS, call.timeout_seconds)
    try:
        match choose_follow_up(exc):
            case FollowUp.INDEX:
                index = yield Ask("get_model_repository_index", seconds)
            case FollowUp.READY:
                ready = yield Ask("is_model_ready", seconds, {"model_name": call.model})
    except InferenceServerException as silence:
        # No answer is an answer, too: the first failure stands.
        if is_refusal(silence):
            # Whoever refuses is there; so what was unavailable before was not the server.
            ready = True if read_status(exc) is StatusCode.UNAVAILABLE else None
        # But a server that knows no model and then is gone was on its way down: a Triton that stops unloads its models
        # first.
        elif read_status(exc) is StatusCode.NOT_FOUND and read_status(silence) is StatusCode.UNAVAILABLE:
            ready = False
    return explain(exc, call, index=index, ready=ready)
