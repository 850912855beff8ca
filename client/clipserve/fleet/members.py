"""The members of a fleet, and the choice among them.

No network: transport.py calls members, watcher.py asks how they are.
"""

import itertools
import logging
import random
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from clipserve.errors import (
    AccessDenied,
    ClipserveError,
    ModelNotReady,
    RequestCancelled,
    ServerBusy,
    ServerFailed,
    ServerUnavailable,
    UnexpectedAnswer,
    UnknownModel,
)
from clipserve.fleet.targets import Target

# Pauses before a member is tried again double from the first to the longest. Each is random between half of it and all.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_BUSY_SECONDS = 2.0  # a full queue has room again soon

_ABSENCES = (ServerUnavailable, ModelNotReady, UnknownModel)
# A member that fails at once always has the fewest calls in flight. It must not get them all.
_REFUSALS = (ServerBusy, ServerFailed, UnexpectedAnswer, AccessDenied)
# Failures that another member may not have: it is there, has room, has the model, works, or takes these credentials.
PASSING_ERRORS = (*_ABSENCES, *_REFUSALS, RequestCancelled)

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """A server that may take calls. One that was left out comes back as a new Member, with a new connection.

    Attributes:
        in_flight: calls that it has.
        picked: counts up with each call that any member gets; orders members with the same number of calls.
        heard: when it answered last; seconds of `time.monotonic`, like all times here.
        since: when it got a call while it had none.
        busy_until: until when other members come first, because it refused a call or failed.
        refusals: how many calls in a row that was.
        silent: it has calls, and does not answer a question about its model.
        gone: it takes no calls any longer.
        cut: its calls were ended, because it answers nothing.
    """

    target: Target
    in_flight: int = 0
    picked: int = 0
    heard: float = 0.0
    since: float = 0.0
    busy_until: float = 0.0
    refusals: int = 0
    silent: bool = False
    gone: bool = False
    cut: bool = False

    @property
    def quiet_since(self) -> float:
        """Since when it has answered nothing, although it has calls."""
        return max(self.heard, self.since)

    def note_alive(self) -> None:
        """It answered something."""
        self.heard = time.monotonic()
        self.silent = False

    def note_answer(self) -> None:
        """It answered a call."""
        self.note_alive()
        self.refusals = 0


@dataclass(eq=False)
class Absence:
    """A server that takes no calls for now.

    Attributes:
        pause: seconds until it is asked for the next time.
        due: when that is.
    """

    target: Target
    pause: float = FIRST_PAUSE_SECONDS
    due: float = 0.0

    def wait(self, now: float) -> None:
        """Wait for one more pause, twice as long."""
        self.due = now + _vary(self.pause)
        self.pause = min(self.pause * 2, LONGEST_PAUSE_SECONDS)


class Connections(Protocol):
    """What has connections to members: a transport."""

    def drop(self, member: Member) -> None:
        """Close those to this member, and so end its calls."""


class Members:
    """The members of a fleet. Threads and event loops share it.

    Args:
        targets: the servers that are known from the beginning.
    """

    def __init__(self, targets: Iterable[Target] = ()) -> None:
        self._lock = threading.RLock()
        self._picks = itertools.count(1)
        self._present = [Member(target) for target in targets]
        random.shuffle(self._present)  # many clients with the same list begin at different members
        self._absent: list[Absence] = []

    @property
    def present(self) -> list[Member]:
        """The members that take calls."""
        with self._lock:
            return [*self._present]

    @property
    def absent(self) -> list[Absence]:
        """The servers that take none for now."""
        with self._lock:
            return [*self._absent]

    def pick(self, tried: Collection[Target] = ()) -> Member:
        """The member for the next call: the one with the fewest calls in flight, of these the one picked longest ago.

        Members that do not answer come last, then those in `tried`, then those that were busy just now. Where every
        member is left out, the one whose pause ends first gets the call.
        """
        with self._lock:
            if not self._present:
                self.admit(min(self._absent, key=lambda absence: absence.due))
            now = time.monotonic()
            member = min(
                self._present,
                key=lambda member: (
                    member.silent,
                    member.target in tried,
                    member.busy_until > now,
                    member.in_flight,
                    member.picked,
                ),
            )
            if not member.in_flight:
                member.since = now
            member.in_flight += 1
            member.picked = next(self._picks)
            return member

    def release(self, member: Member) -> bool:
        """One of its calls has ended. Returns whether nothing needs its connections any longer."""
        with self._lock:
            member.in_flight -= 1
            return member.gone and not member.in_flight

    def has_other(self, tried: Collection[Target], error: ClipserveError) -> bool:
        """Whether a member that may well answer, after this failure of another one, is not in `tried`."""
        now = time.monotonic()
        # A retry comes back to members that are busy, but there is none after a failure that is no matter of time.
        may_be_busy = not error.retryable
        with self._lock:
            return any(
                not (member.target in tried or member.silent or (member.busy_until > now and not may_be_busy))
                for member in self._present
            )

    def note_failure(self, member: Member, error: ClipserveError) -> None:
        """Leave the member out, or let others come first for a while, as the error says."""
        if isinstance(error, _ABSENCES):
            self.leave_out(member, error)
        elif isinstance(error, _REFUSALS):
            with self._lock:
                pause = min(FIRST_PAUSE_SECONDS * 2 ** min(member.refusals, 30), LONGEST_BUSY_SECONDS)
                member.refusals += 1
                member.busy_until = time.monotonic() + _vary(pause)

    def leave_out(self, member: Member, reason: object) -> None:
        """Let it take no calls until it is found ready. The calls that it has go on."""
        with self._lock:
            if member.gone:
                return
            log.info("%s is left out: %s", member.target.address, reason)
            self._remove(member)
            absence = Absence(member.target)
            absence.wait(time.monotonic())
            self._absent.append(absence)

    def admit(self, absence: Absence) -> None:
        """Let it take calls again."""
        with self._lock:
            if absence in self._absent:
                log.info("%s takes calls", absence.target.address)
                self._absent.remove(absence)
                self._present.append(Member(absence.target))

    def replace(self, targets: Collection[Target]) -> list[Member]:
        """Make these the servers of the fleet. New ones take calls once they are found ready, or at once where there
        were none. Returns the members that are gone.
        """
        with self._lock:
            first = not (self._present or self._absent)
            known = {*(member.target for member in self._present), *(absence.target for absence in self._absent)}
            gone = [member for member in self._present if member.target not in targets]
            for member in gone:
                log.info("%s is no longer among the addresses of its name", member.target.address)
                self._remove(member)
            self._absent = [absence for absence in self._absent if absence.target in targets]
            self._absent += [Absence(target) for target in targets if target not in known]
            if first:
                random.shuffle(self._absent)
                for absence in [*self._absent]:
                    self.admit(absence)
            return gone

    def _remove(self, member: Member) -> None:
        member.gone = True
        self._present.remove(member)


def _vary(pause: float) -> float:
    return pause * random.uniform(0.5, 1.0)
