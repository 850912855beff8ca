"""The servers that a classifier may call, watched where they are several.

gRPC's own balancing (round_robin over dns:///) in one channel is not enough: it gives a slow server as many calls as a
fast one, keeps a server that is stopped or lacks the model, and shows nobody which server a call went to. So a
transport has a connection for each member, and the choice is made here.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Self

from clipserve.connection import Connection
from clipserve.errors import ClipserveError, ServerFailed, UnexpectedAnswer
from clipserve.fleet.members import PASSING_ERRORS, Connections, Member, Members
from clipserve.fleet.probe import Probe
from clipserve.fleet.targets import DnsName, Target
from clipserve.fleet.watcher import Watcher, run_beside
from clipserve.weak_group import WeakGroup

FIRST_LOOK_UP_SECONDS = 5.0  # how long the first call waits for a name server
# A request that fails on so many members would fail on all of them; there may be a hundred.
MOST_FAILURES = 3


class Fleet:
    """The servers of one connection. Its transports share it, and so learn from each other's calls.

    With the address of one server there is nothing to choose or to watch: that server gets every call.

    Raises:
        InvalidRequest: a file of `tls` cannot be read.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.credentials: Any = connection.tls.credentials() if connection.tls else None
        parsed = {url: DnsName.parse(url) for url in connection.urls}
        self.names: Sequence[DnsName] = [name for name in parsed.values() if name]
        self._fixed = [Target(url) for url, name in parsed.items() if name is None]
        self.members = Members(() if self.names else self._fixed)
        self.is_single = not self.names and len(self._fixed) == 1
        self._transports: WeakGroup[Connections] = WeakGroup()
        self._watcher = Watcher(self)
        self._found: dict[DnsName, Sequence[Target]] = {}  # by the last look-up of each that found any
        self._looking_up = threading.Lock()
        self._first_look_up: Future[list[list[Target]]] | None = None

    @property
    def is_known(self) -> bool:
        """Whether `pick` need not wait for a name server."""
        return not self.names or bool(self.members.present or self.members.absent)

    def add(self, transport: Connections) -> None:
        """From now on this transport is told which connections to close. It is not kept alive."""
        self._transports.add(transport)

    def look_up(self) -> None:
        """Look up the names of the fleet, if that has not been done. Blocks, for some seconds at the longest."""
        if self.is_known:
            return
        with self._looking_up:
            if self._first_look_up is None:
                self._first_look_up = run_beside(lambda: [name.look_up() for name in self.names])
            looking_up = self._first_look_up
        try:
            found = looking_up.result(FIRST_LOOK_UP_SECONDS)
        except TimeoutError:
            found = []
        self.take_names(found)

    def take_names(self, found: Sequence[Sequence[Target]]) -> None:
        """The servers that the names have now, name by name. A look-up that finds nothing changes nothing."""
        self._found.update({name: some for name, some in zip(self.names, found, strict=False) if some})
        if any(found):
            targets = dict.fromkeys(target for some in self._found.values() for target in some)
            for member in self.members.replace([*self._fixed, *targets]):
                if not member.in_flight:
                    self.drop(member)
        elif not self.is_known:
            # gRPC looks the name up as well, and says best why there is no answer.
            self.members.replace([*self._fixed, *(Target(name.url) for name in self.names)])

    def open_route(self) -> "Route":
        """The way of one request."""
        return Route(self)

    def open_probe(self, target: Target) -> Probe:
        """What asks a server whether the model is ready."""
        return Probe(self.connection, target, self.credentials)

    def wake(self) -> None:
        """A call begins."""
        if not self.is_single:
            self._watcher.wake()

    def cut(self, member: Member) -> None:
        """Leave the member out and end its calls, which another member can take."""
        self.members.leave_out(member, "it answers nothing")
        member.cut = True
        self.drop(member)

    def drop(self, member: Member) -> None:
        """Close the connections to a member."""
        for transport in self._transports.alive():
            transport.drop(member)

    def close(self) -> None:
        """Stop watching."""
        self._watcher.close()


class Route:
    """The members that get the calls of one request, one after the other. Leaving the context releases the last one.

    A stream that belongs to one server takes a route, and stays with its member:

    >>> with fleet.open_route() as route:
    ...     client = transport.open_client(route.member)
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._member: Member | None = None
        self._tried: set[Target] = set()
        self._failures = 0

    @property
    def member(self) -> Member:
        """The member that has the request now; picked at the first use. May wait for a name server."""
        if self._member is None:
            self._fleet.look_up()
            self._member = self._fleet.members.pick(self._tried)
            self._fleet.wake()
        return self._member

    def pick(self) -> str:
        """Choose a member for the calls that follow; returns its address."""
        self.release()
        return self.member.target.address

    def note_failure(self, error: ClipserveError) -> bool:
        """The member failed in this way. Returns whether another member may take the request at once."""
        member = self._member
        if self._fleet.is_single or member is None or not isinstance(error, PASSING_ERRORS):
            return False
        self._fleet.members.note_failure(member, error)
        self._tried.add(member.target)
        self.release()
        self._failures += isinstance(error, ServerFailed | UnexpectedAnswer)
        if self._failures < MOST_FAILURES and self._fleet.members.has_other(self._tried, error):
            return True
        self._tried.clear()
        return False

    def release(self) -> None:
        """No call is in flight any longer."""
        member, self._member = self._member, None
        if member is not None and self._fleet.members.release(member):
            self._fleet.drop(member)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
