"""One classification without the network: the request to send, the answer to read.

Sync and async clients share all of it; failures.py does the same for what goes wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput

from clipserve.batches.cancellation import Cancellation
from clipserve.errors import ClipserveError, UnexpectedAnswer
from clipserve.question import Question
from clipserve.results import Prediction, ScoredLabel
from clipserve.sources.downloads import DownloadLimits
from clipserve.sources.videos import Video, VideoSource, read_video

VIDEO = "VIDEO"  # in, BYTES [1, 1]
SCORES = "SCORES"  # out, FP32 [1, K]; with a class count BYTES [1, top_k]
FEATURES = "FEATURES"  # out, FP32 [1, D]
REPORT = "REPORT"  # out, BYTES [1, 1], JSON

# The parts of an ensemble, which take no videos: see the model repository.
_DECODE = "decode"
_NET_SUFFIX = "_net"


@dataclass
class ServedModel:
    """The model that a classifier asks.

    Attributes:
        name: its public name.
        has_report: whether to ask for REPORT each time; False once a server has said that the model has no such output.
    """

    name: str
    has_report: bool = True


@dataclass(frozen=True)
class Exchange:
    """A question about one video, and how to read the answer."""

    model: ServedModel
    video: Video
    question: Question

    def infer_arguments(self, timeout_seconds: float) -> dict[str, Any]:
        """Arguments of tritonclient's `infer`: a batch of one video, and the outputs asked for.

        The deadline goes with the request: a server that is this late neither decodes nor runs it.
        """
        video = InferInput(VIDEO, [1, 1], "BYTES")
        video.set_data_from_numpy(np.array([[self.video.content]], dtype=np.object_))
        # Triton sorts and names the best classes itself: labels never live in the client.
        outputs = [InferRequestedOutput(SCORES, class_count=self.question.top_k)]
        if self.question.features:
            outputs.append(InferRequestedOutput(FEATURES))
        # Always: it says whether the video is whole, and costs nothing that can be measured beside decoding it.
        if self.question.report or self.model.has_report:
            outputs.append(InferRequestedOutput(REPORT))
        return {
            "model_name": self.model.name,
            "inputs": [video],
            "outputs": outputs,
            "parameters": self.question.parameters(),
            "timeout": max(1, round(timeout_seconds * 1e6)),
        }

    def read_prediction(self, result: Any) -> Prediction:
        """Read an InferResult.

        Raises:
            UnexpectedAnswer: it is not what the contract says.
        """
        try:
            report = _read_report(result) if self.question.report else _find_report(result)
            return Prediction(
                labels=tuple(read_label(item) for item in _read_output(result, SCORES)),
                model=self.model.name,
                video=self.video.name,
                features=_read_features(result) if self.question.features else None,
                report=report if self.question.report else None,
                truncated=_read_truncated(report),
            )
        except (ValueError, TypeError, AttributeError) as exc:
            raise UnexpectedAnswer(
                f"model {self.model.name!r} answered {self.video.name!r} in a way that this client does"
                f" not know: {exc}. Its model repository may come from another version.",
                video=self.video.name,
                model=self.model.name,
            ) from exc


def start_exchange(
    source: VideoSource,
    *,
    model: ServedModel,
    question: Question,
    limits: DownloadLimits | None = None,
    cancellation: Cancellation | None = None,
) -> Exchange:
    """Read the video.

    Raises:
        InvalidRequest: `source` is no video source.
        VideoNotReadable, EmptyVideo, VideoTooLarge: see `read_video`.
    """
    try:
        video = read_video(source, limits, cancellation)
    except ClipserveError as exc:
        exc.model = model.name  # reading knows nothing of models
        raise
    return Exchange(model=model, video=video, question=question)


def read_label(item: bytes) -> ScoredLabel:
    """Read `score:index:label`, or `score:index` from a model without a label file."""
    # A label may hold colons itself; score and index never do.
    score, index, *label = item.decode().split(":", 2)
    return ScoredLabel(label=label[0] if label else index, index=int(index), score=float(score))


def list_public_models(index: Any) -> tuple[str, ...]:
    """The models that take videos, by name, from a RepositoryIndexResponse."""
    return tuple(
        sorted(
            {
                entry.name
                for entry in index.models
                if entry.state == "READY" and entry.name != _DECODE and not entry.name.endswith(_NET_SUFFIX)
            }
        )
    )


def list_parts(config: Any) -> tuple[str, ...]:
    """The models an ensemble is made of, from a ModelConfigResponse; () for any other model."""
    steps = config.config.ensemble_scheduling.step
    return tuple(dict.fromkeys(step.model_name for step in steps))


def _read_output(result: Any, name: str) -> npt.NDArray[Any]:
    output = result.as_numpy(name)
    if output is None:
        raise ValueError(f"there is no output {name}")
    return np.asarray(output).reshape(-1)


def _read_features(result: Any) -> npt.NDArray[np.float32]:
    # A copy: the array of the result is read-only and holds on to the whole message.
    features = _read_output(result, FEATURES)
    if features.dtype != np.float32:
        raise ValueError(f"{FEATURES} is float32, got {features.dtype}")
    return features.copy()


def _read_report(result: Any) -> Mapping[str, Any]:
    (text,) = _read_output(result, REPORT)
    report = json.loads(text)
    if not isinstance(report, dict):
        raise ValueError(f"{REPORT} is a JSON object, got {report!r}")
    return report


def _find_report(result: Any) -> Mapping[str, Any]:
    """The report where nobody asked for it: a model repository of another version may have none, or another one."""
    try:
        return _read_report(result)
    except (ValueError, TypeError, AttributeError):
        return {}


def _read_truncated(report: Mapping[str, Any]) -> bool | None:
    truncated = report.get("truncated")
    return truncated if isinstance(truncated, bool) else None
