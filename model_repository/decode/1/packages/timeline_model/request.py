"""The parameters of a request for a timeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clip_decode.errors import InvalidRequest
from clip_decode.geometry import read_digits
from clip_decode.sampling import Sampling, read_float
from clip_decode.windows import Windows

# What a request has besides the parameters of its sampling.
PARAMETERS = (
    "model",
    "model_version",
    "window_seconds",
    "step_seconds",
    "first_window",
    "top_k",
    "features",
    "timeline",
    "max_unacknowledged",
)
MAX_TOP_K, DEFAULT_TOP_K = 1000, 5
MAX_UNACKNOWLEDGED = 100_000
MAX_NAME_LENGTH = 256
_TRUE, _FALSE = (True, 1, "1", "true"), (False, 0, "0", "false")


@dataclass(frozen=True)
class TimelineRequest:
    """What a client asks for.

    Attributes:
        model: public name of the model.
        model_version: of its network; -1 is the newest that is loaded.
        windows: which windows.
        sampling: which frames of a window.
        top_k: how many labels of a window are named.
        features: whether features are sent.
        timeline: the client's name for this timeline, by which it acknowledges windows; empty if it does not.
        max_unacknowledged: how many windows may be sent and not yet acknowledged.
    """

    model: str
    model_version: int
    windows: Windows
    sampling: Sampling
    top_k: int
    features: bool
    timeline: str
    max_unacknowledged: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> TimelineRequest:
        """Read request parameters; a number may come as text, as it does over HTTP.

        Raises:
            InvalidRequest: a name is unknown, or a value has the wrong type or is out of bounds.
        """
        left = dict(parameters)
        windows = Windows(
            window_seconds=_read_seconds("window_seconds", left.pop("window_seconds", None)),
            step_seconds=_read_seconds("step_seconds", left.pop("step_seconds", None)),
            first_window=_read_number("first_window", left.pop("first_window", 0), 0, 2**31),
        )
        version = left.pop("model_version", "")
        return cls(
            model=_read_name("model", left.pop("model", "")),
            model_version=-1 if version == "" else _read_number("model_version", version, 1, 2**31),
            windows=windows,
            top_k=_read_number("top_k", left.pop("top_k", DEFAULT_TOP_K), 1, MAX_TOP_K),
            features=_read_flag("features", left.pop("features", False)),
            timeline=_read_name("timeline", left.pop("timeline", "")),
            max_unacknowledged=_read_number(
                "max_unacknowledged", left.pop("max_unacknowledged", MAX_UNACKNOWLEDGED), 1, MAX_UNACKNOWLEDGED
            ),
            sampling=Sampling.from_parameters(left, others=PARAMETERS),
        )


@dataclass(frozen=True)
class Acknowledgement:
    """A client has received the windows before number `windows` of the timeline that it calls `timeline`."""

    timeline: str
    windows: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Acknowledgement | None:
        """Read request parameters; None where they ask for a timeline. Raises InvalidRequest."""
        if "acknowledge" not in parameters:
            return None
        return cls(
            _read_name("acknowledge", parameters["acknowledge"]),
            _read_number("windows", parameters.get("windows", 0), 0, 2**31),
        )


def _read_seconds(name: str, value: object) -> float:
    number = read_float(value)
    if not math.isfinite(number):
        raise InvalidRequest(f"{name} is {value!r:.40}, but a number of seconds is needed")
    return number


def _read_number(name: str, value: object, least: int, most: int) -> int:
    number = read_digits(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise InvalidRequest(f"{name} is {value!r:.40}, but a whole number from {least} to {most} is needed")
    return number


def _read_flag(name: str, value: object) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise InvalidRequest(f"{name} is {value!r:.40}, but true or false is needed")
    return value in _TRUE


def _read_name(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"{name} is {value!r:.40}, but a text of at most {MAX_NAME_LENGTH} characters is needed")
    return value
