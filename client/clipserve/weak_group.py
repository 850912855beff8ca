"""Objects that somebody else keeps alive, and that several threads add to."""

import threading
from typing import Generic, TypeVar
from weakref import WeakSet

Item = TypeVar("Item")


class WeakGroup(Generic[Item]):
    """A WeakSet for threads: iterating over one to which another thread adds something raises RuntimeError."""

    def __init__(self) -> None:
        self._items: WeakSet[Item] = WeakSet()
        self._lock = threading.RLock()  # an object that the garbage collector deletes meanwhile may come back here

    def add(self, item: Item) -> None:
        """Know the item from now on, and do not keep it alive."""
        with self._lock:
            self._items.add(item)

    def alive(self) -> list[Item]:
        """Those that somebody keeps."""
        with self._lock:
            return [*self._items]
