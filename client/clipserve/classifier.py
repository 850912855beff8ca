"""The classifier for ordinary, blocking code."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipserve import conversations, defaults
from clipserve.channel import Settings, Tls
from clipserve.conversations import Conversation, Pause, Result, Step
from clipserve.errors import InvalidRequest
from clipserve.exchange import start_exchange
from clipserve.question import Quality, Question, Sampling
from clipserve.results import Prediction
from clipserve.videos import VideoSource


class VideoClassifier:
    """Names the human actions in videos, with a model that a Triton server runs.

    >>> with VideoClassifier("x3d_m", "localhost:8001") as classifier:
    ...     prediction = classifier.classify("archery.mp4")
    >>> prediction.top.label
    'archery'

    Several threads may share one classifier: each call is a gRPC call of its own on one channel,
    and nothing else is shared. Nothing connects before the first call.

    Args:
        model: public name of a model; `models()` lists them.
        url: host:port of the server's gRPC port.
        timeout_seconds: deadline of every call, from sending to the answer.
        tls: how to encrypt; None sends everything in the clear.
        headers: sent with every call as gRPC metadata, such as {"authorization": "Bearer ..."}.

    Raises:
        InvalidRequest: an argument is not what is allowed, or a file of `tls` cannot be read.
    """

    def __init__(
        self,
        model: str = defaults.MODEL,
        url: str = defaults.URL,
        *,
        timeout_seconds: float = defaults.TIMEOUT_SECONDS,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self._settings = Settings(model=model, url=url, tls=tls, headers=headers or {}, timeout_seconds=timeout_seconds)
        self._client: Any = InferenceServerClient(**self._settings.client_arguments())
        self._closed = False

    def classify(
        self,
        video: VideoSource,
        *,
        top_k: int = defaults.TOP_K,
        features: bool = False,
        report: bool = False,
        sampling: Sampling = defaults.SAMPLING,
        views: int | None = None,
        crops: int | None = None,
        start: float | None = None,
        end: float | None = None,
        quality: Quality = defaults.QUALITY,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Classify one video.

        Args:
            video: path of a video file, its bytes, or a file opened with mode 'rb' (read from its
                current position on).
            top_k: how many labels to return; a model with fewer returns all it has.
            features: also return the embedding, float32 [D].
            report: also return what the server did with the video.
            sampling, views, crops, start, end, quality: which part of the video the model sees, see
                `Question`.
            timeout_seconds: deadline of this call; None takes the classifier's.

        Raises:
            VideoError: the video cannot be classified.
            RequestError: an argument, the model's name or the local file is wrong.
            ServerError: the server did not answer, or answered with a failure.
        """
        call = self._settings.start_call(timeout_seconds)
        question = Question(
            top_k=top_k,
            features=features,
            report=report,
            sampling=sampling,
            views=views,
            crops=crops,
            start=start,
            end=end,
            quality=quality,
        )
        exchange = start_exchange(video, model=self.model, question=question)
        call = call.about(exchange.video.name)
        return self._hold(conversations.classify(exchange, call))

    def models(self) -> list[str]:
        """Names of the models that are ready to take videos, sorted.

        Raises:
            ServerError: the server did not answer, or answered with a failure.
        """
        return self._hold(conversations.list_models(self._settings.start_call(None)))

    def wait_until_ready(self, *, timeout_seconds: float = defaults.READY_TIMEOUT_SECONDS) -> None:
        """Wait until the server answers and the model, with every model it is made of, is ready.

        Raises:
            UnknownModel: the server answers, and its repository has no such model.
            ModelNotReady, ServerUnavailable, DeadlineExceeded: time ran out; says what stood in
                the way last.
            AccessDenied, ServerFailed: waiting longer would not help.
        """
        call = self._settings.start_call(timeout_seconds)
        self._hold(conversations.wait_until_ready(call))

    def close(self) -> None:
        """Close the connection. Calls under way end with RequestCancelled."""
        self._closed = True
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VideoClassifier({self.model!r}, {self._settings.url!r})"

    def _hold(self, conversation: Conversation[Result]) -> Result:
        """Take the steps of a conversation until it returns or raises."""
        try:
            step = next(conversation)
            while True:
                try:
                    answer = self._take(step)
                except InferenceServerException as exc:
                    step = conversation.throw(exc)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            return cast(Result, end.value)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if self._closed:
            raise InvalidRequest("this classifier is closed; make a new one", model=self.model)
        return getattr(self._client, step.method)(
            **step.arguments, headers=self._settings.headers, client_timeout=step.timeout_seconds
        )
