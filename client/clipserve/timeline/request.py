"""The request of a timeline, and what the responses to it say: see docs/contract.md."""

import json
import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferResult, service_pb2

from clipserve.errors import NotAVideo, UnexpectedAnswer
from clipserve.request import FEATURES, SCORES, VIDEO
from clipserve.results import ScoredLabel
from clipserve.sources.videos import Video
from clipserve.timeline.options import TimelineOptions
from clipserve.timeline.window import VideoFacts, Window

MODEL = "timeline"  # one model of the server answers timelines, and calls the networks
WINDOWS = "WINDOWS"  # out, BYTES [n], a JSON object each
PROGRESS = "PROGRESS"  # out, BYTES [1], JSON

# Triton 2.51 keeps what a client has not read without a bound. So the server may only send this many windows ahead of
# those that the client says it has: some 100 kB with 400 classes.
MOST_UNACKNOWLEDGED = 64
ACKNOWLEDGE_EVERY = 16

_ID, _ACKNOWLEDGEMENT_ID = "windows", "acknowledgement"
_FINAL = "triton_final_response"
_RAW_INPUT_CONTENTS = service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER


@dataclass(frozen=True)
class TimelineRequest:
    """A request about the windows of one video."""

    model: str
    video: Video
    options: TimelineOptions
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    def build(self, first_window: int, attempt: int, *, has_video: bool = True) -> bytes:
        """The ModelInferRequest for the windows from `first_window` on, serialized.

        Without the video the server says whether it has room for a timeline, see `says_room`.
        """
        outputs = [WINDOWS, PROGRESS, SCORES, *([FEATURES] if self.options.features else [])]
        message = _begin(_ID)
        for name in outputs:
            message.outputs.add(name=name)
        parameters = self.options.parameters() | {
            "model": self.model,
            "first_window": first_window,
            "timeline": self._name(attempt),
            "max_unacknowledged": MOST_UNACKNOWLEDGED,
        }
        _set_parameters(message, parameters | {"triton_enable_empty_final_response": True})
        return _serialize(message, self.video.content if has_video else b"")

    def acknowledge(self, windows: int, attempt: int) -> bytes:
        """The ModelInferRequest which says that the client has the windows before this number, serialized."""
        message = _begin(_ACKNOWLEDGEMENT_ID)
        _set_parameters(message, {"acknowledge": self._name(attempt), "windows": windows})
        return _serialize(message, b"")

    def parse(self, response: Any, first_window: int) -> tuple[list[Window], VideoFacts | None]:
        """The windows of a ModelInferResponse, which begin with `first_window`; (no windows, None) if it has none.

        Raises:
            UnexpectedAnswer: it is not what the contract says.
        """
        result = InferResult(response)
        try:
            records = _read_objects(result, WINDOWS)
            if not records:
                return [], None
            (progress,) = _read_objects(result, PROGRESS)
            scores = _read_rows(result, SCORES, len(records))
            features = _read_rows(result, FEATURES, len(records)) if self.options.features else [None] * len(records)
            windows = [
                _read_window(*parts, report=self.options.report)
                for parts in zip(records, scores, features, strict=True)
            ]
            expected = range(first_window, first_window + len(windows))
            if [window.index for window in windows] != [*expected]:
                raise ValueError(f"windows {expected} are next, got {[window.index for window in windows]}")
            return windows, _read_facts(progress)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise UnexpectedAnswer(
                f"model {MODEL!r} answered {self.video.name!r} in a way that this client does not know: {exc}. Its"
                " model repository may come from another version.",
                video=self.video.name,
                model=self.model,
            ) from exc

    def _name(self, attempt: int) -> str:
        # The server may not have noticed yet that the last attempt has ended, and refuses a name that is in use.
        return f"{self.name}.{attempt}"


def _begin(id: str) -> Any:
    message = service_pb2.ModelInferRequest(model_name=MODEL, id=id)
    message.inputs.add(name=VIDEO, datatype="BYTES", shape=[1])
    return message


def _serialize(message: Any, video: bytes) -> bytes:
    """The message with the video in `raw_input_contents`.

    Written by hand, because protobuf would copy the video twice: a field is its tag, its length and its bytes
    (protobuf.dev/programming-guides/encoding), and a message may be continued by further fields.
    """
    length = struct.pack("<I", len(video))  # ahead of each element of a BYTES tensor
    tag = _RAW_INPUT_CONTENTS << 3 | 2
    return b"".join((message.SerializeToString(), _encode(tag), _encode(len(length) + len(video)), length, video))


def _encode(number: int) -> bytes:
    """protobuf's varint: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*encoded, number))


def says_room(text: str) -> bool:
    """Whether this error to a request without a video means that the server would take one."""
    return f"[{NotAVideo.code}]" in text


def is_last(response: Any) -> bool:
    """Whether no more windows follow this ModelInferResponse."""
    return response.id == _ID and bool(response.parameters[_FINAL].bool_param)


def _set_parameters(message: Any, parameters: Mapping[str, str | int | float | bool]) -> None:
    for name, value in parameters.items():
        match value:
            case bool():
                message.parameters[name].bool_param = value
            case str():
                message.parameters[name].string_param = value
            case int():
                message.parameters[name].int64_param = value
            case float():
                message.parameters[name].double_param = value


def _read_objects(result: Any, name: str) -> list[dict[str, Any]]:
    output = result.as_numpy(name)
    objects = [] if output is None else [json.loads(text) for text in np.asarray(output).reshape(-1)]
    if not all(isinstance(item, dict) for item in objects):
        raise ValueError(f"{name} holds JSON objects")
    return objects


def _read_rows(result: Any, name: str, count: int) -> Iterator[npt.NDArray[np.float32]]:
    output = result.as_numpy(name)
    if output is None:
        raise ValueError(f"there is no output {name}")
    if output.dtype != np.float32 or output.ndim != 2 or len(output) != count:
        raise ValueError(f"{name} is float32 [{count}, ...], got {output.dtype} {list(output.shape)}")
    # Copies: a row would keep the whole message alive.
    return (row.copy() for row in output)


def _read_window(
    record: Mapping[str, Any],
    scores: npt.NDArray[np.float32],
    features: npt.NDArray[np.float32] | None,
    *,
    report: bool,
) -> Window:
    labels = [
        # A class without a name is called by its number, as `classify` does.
        ScoredLabel(label=str(label or index), index=int(index), score=float(score))
        for score, index, label in record["top"]
    ]
    return Window(
        index=int(record["index"]),
        start_seconds=float(record["start_seconds"]),
        end_seconds=float(record["end_seconds"]),
        start_frame=int(record["start_frame"]),
        end_frame=int(record["end_frame"]),
        labels=tuple(labels),
        scores=scores,
        features=features,
        report=dict(record["report"]) if report else None,
    )


def _read_facts(progress: Mapping[str, Any]) -> VideoFacts:
    duration, total, truncated = (progress.get(name) for name in ("duration_seconds", "windows_total", "truncated"))
    return VideoFacts(
        duration_seconds=None if duration is None else float(duration),
        windows_total=None if total is None else int(total),
        truncated=truncated if isinstance(truncated, bool) else None,
        video=dict(progress.get("video") or {}),
    )
