"""A share of a source: the same entries on every machine, each entry on one of them."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from clipserve.errors import InvalidRequest

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1 on, of `count`: every count-th entry, by position, so that long folders mix."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidRequest(f"a shard is i/n with i from 1 to n, such as 2/4; got {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/4". Raises InvalidRequest."""
        if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)):
            raise InvalidRequest(f"a shard is i/n with i from 1 to n, such as 2/4; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def select(self, items: Iterable[Item]) -> Iterator[Item]:
        """Its share of the items."""
        return itertools.islice(items, self.number - 1, None, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
