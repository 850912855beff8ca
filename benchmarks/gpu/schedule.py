"""Which group is measured next: models and families of runtimes share the time, so that none takes all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.gpu.plan import EXPECTED_SECONDS, FAMILIES, Cell, Group


class Budget:
    """`seconds` from now on. `clock`: another clock, for tests."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._seen: dict[tuple[str, str], float] = {}

    @property
    def left(self) -> float:
        """Seconds; below zero when the time is over."""
        return self._end - self._clock()

    def allows(self, cell: Cell, *, prepared: bool) -> bool:
        """Whether there is time for a cell. A compiler cannot be stopped: its expected time must be left."""
        return self.left > (0 if prepared else self.expect(cell))

    def expect(self, cell: Cell) -> float:
        """Seconds that its preparation may take: the longest seen, or a guess."""
        program = cell.engine.program
        return self._seen.get((cell.model, program), EXPECTED_SECONDS.get(program, 0.0))

    def add(self, cell: Cell, seconds: float) -> None:
        """Remember how long a preparation took."""
        key = (cell.model, cell.engine.program)
        self._seen[key] = max(seconds, self._seen.get(key, 0.0))


@dataclass
class Account:
    """One model in one family: its share of the time, and the groups that are still to be measured."""

    share: float  # seconds
    groups: list[Group] = field(default_factory=list)
    spent: float = 0.0

    @property
    def reserved(self) -> float:
        """Seconds that others must leave to it."""
        return max(0.0, self.share - self.spent) if self.groups else 0.0


class Schedule:
    """Groups in the order in which they are measured.

    Families follow each other; the models of a family take turns, each until its share of the time is spent. Then the
    time that is left goes to those that can use it, in the same order.

    Args:
        groups: in the order of each model and family.
        budget: the time, which is shared out now.
        expect: the seconds that a group may take to prepare.
    """

    def __init__(self, groups: Sequence[Group], budget: Budget, expect: Callable[[Group], float]) -> None:
        self._budget, self._expect = budget, expect
        by_family = sorted(groups, key=lambda group: list(FAMILIES).index(group.family))
        names = list(dict.fromkeys((group.family, group.model) for group in by_family))
        parts, seconds = sum(FAMILIES[family] for family, _ in names), budget.left
        self._accounts = {name: Account(seconds * FAMILIES[name[0]] / parts) for name in names}
        for group in groups:
            self._accounts[group.family, group.model].groups.append(group)

    def __iter__(self) -> Iterator[Group]:
        """Yield groups as long as one fits. The time until the next is asked for counts for its account."""
        while account := self._choose():
            before = self._budget.left
            yield account.groups.pop(0)
            account.spent += before - self._budget.left

    def left_out(self) -> list[Group]:
        """The groups without a turn."""
        return [group for account in self._accounts.values() for group in account.groups]

    def _choose(self) -> Account | None:
        waiting = [account for account in self._accounts.values() if account.groups]
        needs = {id(account): self._expect(account.groups[0]) for account in waiting}
        left, reserved = self._budget.left, sum(account.reserved for account in waiting)
        fitting = [account for account in waiting if needs[id(account)] < left]
        within = [account for account in fitting if account.spent + needs[id(account)] < account.share]
        if within:
            family = within[0].groups[0].family
            return min((a for a in within if a.groups[0].family == family), key=lambda account: account.spent)
        spare = (account for account in fitting if needs[id(account)] < left - (reserved - account.reserved))
        # A compiler that needs more than its share takes it from others only after these had theirs.
        return next(spare, None) or max(fitting, key=lambda account: account.reserved, default=None)
