"""A gRPC connection, over which conversations are held: the awaiting kind."""

import asyncio
import threading
from contextlib import suppress
from typing import Any, cast

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipserve.channel import Settings
from clipserve.conversations import Conversation, Pause, Result, Step
from clipserve.errors import InvalidRequest, RequestCancelled


class AsyncWire:
    """`Wire` for asyncio: a connection for each event loop, because gRPC binds a channel to the loop that makes it.

    The connection of a loop that was closed is dropped at the next call from another loop.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client_arguments = settings.client_arguments()
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._lock = threading.Lock()  # loops may run in different threads
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
        """End the calls under way with RequestCancelled; those in other event loops as soon as these loops go on."""
        with self._lock:
            self._closed = True
            clients, self._clients = self._clients, {}
        for loop, client in clients.items():
            if loop is asyncio.get_running_loop():
                await client.close()
            else:
                with suppress(RuntimeError):  # the loop is closed, and no call is under way in it
                    loop.call_soon_threadsafe(_close_soon, loop, client)

    def _client(self) -> Any:
        """The connection of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self.check_open()
            for other in [known for known in self._clients if known.is_closed()]:
                del self._clients[other]
            if loop not in self._clients:
                self._clients[loop] = InferenceServerClient(**self._client_arguments)
            return self._clients[loop]

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        try:
            return await getattr(self._client(), step.method)(
                **step.arguments, headers=self._settings.headers, client_timeout=step.timeout_seconds
            )
        except asyncio.CancelledError:
            # gRPC raises it for calls that close() ended, too; only a cancelled task may see it.
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise RequestCancelled("the classifier was closed", model=self._settings.model) from None
            raise


def _close_soon(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    # The loop holds the task until it has run: closing at once waits for nothing.
    loop.create_task(client.close())
