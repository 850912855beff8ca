"""How a caller takes the rows of a run: one by one, until none is left, one raises, or the run is closed."""

import asyncio
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Generic, Protocol, Self, TypeVar

Item = TypeVar("Item")
Counted = TypeVar("Counted", contravariant=True)


class Record(Protocol[Counted]):
    """Counts the rows of a run."""

    def drops(self, row: Counted) -> bool:
        """Count a row. Returns whether to leave it out, or raises its error."""


class RowIterator(ABC, Generic[Item]):
    """Rows for blocking code. The last row, an error, Ctrl-C and leaving it as a context close it."""

    _record: Record[Item]
    _ended = False  # by the last row or an error, not by close()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _take(self) -> Item | None:
        """The next row; None at the end."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        try:
            while (row := self._take()) is not None:
                if not self._record.drops(row):
                    return row
        except BaseException:  # Ctrl-C, too
            self._ended = True
            self.close()
            raise
        self._ended = True
        self.close()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncRowIterator(ABC, Generic[Item]):
    """`RowIterator` for asyncio. Several tasks of one event loop may share the rows."""

    _record: Record[Item]
    _ended = False

    @cached_property
    def _turn(self) -> asyncio.Lock:
        """Of the task that takes a row."""
        return asyncio.Lock()

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def _take(self) -> Item | None:
        """The next row; None at the end."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        async with self._turn:
            try:
                while (row := await self._take()) is not None:
                    if not self._record.drops(row):
                        return row
            except BaseException:  # a cancelled task, too
                self._ended = True
                await self.close()
                raise
            self._ended = True
            await self.close()
            raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
