"""A gRPC connection, over which conversations are held: the blocking kind."""

import time
from collections.abc import Callable
from typing import Any, cast

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipserve.channel import Settings
from clipserve.conversations import Conversation, Pause, Result, Step
from clipserve.errors import InvalidRequest


class Wire:
    """One connection, shared by any number of threads. Closing it ends the calls under way in all of them.

    Args:
        pause: sleeps between the steps of a conversation.
    """

    def __init__(self, settings: Settings, pause: Callable[[float], object] = time.sleep) -> None:
        self._settings = settings
        self._pause = pause
        self._client: Any = InferenceServerClient(**settings.client_arguments())
        self._closed = False

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        if self._closed:
            raise InvalidRequest("this classifier is closed; make a new one", model=self._settings.model)

    def hold(self, conversation: Conversation[Result]) -> Result:
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

    def close(self) -> None:
        """End the calls under way with RequestCancelled."""
        self._closed = True
        self._client.close()

    def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self._pause(step.seconds)
        self.check_open()
        return getattr(self._client, step.method)(
            **step.arguments, headers=self._settings.headers, client_timeout=step.timeout_seconds
        )
