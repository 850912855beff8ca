"""Who is next: the time is shared out among models and families of runtimes, so that none takes all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gpu_matrix.budget import Budget
from gpu_matrix.cells import FAMILIES, Group


@dataclass
class Account:
    """One model in one family: its part of the time, and what it is still to measure."""

    share: float  # seconds
    groups: list[Group] = field(default_factory=list)
    spent: float = 0.0

    @property
    def owed(self) -> float:
        """Seconds that others must leave to it."""
        return max(0.0, self.share - self.spent) if self.groups else 0.0


class Turns:
    """Groups in the order in which they are measured.

    Families come one after the other, the models of a family in turns, each until its part of the time is spent. What
    is left then goes to whoever can use it, in the same order.

    Args:
        groups: of each model and family in their order.
        budget: the time there is, which is shared out now.
        need: the seconds that a group may take to prepare.
    """

    def __init__(self, groups: Sequence[Group], budget: Budget, need: Callable[[Group], float]) -> None:
        self._budget, self._need = budget, need
        by_family = sorted(groups, key=lambda group: list(FAMILIES).index(group.family))
        names = list(dict.fromkeys((group.family, group.model) for group in by_family))
        parts, seconds = sum(FAMILIES[family] for family, _ in names), budget.left
        self._accounts = {name: Account(seconds * FAMILIES[name[0]] / parts) for name in names}
        for group in groups:
            self._accounts[group.family, group.model].groups.append(group)

    def __iter__(self) -> Iterator[Group]:
        """The next group, as long as one fits; what is spent until the next is asked for is its account's."""
        while account := self._choose():
            before = self._budget.left
            yield account.groups.pop(0)
            account.spent += before - self._budget.left

    def left_out(self) -> list[Group]:
        """Those that had no turn."""
        return [group for account in self._accounts.values() for group in account.groups]

    def _choose(self) -> Account | None:
        waiting = [account for account in self._accounts.values() if account.groups]
        needs = {id(account): self._need(account.groups[0]) for account in waiting}
        left, owed = self._budget.left, sum(account.owed for account in waiting)
        fitting = [account for account in waiting if needs[id(account)] < left]
        within = [account for account in fitting if account.spent + needs[id(account)] < account.share]
        if within:
            family = within[0].groups[0].family
            return min((a for a in within if a.groups[0].family == family), key=lambda account: account.spent)
        spare = (account for account in fitting if needs[id(account)] < left - (owed - account.owed))
        # A compiler that needs more than its part takes it from others only when these have had theirs.
        return next(spare, None) or max(fitting, key=lambda account: account.owed, default=None)
