"""A thread that notices which members of a fleet stop answering and which come back, and looks up names anew."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from clipserve.fleet.members import Absence, Member, Members
from clipserve.fleet.probe import Finding, Probe
from clipserve.fleet.targets import DnsName, Target

TICK_SECONDS = 0.1
# A member with calls in flight that has answered nothing for QUIET_SECONDS is asked whether its model is ready. If it
# does not answer within SILENT_SECONDS, it gets no calls. Together that is less than a second.
QUIET_SECONDS = 0.4
SILENT_SECONDS = 0.4
# How often names are looked up while calls are made; at once after a member was left out, but not more often than this.
LOOK_UP_SECONDS = 5.0
LOOK_UP_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Watched(Protocol):
    """What a watcher needs of a fleet."""

    members: Members
    names: Sequence[DnsName]

    def open_probe(self, target: Target) -> Probe: ...

    def cut(self, member: Member) -> None:
        """Leave the member out and end its calls, which another member can take."""

    def drop(self, member: Member) -> None:
        """Close the connections to a member without calls."""

    def take_names(self, found: Sequence[Sequence[Target]]) -> None:
        """The servers that the names have now."""


class Watcher:
    """Watches a fleet while calls are made or a member is left out; sleeps otherwise.

    The thread ends with `close`, or when nothing refers to the fleet any longer.
    """

    def __init__(self, fleet: Watched) -> None:
        self._round = Round()
        self._awake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._fleet = weakref.ref(fleet, lambda _: self.close())

    def wake(self) -> None:
        """A call begins."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closed.is_set():
                    self._thread = threading.Thread(target=self._watch, name="clipserve-fleet", daemon=True)
                    self._thread.start()
        self._awake.set()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._awake.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._awake.clear()
            fleet = self._fleet()
            if fleet is None:
                break
            try:
                rest = self._round.go(fleet)
            except Exception:  # such as no further thread for a look-up; without this one no member would come back
                log.exception("the servers of a fleet could not be watched; the next attempt follows")
                rest = False
            del fleet
            if rest:
                self._awake.wait()
            else:
                self._closed.wait(TICK_SECONDS)
        self._round.close()


class Round:
    """What a watcher does again and again."""

    def __init__(self) -> None:
        self._probes: dict[Member | Absence, Probe] = {}
        self._asked: dict[Member, float] = {}
        self._look_up: Future[list[list[Target]]] | None = None
        self._looked_up = float("-inf")

    def go(self, fleet: Watched) -> bool:
        """Look at every member once. Returns whether there is nothing to watch."""
        now = time.monotonic()
        present, absent = fleet.members.present, fleet.members.absent
        for left in self._probes.keys() - {*present, *absent}:
            self._forget(left)
        for member in present:
            self._check_present(fleet, member, now)
        for absence in absent:
            self._check_absent(fleet, absence, now)
        self._check_names(fleet, now, lost=bool(absent))
        return not (absent or any(member.in_flight for member in present) or self._look_up)

    def close(self) -> None:
        """Close every connection."""
        for probed in [*self._probes]:
            self._forget(probed)

    def _check_present(self, fleet: Watched, member: Member, now: float) -> None:
        probe = self._probes.get(member)
        if probe is None or not probe.asked:
            others = [other for other in fleet.members.present if other is not member]
            # Calls of a silent member end only where another one is known to answer.
            matters = member.in_flight or any(other.silent for other in others)
            if matters and now - member.quiet_since > QUIET_SECONDS:
                self._ask(fleet, member, now)
        elif probe.pending:
            member.silent = now - max(self._asked[member], member.heard) > SILENT_SECONDS
        else:
            asked = self._asked[member]
            match probe.take():
                case Finding.READY:
                    member.note_alive()
                case Finding.SILENT if any(other.heard > asked for other in fleet.members.present):
                    self._forget(member)
                    fleet.cut(member)
                case Finding.SILENT:
                    self._forget(member)
                case finding:
                    self._forget(member)
                    fleet.members.leave_out(member, finding.name.lower())
                    if not member.in_flight:
                        fleet.drop(member)

    def _check_absent(self, fleet: Watched, absence: Absence, now: float) -> None:
        probe = self._probes.get(absence)
        if probe is None:
            if now >= absence.due:
                self._ask(fleet, absence, now)
        elif not probe.pending:
            ready = probe.take() is Finding.READY
            self._forget(absence)  # gRPC tries an old connection again only after a pause of its own
            if ready:
                fleet.members.admit(absence)
            else:
                absence.wait(now)

    def _check_names(self, fleet: Watched, now: float, *, lost: bool) -> None:
        if self._look_up is None:
            pause = LOOK_UP_PAUSE_SECONDS if lost else LOOK_UP_SECONDS
            if fleet.names and now - self._looked_up >= pause:
                self._looked_up = now
                names = [*fleet.names]
                self._look_up = run_beside(lambda: [name.look_up() for name in names])
        elif self._look_up.done():
            found, self._look_up = self._look_up.result(), None
            fleet.take_names(found)

    def _ask(self, fleet: Watched, asked: Member | Absence, now: float) -> None:
        probe = self._probes.get(asked) or self._probes.setdefault(asked, fleet.open_probe(asked.target))
        probe.ask()
        if isinstance(asked, Member):
            self._asked[asked] = now

    def _forget(self, asked: Member | Absence) -> None:
        self._probes.pop(asked).close()
        if isinstance(asked, Member):
            self._asked.pop(asked, None)


def run_beside(work: Callable[[], list[list[Target]]]) -> Future[list[list[Target]]]:
    """Run `work` in a thread that nothing waits for: a name server may take half a minute to be silent."""
    future: Future[list[list[Target]]] = Future()
    threading.Thread(target=lambda: future.set_result(work()), name="clipserve-dns", daemon=True).start()
    return future
