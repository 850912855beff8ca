"""The network: gRPC connections that run the protocols of protocol.py, blocking and awaiting.

Each member of a fleet has a connection of its own (fleet/fleet.py says why); a route says which one the calls of a
request go to.

After `close()` both transports treat calls alike. A call that began before ends with RequestCancelled, whether it waits
for an answer, sleeps, or is between two commands. A call that begins later is refused with InvalidRequest.
"""

import asyncio
import threading
from contextlib import nullcontext
from typing import Any, cast

import grpc  # type: ignore[import-untyped]
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from clipserve.cancellation import Cancellation, call_soon
from clipserve.connection import Connection
from clipserve.errors import InvalidRequest
from clipserve.fleet.fleet import Fleet, Route
from clipserve.fleet.members import Member
from clipserve.fleet.probe import ANSWER_SECONDS
from clipserve.protocol import Command, Commands, Failed, Pick, Result, Sleep

CLOSED = "the classifier was closed"


class Transport:
    """gRPC connections to the members of a fleet, shared by any number of threads.

    Args:
        cancellation: cancelled by `close()`, and ends the calls and sleeps of this transport.
        fleet: shared with other transports, and closed by its owner; None: this transport has one of its own.
    """

    def __init__(
        self, connection: Connection, cancellation: Cancellation | None = None, fleet: Fleet | None = None
    ) -> None:
        self.cancellation = cancellation or Cancellation(CLOSED, model=connection.model)
        self.fleet = fleet or Fleet(connection)
        self._connection = connection
        self._owns_fleet = fleet is None
        self._clients: dict[Member, Any] = {}
        self._lock = threading.Lock()
        self.fleet.add(self)

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        _check_open(self.cancellation, self._connection)

    def run(self, protocol: Commands[Result], route: Route | None = None) -> Result:
        """Execute the commands of a protocol until it returns or raises; with `route` on its member."""
        with nullcontext(route) if route else self.fleet.open_route() as route:
            try:
                command = next(protocol)
                while True:
                    try:
                        answer = self._execute(command, route)
                    except InferenceServerException as exc:
                        command = protocol.throw(exc)
                    else:
                        command = protocol.send(answer)
            except StopIteration as end:
                return cast(Result, end.value)

    def open_client(self, member: Member) -> Any:
        """The connection to a member: an InferenceServerClient of tritonclient. The transport closes it."""
        with self._lock:
            self.cancellation.check()
            _check_cut(member)
            if member not in self._clients:
                arguments = client_arguments(self.fleet, member)
                self._clients[member] = tritonclient.grpc.InferenceServerClient(**arguments)
            return self._clients[member]

    def drop(self, member: Member) -> None:
        """Close the connection to a member, and so end its calls."""
        with self._lock:
            client = self._clients.pop(member, None)
        if client is not None:
            client.close()

    def close(self) -> None:
        """End the calls in flight, in all threads."""
        self.cancellation.cancel()
        if self._owns_fleet:
            self.fleet.close()
        with self._lock:
            clients, self._clients = [*self._clients.values()], {}
        for client in clients:
            client.close()

    def _execute(self, command: Command, route: Route) -> Any:
        self.cancellation.check()
        match command:
            case Sleep():
                return self.cancellation.sleep(command.seconds)
            case Pick():
                return route.pick()
            case Failed():
                return route.note_failure(command.error)
        member = route.member
        try:
            answer = getattr(self.open_client(member), command.method)(
                **command.arguments, headers=self._connection.headers, client_timeout=command.timeout_seconds
            )
        except Exception:
            # gRPC ends a call in flight with the status CANCELLED, and one that is just beginning with a ValueError.
            self.cancellation.check()
            _check_cut(member)
            raise
        member.note_answer()
        return answer


class AsyncTransport:
    """`Transport` for asyncio: connections for each event loop, because gRPC binds a channel to its loop.

    The next call from another loop drops the connections of closed loops.
    """

    def __init__(self, connection: Connection) -> None:
        self.cancellation = Cancellation(CLOSED, model=connection.model)
        self.fleet = Fleet(connection)
        self._connection = connection
        self._clients: dict[asyncio.AbstractEventLoop, dict[Member, Any]] = {}
        self._lock = threading.Lock()  # loops may run in different threads
        self.fleet.add(self)

    def check_open(self) -> None:
        """Raise InvalidRequest after `close()`."""
        _check_open(self.cancellation, self._connection)

    async def run(self, protocol: Commands[Result], route: Route | None = None) -> Result:
        """Execute the commands of a protocol until it returns or raises; with `route` on its member."""
        with nullcontext(route) if route else self.fleet.open_route() as route:
            try:
                command = next(protocol)
                while True:
                    try:
                        answer = await self._execute(command, route)
                    except InferenceServerException as exc:
                        command = protocol.throw(exc)
                    else:
                        command = protocol.send(answer)
            except StopIteration as end:
                return cast(Result, end.value)

    def open_client(self, member: Member) -> Any:
        """The running loop's connection to a member: an InferenceServerClient of tritonclient.grpc.aio."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self.cancellation.check()
            _check_cut(member)
            for other in [known for known in self._clients if known.is_closed()]:
                del self._clients[other]
            clients = self._clients.setdefault(loop, {})
            if member not in clients:
                clients[member] = tritonclient.grpc.aio.InferenceServerClient(**client_arguments(self.fleet, member))
            return clients[member]

    def drop(self, member: Member) -> None:
        """Close the connections to a member, each in its loop, and so end its calls."""
        with self._lock:
            dropped = [(loop, clients.pop(member)) for loop, clients in self._clients.items() if member in clients]
        for loop, client in dropped:
            close_in(loop, client)

    async def close(self) -> None:
        """End the calls in flight; those of other event loops end as soon as these loops go on."""
        self.cancellation.cancel()
        self.fleet.close()
        with self._lock:
            known, self._clients = self._clients, {}
        for loop, clients in known.items():
            for client in clients.values():
                if loop is asyncio.get_running_loop():
                    await client.close()
                else:
                    close_in(loop, client)

    async def _execute(self, command: Command, route: Route) -> Any:
        self.cancellation.check()
        if isinstance(command, Sleep):
            return await self.cancellation.sleep_in_loop(command.seconds)
        if isinstance(command, Failed):
            return route.note_failure(command.error)
        if not self.fleet.is_known:
            await asyncio.to_thread(self.fleet.look_up)
        if isinstance(command, Pick):
            return route.pick()
        member = route.member
        try:
            answer = await getattr(self.open_client(member), command.method)(
                **command.arguments, headers=self._connection.headers, client_timeout=command.timeout_seconds
            )
        except asyncio.CancelledError:
            # gRPC also raises it in calls that close() or drop() ended; only a cancelled task may see it.
            task = asyncio.current_task()
            if not (task and task.cancelling()):
                self.cancellation.check()
                _check_cut(member)
            raise
        except Exception:
            self.cancellation.check()
            _check_cut(member)
            raise
        member.note_answer()
        return answer


def client_arguments(fleet: Fleet, member: Member) -> dict[str, Any]:
    """Arguments of tritonclient's InferenceServerClient, the same for sync and async."""
    return {
        "url": member.target.address,
        "creds": fleet.credentials,
        "channel_args": fleet.connection.channel_options(member.target),
    }


def find_cut(member: Member) -> InferenceServerException | None:
    """What gRPC raises where nobody listens, if the calls of this member were ended."""
    if not member.cut:
        return None
    return InferenceServerException(
        f"it has not answered its calls, nor a check of the model, for {ANSWER_SECONDS:g} s",
        status=str(grpc.StatusCode.UNAVAILABLE),
    )


def _check_cut(member: Member) -> None:
    if (failure := find_cut(member)) is not None:
        raise failure


def _check_open(cancellation: Cancellation, connection: Connection) -> None:
    if cancellation.cancelled:
        raise InvalidRequest("this classifier is closed; make a new one", model=connection.model)


def close_in(loop: asyncio.AbstractEventLoop, opened: Any) -> None:
    """Close a client, or a stream, in its event loop, from any thread."""
    # The loop keeps the task until it has run, so nobody waits for the loop here.
    call_soon(loop, lambda: loop.create_task(opened.close()))
