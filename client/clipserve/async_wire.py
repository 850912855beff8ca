"""A gRPC connection, over which conversations are held: the awaiting kind."""

import asyncio
from typing import Any, cast

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipserve.channel import Settings
from clipserve.conversations import Conversation, Pause, Result, Step
from clipserve.errors import InvalidRequest, RequestCancelled


class AsyncWire:
    """`Wire` for asyncio. It belongs to the event loop of its first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client_arguments = settings.client_arguments()
        self._open_client: Any = None
        self._closed = False

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        if self._closed:
            raise InvalidRequest("this classifier is closed; make a new one", model=self._settings.model)

    async def hold(self, conversation: Conversation[Result]) -> Result:
        """Take the steps of a conversation until it returns or raises."""
        try:
            step = next(conversation)
            while True:
                try:
                    answer = await self._take(step)
                except InferenceServerException as exc:
                    step = conversation.throw(exc)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            return cast(Result, end.value)

    async def close(self) -> None:
        """End the calls under way with RequestCancelled."""
        self._closed = True
        if self._open_client is not None:
            await self._open_client.close()

    @property
    def _client(self) -> Any:
        # gRPC binds a channel to the loop that is there when it is made, so not in __init__, which
        # may run before any loop does.
        if self._open_client is None:
            self._open_client = InferenceServerClient(**self._client_arguments)
        return self._open_client

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        self.check_open()
        try:
            return await getattr(self._client, step.method)(
                **step.arguments, headers=self._settings.headers, client_timeout=step.timeout_seconds
            )
        except asyncio.CancelledError:
            # gRPC raises it for calls that close() ended, too; only a cancelled task may see it.
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise RequestCancelled("the classifier was closed", model=self._settings.model) from None
            raise
