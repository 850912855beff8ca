"""A Service of type ClusterIP: it chooses a pod for each *connection*, and never looks at it again."""

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from typing import Any

Address = tuple[str, int]
# From the end of a pod until no node chooses it any more.
PROPAGATION_SECONDS = 1.0


class ClusterService:
    """`endpoints` are its pods; a connection stays with its pod also when that leaves the list.

    Listens on as many ports of loopback as there are clients: those of one process share a connection to one address.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.endpoints: list[Address] = []
        self.connections: list[Address] = []
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster service")
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "ClusterService":
        self._thread.start()
        self._servers = [self._wait(asyncio.start_server(self._connect, "127.0.0.1", 0)) for _ in range(self._clients)]
        self.urls = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in self._servers]
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            address = self.endpoints[next(self._turn) % len(self.endpoints)]
            self.connections.append(address)
            from_pod, to_pod = await asyncio.open_connection(*address)
            await asyncio.gather(copy(reader, to_pod), copy(from_pod, writer))
        except (OSError, asyncio.CancelledError):
            pass  # the client or the pod has gone
        finally:
            writer.close()
            self._tasks.discard(task)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All bytes, then the end."""
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
