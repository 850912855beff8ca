"""From a failed call to one of the errors in errors.py, without the network.

The gRPC status decides; STATUS_ERRORS has every status. Five things refine it:

* A stable code in brackets, `[not-a-video] the bytes ...`, which the decode step puts first in its message. Triton may
  put words of its own ahead of it ("in ensemble 'x3d_m', ...").
* One question to the server, where a status has several causes (see `FollowUp`).
* Triton's words for a model that is known but not loaded, where that question finds nothing.
* Triton's words for a call that needs a key: the status is UNAVAILABLE there as well.
* Its Python backend's words for an overloaded machine: the status is INTERNAL there.
"""

import re
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import PurePath
from typing import Any, Self

import grpc  # type: ignore[import-untyped]

from clipserve import errors
from clipserve.errors import ClipserveError
from clipserve.proxies import find_proxy, read_host
from clipserve.request import FEATURES, REPORT, list_public_models
from clipserve.sources.addresses import is_elsewhere
from clipserve.sources.lists import LISTS

STATUS_ERRORS: dict[grpc.StatusCode, type[ClipserveError]] = {
    grpc.StatusCode.OK: errors.UnexpectedAnswer,  # a failure that calls itself a success
    grpc.StatusCode.CANCELLED: errors.RequestCancelled,
    grpc.StatusCode.UNKNOWN: errors.ServerFailed,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.UnknownModel,
    grpc.StatusCode.ALREADY_EXISTS: errors.ServerFailed,
    grpc.StatusCode.PERMISSION_DENIED: errors.AccessDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
    grpc.StatusCode.FAILED_PRECONDITION: errors.ServerFailed,
    grpc.StatusCode.ABORTED: errors.ServerFailed,
    grpc.StatusCode.OUT_OF_RANGE: errors.ServerFailed,
    grpc.StatusCode.UNIMPLEMENTED: errors.ServerFailed,
    grpc.StatusCode.INTERNAL: errors.ServerFailed,
    grpc.StatusCode.UNAVAILABLE: errors.ServerUnavailable,
    grpc.StatusCode.DATA_LOSS: errors.ServerFailed,
    grpc.StatusCode.UNAUTHENTICATED: errors.AccessDenied,
}

# The codes in brackets of the server's decode step.
CODE_ERRORS: dict[str, type[ClipserveError]] = {
    error.code: error
    for error in (
        errors.NotAVideo,
        errors.NoVideoStream,
        errors.UnsupportedCodec,
        errors.EncryptedVideo,
        errors.TruncatedVideo,
        errors.VideoTooLarge,
        errors.VideoTooLong,
        errors.DecodeTimedOut,
        errors.DecodeCrashed,
        errors.DecodeOutOfMemory,
        errors.DecodeFailed,
        errors.ServerBusy,
        errors.InvalidRequest,
    )
}

# What Triton 2.51 says of a model whose versions are all unloaded, loading or failed. (Of an unknown model it says "is
# not found".)
_NOT_LOADED = "has no available versions"

# Triton's --grpc-restricted-protocol; the status is UNAVAILABLE (2.51), with a wrong key as without one.
_RESTRICTED = re.compile(r"This protocol is restricted(?:, expecting header '([^']+)')?")

# What its Python backend says when shared memory has no room for a tensor, whatever the status (INTERNAL in 2.51).
_NO_ROOM = "Failed to increase the shared memory pool size"

# What it says of a process that shows no sign of life for a second and is then replaced: it died, or other processes
# take all cores. "Stub process 'x3d_m_net_0_0' is not healthy." in 2.51, without the name where models stream.
_NO_SIGN_OF_LIFE = re.compile(r"Stub process (?:'[^']*' )?is not healthy")

_BRACKETED = re.compile(r"\[([a-z][a-z0-9-]*)\]\s*")
_STATUSES = {str(status): status for status in grpc.StatusCode}


@dataclass(frozen=True)
class CallContext:
    """What a message can say about a call that failed."""

    url: str
    model: str
    timeout_seconds: float
    video: str | None = None

    def about(self, video: str) -> Self:
        """The same call, now that the video has a name."""
        return replace(self, video=video)

    def at(self, url: str) -> Self:
        """The same call, now that it has gone to this server."""
        return replace(self, url=url)


class FollowUp(Enum):
    """What to ask the server before naming a failure."""

    INDEX = auto()
    """What is in the repository? Triton answers NOT_FOUND both for a model that is not there and for one that failed to
    load; and a message about an unknown model should list the models there are.
    """

    READY = auto()
    """Is the model ready?

    The channel reports UNAVAILABLE when nobody listens, and Triton when a queue is full or a model is not loaded. Only
    English text tells them apart: all come without metadata and with debug strings of the same form (grpcio 1.85). So
    the client asks. A server that answers "ready" refused because it is busy; one that answers "not ready" lacks the
    model; one that does not answer is not there. (A server that came up in between passes for busy: both errors are
    retryable.)
    """


def read_status(exc: Any) -> grpc.StatusCode:
    """The status of an InferenceServerException; UNKNOWN if it carries none."""
    return _STATUSES.get(exc.status(), grpc.StatusCode.UNKNOWN)


def is_refusal(exc: Any) -> bool:
    """Whether the server is there and refuses this client."""
    return STATUS_ERRORS[read_status(exc)] is errors.AccessDenied or is_restricted(_read_text(exc))


def is_restricted(text: str) -> bool:
    """Whether this is what Triton says to a client without the right key."""
    return bool(_RESTRICTED.match(text))


def lacks_report(exc: Any) -> bool:
    """Whether the request was refused because the model has no output REPORT: not every repository is ours.

    Triton 2.51: "unexpected inference output 'REPORT' for model 'x3d_m'".
    """
    text = _read_text(exc)
    return read_status(exc) is grpc.StatusCode.INVALID_ARGUMENT and f"'{REPORT}'" in text and _find_code(text) is None


def choose_follow_up(exc: Any) -> FollowUp | None:
    """What to ask the server before `map_error`; None if the failure says enough."""
    if _find_code(_read_text(exc)) is not None or is_refusal(exc):
        return None
    return {
        grpc.StatusCode.NOT_FOUND: FollowUp.INDEX,
        grpc.StatusCode.UNAVAILABLE: FollowUp.READY,
    }.get(read_status(exc))


def map_error(exc: Any, call: CallContext, *, index: Any = None, ready: bool | None = None) -> ClipserveError:
    """The error to raise for an InferenceServerException.

    Args:
        index: answer to FollowUp.INDEX, a RepositoryIndexResponse; None if there is none.
        ready: answer to FollowUp.READY; None if there is none.
    """
    text = _read_text(exc)
    status = read_status(exc)
    kind = STATUS_ERRORS[status]
    if found := _find_code(text):
        kind = CODE_ERRORS[found[1]]
        text = text[found.end() :]
    elif is_refusal(exc):
        kind = errors.AccessDenied
    elif _NO_ROOM in text or _NO_SIGN_OF_LIFE.search(text):
        kind = errors.ServerBusy
    elif index is not None and call.model not in list_public_models(index):
        return map_absence(call, model=call.model, index=index)
    elif ready is not None:
        kind = errors.ServerBusy if ready else errors.ModelNotReady
    elif status is grpc.StatusCode.NOT_FOUND and _NOT_LOADED in text:
        kind = errors.ModelNotReady
    message = _write_message(kind, status, text, call)
    return kind(message, video=call.video, model=call.model)


def map_absence(call: CallContext, *, model: str, index: Any) -> ClipserveError:
    """The error for a model that does not answer.

    Args:
        model: the model that does not answer: `call.model` itself, or a step of that ensemble.
        index: the server's RepositoryIndexResponse; None if it refuses to give it.
    """
    if index is None:
        return errors.ModelNotReady(
            f"model {model!r} at {call.url} is not ready, or does not exist: the server does not list its models for"
            " this client, so check the name. Its log says more.",
            video=call.video,
            model=call.model,
        )
    entries = [entry for entry in index.models if entry.name == model]
    if not entries:
        models = list_public_models(index)
        offer = f"it has {', '.join(models)}" if models else "none of its models is ready"
        error = errors.UnknownModel(
            f"the server at {call.url} has no model {model!r}; {offer}",
            video=call.video,
            model=call.model,
        )
        error.models = models
        return error
    # The first line only: the traceback of a Python model may follow.
    reasons = dict.fromkeys(entry.reason.partition("\n")[0] for entry in entries if entry.reason)
    others = ", ".join(list_public_models(index))
    return errors.ModelNotReady(
        f"model {model!r} at {call.url} is not ready ({'; '.join(reasons) or 'no reason given'})"
        f"{f'; ready there: {others}' if others else ''}. The server's log says more. A model without weights needs"
        " `clipserve export` first. A server loads what was exported after its start when it starts again, or by"
        f" `clipserve versions {call.model} --reload {call.url}`.",
        video=call.video,
        model=call.model,
    )


def give_up_waiting(last: ClipserveError, timeout_seconds: float) -> ClipserveError:
    """The error of a wait that ran out: the kind of the last obstacle, and how long it stood."""
    return type(last)(f"still not ready after {timeout_seconds:g} s: {last}", video=last.video, model=last.model)


def _read_text(exc: Any) -> str:
    return (exc.message() or "").strip() or "no message"


def _find_code(text: str) -> re.Match[str] | None:
    """The first bracket that holds a known code; others are ordinary text."""
    return next((found for found in _BRACKETED.finditer(text) if found[1] in CODE_ERRORS), None)


def _write_message(kind: type[ClipserveError], status: grpc.StatusCode, text: str, call: CallContext) -> str:
    """What came, what is allowed, what to do next."""
    text = text.rstrip(".")
    about = f"{call.video!r}: " if call.video else ""
    if kind is errors.NotAVideo and call.video and (advice := _advise_on_lists(call.video)):
        return f"{about}{text}. If it is a list of videos: {advice}."
    if issubclass(kind, errors.VideoError):
        return about + text
    if kind is errors.InvalidRequest and f"'{FEATURES}'" in text:  # as with REPORT
        return (
            f"{about}model {call.model!r} has no embedding, and the request asks for features: leave features out, or"
            f" choose another model ({text})"
        )
    if kind is errors.InvalidRequest:
        return f"{about}model {call.model!r} refuses the request: {text}"
    if kind is errors.UnknownModel:
        return f"the server at {call.url} says that it has no model {call.model!r} ({text})"
    if kind is errors.ServerUnavailable:
        return (
            f"no server answers at {call.url} ({text}). Start one with `clipserve serve`, or give"
            " the host:port of its gRPC port (8001 unless changed; 8000 is HTTP) as url, and"
            f" tls=Tls() if it encrypts; on the command line, --url and --tls.{_describe_proxy(call)}"
        )
    if kind is errors.ServerBusy:
        return f"{about}the server at {call.url} is busy ({text}). Try again in a moment, or send fewer videos at once."
    if kind is errors.ModelNotReady:
        return (
            f"{about}model {call.model!r} at {call.url} is not ready ({text}). Call"
            " wait_until_ready(); if that does not help, read the server's log."
        )
    if kind is errors.DeadlineExceeded:
        return (
            f"{about}no answer from {call.url} within {call.timeout_seconds:g} s ({text}). Give a"
            " longer timeout_seconds (--timeout), or send a shorter video, or fewer at once."
            f"{_describe_proxy(call)}"
        )
    if kind is errors.AccessDenied:
        return f"the server at {call.url} denies access ({text}). {_ask_for_credentials(text)}"
    if kind is errors.LimitExceeded:
        return (
            f"{about}a limit of {call.url}, or of a proxy on the way, was reached ({text}). Send"
            " a smaller video, or fewer at once."
        )
    # The caller can do nothing: pass on exactly what came.
    return f"{about}the server at {call.url} failed with {status.name}: {text}"


def _advise_on_lists(name: str) -> str:
    """What to do with a list of videos, for a name that may be one."""
    suffix = PurePath(name).suffix.lower()
    if suffix in LISTS:
        return "give it to classify_many or timeline_many"
    # A path without a suffix, such as a shell's /dev/fd/63, or standard input.
    if not suffix and name not in ("<bytes>", "<file>") and not is_elsewhere(name):
        return "a list needs a name that ends in .csv or .jsonl"
    return ""


def _describe_proxy(call: CallContext) -> str:
    variable = find_proxy(call.url)
    if variable is None:
        return ""
    # The message does not show its value, which may hold a password.
    return (
        f" The connection goes through the proxy that the environment variable {variable} names: if that one does not"
        f" let gRPC through, or does not reach the server, list {read_host(call.url)} in no_proxy."
    )


def _ask_for_credentials(text: str) -> str:
    """Which credentials to give, as far as the server says."""
    restricted = _RESTRICTED.match(text)
    if restricted and (header := restricted[1]):
        return (
            f"It requires its operator's key in the header {header!r}: give it as headers={{{header!r}: KEY}},"
            f" or on the command line as --header '{header}: KEY'."
        )
    return (
        "Give credentials as headers={'authorization': ...} (on the command line --header 'authorization: ...'), or a"
        " client certificate with tls=Tls(...) (--client-key, --client-certificate)."
    )
