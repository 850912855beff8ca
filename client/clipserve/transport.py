"""The network: gRPC connections that run the protocols of protocol.py, blocking and awaiting.

After `close()` both transports treat calls alike. A call that began before ends with RequestCancelled, whether it waits
for an answer, sleeps, or is between two commands. A call that begins later is refused with InvalidRequest.
"""

import asyncio
import threading
from contextlib import suppress
from typing import Any, cast

import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from clipserve.cancellation import Cancellation
from clipserve.connection import Connection
from clipserve.errors import InvalidRequest
from clipserve.protocol import Command, Commands, Result, Sleep

CLOSED = "the classifier was closed"


class Transport:
    """One gRPC connection, shared by any number of threads.

    Args:
        cancellation: cancelled by `close()`, and ends the connection's calls and sleeps.
    """

    def __init__(self, connection: Connection, cancellation: Cancellation | None = None) -> None:
        self.cancellation = cancellation or Cancellation(CLOSED, model=connection.model)
        self._connection = connection
        self._client: Any = tritonclient.grpc.InferenceServerClient(**connection.client_arguments())

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        _check_open(self.cancellation, self._connection)

    def run(self, protocol: Commands[Result]) -> Result:
        """Execute the commands of a protocol until it returns or raises."""
        try:
            command = next(protocol)
            while True:
                try:
                    answer = self._execute(command)
                except InferenceServerException as exc:
                    command = protocol.throw(exc)
                else:
                    command = protocol.send(answer)
        except StopIteration as end:
            return cast(Result, end.value)

    def close(self) -> None:
        """End the calls in flight, in all threads."""
        self.cancellation.cancel()
        self._client.close()

    def _execute(self, command: Command) -> Any:
        self.cancellation.check()
        if isinstance(command, Sleep):
            return self.cancellation.sleep(command.seconds)
        try:
            return getattr(self._client, command.method)(
                **command.arguments, headers=self._connection.headers, client_timeout=command.timeout_seconds
            )
        except Exception:
            # gRPC ends a call in flight with the status CANCELLED, and one that is just beginning with a ValueError.
            self.cancellation.check()
            raise


class AsyncTransport:
    """`Transport` for asyncio: one connection for each event loop, because gRPC binds a channel to its loop.

    The next call from another loop drops the connections of closed loops.
    """

    def __init__(self, connection: Connection) -> None:
        self.cancellation = Cancellation(CLOSED, model=connection.model)
        self._connection = connection
        self._client_arguments = connection.client_arguments()
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._lock = threading.Lock()  # loops may run in different threads

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        _check_open(self.cancellation, self._connection)

    async def run(self, protocol: Commands[Result]) -> Result:
        """Execute the commands of a protocol until it returns or raises."""
        try:
            command = next(protocol)
            while True:
                try:
                    answer = await self._execute(command)
                except InferenceServerException as exc:
                    command = protocol.throw(exc)
                else:
                    command = protocol.send(answer)
        except StopIteration as end:
            return cast(Result, end.value)

    async def close(self) -> None:
        """End the calls in flight; those of other event loops end as soon as these loops go on."""
        self.cancellation.cancel()
        with self._lock:
            clients, self._clients = self._clients, {}
        for loop, client in clients.items():
            if loop is asyncio.get_running_loop():
                await client.close()
            else:
                # The loop keeps the task until it has run, so nobody waits for the loop here.
                _call_soon(loop, lambda loop=loop, client=client: loop.create_task(client.close()))

    async def _execute(self, command: Command) -> Any:
        self.cancellation.check()
        if isinstance(command, Sleep):
            return await self._sleep(command.seconds)
        try:
            return await getattr(self._client(), command.method)(
                **command.arguments, headers=self._connection.headers, client_timeout=command.timeout_seconds
            )
        except asyncio.CancelledError:
            # gRPC also raises it in calls that close() ended; only a cancelled task may see it.
            task = asyncio.current_task()
            if not (task and task.cancelling()):
                self.cancellation.check()
            raise
        except Exception:
            self.cancellation.check()
            raise

    async def _sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()
        with self.cancellation.calls(lambda: _call_soon(loop, closed.set)), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await closed.wait()
        self.cancellation.check()

    def _client(self) -> Any:
        """The connection of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self.cancellation.check()
            for other in [known for known in self._clients if known.is_closed()]:
                del self._clients[other]
            if loop not in self._clients:
                self._clients[loop] = tritonclient.grpc.aio.InferenceServerClient(**self._client_arguments)
            return self._clients[loop]


def _check_open(cancellation: Cancellation, connection: Connection) -> None:
    if cancellation.cancelled:
        raise InvalidRequest("this classifier is closed; make a new one", model=connection.model)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nothing is in flight in it
        loop.call_soon_threadsafe(callback)
