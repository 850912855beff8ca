"""Both classifiers behind one interface, so that one test serves both."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from clipserve import AsyncVideoClassifier, VideoClassifier

KINDS = ("sync", "async")


@contextmanager
def connecting(kind: str, server: Any) -> Iterator[Callable[..., Any]]:
    """A function that makes a classifier of this kind for a fake server, or for another url; closed after the block."""
    opened: list[Any] = []

    def make(model: str = "x3d_m", url: str | None = None, **options: Any) -> Any:
        opened.append((VideoClassifier if kind == "sync" else Awaited)(model, url or server.url, **options))
        return opened[-1]

    yield make
    server.release.set()
    for classifier in opened:
        (classifier.close if kind == "sync" else classifier.finish)()


class Awaited:
    """An AsyncVideoClassifier whose methods block."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._inner = AsyncVideoClassifier(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def block(*arguments: Any, **options: Any) -> Any:
            async def run() -> Any:
                answer = method(*arguments, **options)
                return AwaitedRows(self._runner, answer) if hasattr(answer, "__anext__") else await answer

            return self._runner.run(run())

        return block

    def finish(self) -> None:
        self._runner.run(self._inner.close())
        self._runner.close()


class AwaitedRows:
    """The rows or windows of a run for asyncio; its methods block."""

    def __init__(self, runner: asyncio.Runner, inner: Any) -> None:
        self._runner, self._inner = runner, inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)  # a property, or a method to await
        return (lambda: self._runner.run(found())) if callable(found) else found

    def __enter__(self) -> "AwaitedRows":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        async def take() -> Any:
            return await anext(self._inner, None)

        if (row := self._runner.run(take())) is None:
            raise StopIteration
        return row
