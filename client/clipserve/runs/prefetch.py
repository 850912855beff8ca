"""Reading a source in a thread, a few entries ahead, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque

from clipserve.cancellation import call_soon
from clipserve.sources.entries import Entries, Entry


class Prefetcher:
    """Reads entries for asyncio; waiting for them does not block the loop.

    The thread reads at most `room` entries ahead of those that were released. It is a daemon: a source that hangs, on a
    pipe or a dead disk, does not keep the program from ending, as a thread of asyncio's own pool would.
    """

    def __init__(self, entries: Entries, room: int) -> None:
        self._entries: Entries = entries
        self._room = threading.Semaphore(room)
        # Waking the thread for several entries at once halves the processor time (measured).
        self._batch = max(1, room // 2)
        self._free = 0
        self._arrived: deque[Entry] = deque()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._change: asyncio.Future[None] | None = None
        self._notifying = False
        self._over = False
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether every entry was taken, and none will follow."""
        return self._over and not self._arrived

    def take(self) -> Entry | None:
        """The next entry that has been read; None if there is none, or none yet. Call it in the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            # As asyncio.to_thread does: the source runs in the context of the caller.
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._read,), name="clipserve source", daemon=True).start()
        return self._arrived.popleft() if self._arrived else None

    def release(self) -> None:
        """An entry that was taken is finished: there is room for another."""
        self._free += 1
        if self._free == self._batch:
            self._room.release(self._free)
            self._free = 0

    def change(self) -> asyncio.Future[None]:
        """Done as soon as there is an entry to take, the source has ended, or this is closed."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
            if self._arrived or self._over or self._closed:
                self._change.set_result(None)
        return self._change

    def check(self) -> None:
        """Raise the error that ended the source early."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop reading: the thread ends after the entry that it is reading. From any thread."""
        self._closed = True
        self._arrived.clear()
        self._room.release()
        self._notify()

    def _read(self) -> None:
        while not self._over and not self._closed:
            self._room.acquire()
            try:
                entry = None if self._closed else next(self._entries, None)
            except BaseException as error:  # in this thread nobody would see it
                self._error = error
                entry = None
            if entry is None:
                self._over = True
            else:
                self._arrived.append(entry)
            self._notify()
        # Entries may hold whole videos: keep none longer than needed.
        self._entries = iter(())
        if self._closed:
            self._arrived.clear()

    def _notify(self) -> None:
        """Wake whoever waits for a change. Several calls in a row wake the loop once."""
        if self._loop is None or self._notifying:
            return
        self._notifying = True
        call_soon(self._loop, self._set_change)

    def _set_change(self) -> None:
        self._notifying = False
        if self._change is not None and not self._change.done():
            self._change.set_result(None)
