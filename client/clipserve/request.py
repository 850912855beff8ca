"""One request to a server: build it from a video and options, parse the response.

Both classifiers share it; error_mapping.py does the same for failures.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput

from clipserve.cancellation import Cancellation
from clipserve.contract import PARAMETER, ClipContract
from clipserve.errors import ClipserveError, UnexpectedAnswer
from clipserve.options import RequestOptions
from clipserve.results import Prediction, ScoredLabel
from clipserve.sources.downloads import DownloadLimits
from clipserve.sources.videos import Video, VideoSource, read_video

VIDEO = "VIDEO"  # in, BYTES [1, 1]
SCORES = "SCORES"  # out, FP32 [1, K]; with a class count BYTES [1, top_k]
FEATURES = "FEATURES"  # out, FP32 [1, D]
REPORT = "REPORT"  # out, BYTES [1, 1], JSON

# Not public models: the steps of ensembles, and the model that timelines call. See the model repository.
_INTERNAL = ("decode", "timeline")
_NETWORK_SUFFIX = "_net"


@dataclass
class ServedModel:
    """The model that a classifier calls.

    Attributes:
        name: its public name.
        has_report: whether to request REPORT each time; False once a server has said that the model has no such output.
    """

    name: str
    has_report: bool = True


@dataclass(frozen=True)
class InferRequest:
    """A request about one video."""

    model: ServedModel
    video: Video
    options: RequestOptions

    def build(self, timeout_seconds: float) -> dict[str, Any]:
        """Arguments of tritonclient's `infer`: a batch of one video, and the requested outputs.

        The deadline goes with the request, so that a server which is this late neither decodes nor runs the model.
        """
        video = InferInput(VIDEO, [1, 1], "BYTES")
        video.set_data_from_numpy(np.array([[self.video.content]], dtype=np.object_))
        # Triton sorts and names the best classes itself: the client has no list of labels.
        outputs = [InferRequestedOutput(SCORES, class_count=self.options.top_k)]
        if self.options.features:
            outputs.append(InferRequestedOutput(FEATURES))
        # Always: it says whether the video is whole, and costs nothing that can be measured beside decoding.
        if self.options.report or self.model.has_report:
            outputs.append(InferRequestedOutput(REPORT))
        return {
            "model_name": self.model.name,
            "inputs": [video],
            "outputs": outputs,
            "parameters": self.options.parameters(),
            "timeout": max(1, round(timeout_seconds * 1e6)),
        }

    def parse(self, response: Any) -> Prediction:
        """Read an InferResult.

        Raises:
            UnexpectedAnswer: it is not what the contract says.
        """
        try:
            report = _read_report(response) if self.options.report else _find_report(response)
            return Prediction(
                labels=tuple(read_label(item) for item in _read_output(response, SCORES)),
                model=self.model.name,
                video=self.video.name,
                features=_read_features(response) if self.options.features else None,
                report=report if self.options.report else None,
                truncated=_read_truncated(report),
            )
        except (ValueError, TypeError, AttributeError) as exc:
            raise UnexpectedAnswer(
                f"model {self.model.name!r} answered {self.video.name!r} in a way that this client does"
                f" not know: {exc}. Its model repository may come from another version.",
                video=self.video.name,
                model=self.model.name,
            ) from exc


def read_request(
    source: VideoSource,
    model: ServedModel,
    options: RequestOptions,
    limits: DownloadLimits | None,
    cancellation: Cancellation,
) -> InferRequest:
    """Read the video for a request.

    Raises:
        InvalidRequest: `source` is no video source.
        VideoNotReadable, EmptyVideo, VideoTooLarge: see `read_video`.
    """
    try:
        video = read_video(source, limits, cancellation)
    except ClipserveError as exc:
        exc.model = model.name  # reading does not know the model
        raise
    return InferRequest(model, video, options)


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
                if entry.state == "READY" and entry.name not in _INTERNAL and not entry.name.endswith(_NETWORK_SUFFIX)
            }
        )
    )


def list_steps(config: Any) -> tuple[str, ...]:
    """The models that an ensemble is made of, from a ModelConfigResponse; () for any other model."""
    steps = config.config.ensemble_scheduling.step
    return tuple(dict.fromkeys(step.model_name for step in steps))


def parse_contract(config: Any, model: str) -> ClipContract:
    """The contract of a public model, from its ModelConfigResponse.

    Raises:
        UnexpectedAnswer: the config holds none, or one that this client does not know.
    """
    parameters = config.config.parameters
    if PARAMETER not in parameters:
        raise UnexpectedAnswer(
            f"model {model!r} has no contract: an older version of clipserve exported it, or it is not a public model"
            " of clipserve. `clipserve export --configs` on the server adds contracts",
            model=model,
        )
    try:
        return ClipContract.from_json(parameters[PARAMETER].string_value)
    except (TypeError, ValueError) as exc:
        raise UnexpectedAnswer(
            f"the contract of model {model!r} is not what this client knows: {exc}. Its model repository may come"
            " from another version.",
            model=model,
        ) from exc


def _read_output(response: Any, name: str) -> npt.NDArray[Any]:
    output = response.as_numpy(name)
    if output is None:
        raise ValueError(f"there is no output {name}")
    return np.asarray(output).reshape(-1)


def _read_features(response: Any) -> npt.NDArray[np.float32]:
    # A copy: the response's array is read-only and keeps the whole message alive.
    features = _read_output(response, FEATURES)
    if features.dtype != np.float32:
        raise ValueError(f"{FEATURES} is float32, got {features.dtype}")
    return features.copy()


def _read_report(response: Any) -> Mapping[str, Any]:
    (text,) = _read_output(response, REPORT)
    report = json.loads(text)
    if not isinstance(report, dict):
        raise ValueError(f"{REPORT} is a JSON object, got {report!r}")
    return report


def _find_report(response: Any) -> Mapping[str, Any]:
    """The report that was not asked for: a model repository of another version may have none, or a different one."""
    try:
        return _read_report(response)
    except (ValueError, TypeError, AttributeError):
        return {}


def _read_truncated(report: Mapping[str, Any]) -> bool | None:
    truncated = report.get("truncated")
    return truncated if isinstance(truncated, bool) else None
