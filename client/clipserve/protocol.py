"""What the client and a server say to each other, without the network (sans-IO).

A protocol is a generator of commands. A transport executes each command, sends the server's answer back into the
generator or throws the failure into it, and takes the result when the generator returns. So the protocols exist once
for the blocking and the awaiting transport.
"""

import itertools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from grpc import StatusCode  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException

from clipserve.contract import ClipContract
from clipserve.error_mapping import (
    CallContext,
    FollowUp,
    choose_follow_up,
    give_up_waiting,
    is_refusal,
    lacks_report,
    map_absence,
    map_error,
    read_status,
)
from clipserve.errors import ClipserveError, DeadlineExceeded, ServerBusy
from clipserve.request import InferRequest, list_public_models, list_steps, parse_contract
from clipserve.results import Prediction
from clipserve.retry import RETRIED_ERRORS, RetryPolicy

READY_TIMEOUT_SECONDS = 120.0  # a server takes about a minute to load every model of the repository
READY_POLL_SECONDS = 0.25

# After some failures the client asks the server one small question to name the cause (which models are there, is this
# one ready). That must not turn a failure that came at once into a long wait.
FOLLOW_UP_SECONDS = 2.0


@dataclass(frozen=True)
class Call:
    """Call a method of tritonclient's InferenceServerClient; the sync and the async client have the same methods."""

    method: str
    timeout_seconds: float
    arguments: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Sleep:
    """Wait before the next command."""

    seconds: float


@dataclass(frozen=True)
class Pick:
    """Choose the server for the calls that follow; the answer is its address."""


@dataclass(frozen=True)
class Failed:
    """The chosen server failed in this way; the answer is whether another one may be picked at once."""

    error: ClipserveError


Command: TypeAlias = Call | Sleep | Pick | Failed
Result = TypeVar("Result")
Commands: TypeAlias = Generator[Command, Any, Result]


def classify(request: InferRequest, call: CallContext, retry: RetryPolicy | None = None) -> Commands[Prediction]:
    """Send the request and read the prediction; with `retry` again and again, as it says."""
    start = time.monotonic()
    for attempt in itertools.count():
        elapsed = time.monotonic() - start
        seconds = retry.limit_attempt(call, elapsed) if retry else call.timeout_seconds
        try:
            prediction = yield from _ask_members(partial(_classify_once, request), call, seconds)
        except ClipserveError as error:
            delay = retry.choose_delay(error, call, attempt, time.monotonic() - start) if retry else None
            if delay is None:
                raise
        else:
            if retry:
                retry.note_answer()
            return prediction
        yield Sleep(delay)
    raise AssertionError("unreachable")


def list_models(call: CallContext) -> Commands[list[str]]:
    """Ask which models take videos now."""
    return (yield from _ask_members(_list_once, call, call.timeout_seconds))


def read_version(call: CallContext) -> Commands[str | None]:
    """Ask which version of the model answers now: the highest one that its last step, the network, has loaded."""
    return (yield from _ask_members(_read_version_once, call, call.timeout_seconds))


def read_contract(call: CallContext) -> Commands[ClipContract]:
    """Ask for the model's config, which holds its contract."""
    return (yield from _ask_members(_read_contract_once, call, call.timeout_seconds))


def wait_until_ready(call: CallContext) -> Commands[None]:
    """Ask again and again, until the model is ready or `call.timeout_seconds` are over.

    Of several servers one that is ready is enough.
    """
    end = time.monotonic() + call.timeout_seconds
    obstacle: ClipserveError | None = None
    while True:
        try:
            # A server that accepts the call and never answers must not outlast the wait.
            return (yield from _ask_members(_check_ready, call, max(end - time.monotonic(), 0.001)))
        except ClipserveError as exc:
            if not exc.retryable:
                raise
            # An answer tells more than a deadline that left no time for another answer.
            if obstacle is None or not isinstance(exc, DeadlineExceeded):
                obstacle = exc
            if time.monotonic() + READY_POLL_SECONDS >= end:
                raise give_up_waiting(obstacle, call.timeout_seconds) from obstacle
        yield Sleep(READY_POLL_SECONDS)


def _ask_members(
    ask: Callable[[CallContext, float], Commands[Result]], call: CallContext, timeout_seconds: float
) -> Commands[Result]:
    """Ask a server, and after a failure that another one may not have the next, within the deadline."""
    end = time.monotonic() + timeout_seconds
    seconds = timeout_seconds
    busy: ServerBusy | None = None
    while True:
        url = yield Pick()
        try:
            return (yield from ask(call.at(url), seconds))
        except ClipserveError as error:
            again = yield Failed(error)
            seconds = end - time.monotonic()
            if isinstance(error, ServerBusy):
                busy = error
            if again and seconds > 0:
                continue
            # A server that is busy tells more about the fleet than one that is away.
            if busy and isinstance(error, RETRIED_ERRORS):
                raise busy from busy.__cause__
            raise


def _list_once(call: CallContext, timeout_seconds: float) -> Commands[list[str]]:
    try:
        index = yield Call("get_model_repository_index", timeout_seconds)
    except InferenceServerException as exc:
        raise (yield from name_failure(exc, call)) from exc
    return list(list_public_models(index))


def _read_version_once(call: CallContext, timeout_seconds: float) -> Commands[str | None]:
    try:
        config = yield Call("get_model_config", timeout_seconds, {"model_name": call.model})
        name = [call.model, *list_steps(config)][-1]
        metadata = yield Call("get_model_metadata", timeout_seconds, {"model_name": name})
    except InferenceServerException as exc:
        raise (yield from name_failure(exc, call)) from exc
    return max(metadata.versions, key=int, default=None)


def _read_contract_once(call: CallContext, timeout_seconds: float) -> Commands[ClipContract]:
    try:
        config = yield Call("get_model_config", timeout_seconds, {"model_name": call.model})
    except InferenceServerException as exc:
        raise (yield from name_failure(exc, call)) from exc
    return parse_contract(config, call.model)


def _classify_once(request: InferRequest, call: CallContext, timeout_seconds: float) -> Commands[Prediction]:
    try:
        response = yield from _infer(request, timeout_seconds)
    except InferenceServerException as exc:
        raise (yield from name_failure(exc, call)) from exc
    return request.parse(response)


def _infer(request: InferRequest, timeout_seconds: float) -> Commands[Any]:
    """Send the request. If the model has no report, send it again without requesting one."""
    start = time.monotonic()
    try:
        return (yield Call("infer", timeout_seconds, request.build(timeout_seconds)))
    except InferenceServerException as exc:
        if request.options.report or not lacks_report(exc):
            raise
    request.model.has_report = False
    left = max(timeout_seconds - (time.monotonic() - start), 0.001)
    return (yield Call("infer", left, request.build(left)))


def _check_ready(call: CallContext, timeout_seconds: float) -> Commands[None]:
    """Ask once for the model and for the models that it is made of.

    Triton calls an ensemble ready once its steps were loaded, even if one of them has died since.
    """
    try:
        yield from _check_model(call, call.model, timeout_seconds)
        config = yield Call("get_model_config", timeout_seconds, {"model_name": call.model})
        for step in list_steps(config):
            yield from _check_model(call, step, timeout_seconds)
    except InferenceServerException as exc:
        raise (yield from name_failure(exc, call)) from exc


def _check_model(call: CallContext, model: str, timeout_seconds: float) -> Commands[None]:
    if not (yield Call("is_model_ready", timeout_seconds, {"model_name": model})):
        index = None
        try:
            index = yield Call("get_model_repository_index", timeout_seconds)
        except InferenceServerException as exc:
            # The model may come up all the same, so a refusal does not end the wait.
            if not is_refusal(exc):
                raise
        raise map_absence(call, model=model, index=index)


def name_failure(exc: InferenceServerException, call: CallContext) -> Commands[ClipserveError]:
    """Ask the server what a good message needs, then make the error."""
    index = ready = None
    seconds = min(FOLLOW_UP_SECONDS, call.timeout_seconds)
    try:
        match choose_follow_up(exc):
            case FollowUp.INDEX:
                index = yield Call("get_model_repository_index", seconds)
            case FollowUp.READY:
                ready = yield Call("is_model_ready", seconds, {"model_name": call.model})
    except InferenceServerException as silence:
        # Without an answer the first failure stands.
        if is_refusal(silence):
            # A server that refuses is there; so what was unavailable before was not the server.
            ready = True if read_status(exc) is StatusCode.UNAVAILABLE else None
        # But a server that knows no model, and then is gone, was shutting down: Triton unloads its models first.
        elif read_status(exc) is StatusCode.NOT_FOUND and read_status(silence) is StatusCode.UNAVAILABLE:
            ready = False
    return map_error(exc, call, index=index, ready=ready)
