"""A source that is read in a thread, a few entries ahead, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque

from clipserve.sources.entries import Entries, Entry


class Feed:
    """Entries for asyncio: taken as they come, and waited for without holding up the loop.

    The thread reads no further than `room` entries ahead of those that were let go. It is a daemon: a source that
    hangs, on a pipe or a dead disk, keeps no program from ending, as a thread of asyncio's own pool would.
    """

    def __init__(self, entries: Entries, room: int) -> None:
        self._entries: Entries = entries
        self._room = threading.Semaphore(room)
        # The thread is woken for several entries at once: half as much work for the processor as one by one (measured).
        self._batch = max(1, room // 2)
        self._free = 0
        self._arrived: deque[Entry] = deque()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Future[None] | None = None
        self._telling = False
        self._over = False
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether every entry was taken, and none will come."""
        return self._over and not self._arrived

    def take(self) -> Entry | None:
        """The next entry that is there; None when there is none, or none yet. Call it in the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            # As asyncio.to_thread does: the source sees the context of who asks for rows.
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._read,), name="clipserve source", daemon=True).start()
        return self._arrived.popleft() if self._arrived else None

    def let_go(self) -> None:
        """One entry that was taken is done with: there is room for another."""
        self._free += 1
        if self._free == self._batch:
            self._room.release(self._free)
            self._free = 0

    def news(self) -> asyncio.Future[None]:
        """Done as soon as there is something to take, or the source is at its end, or this is closed."""
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
            if self._arrived or self._over or self._closed:
                self._news.set_result(None)
        return self._news

    def check(self) -> None:
        """Raise what ended the source before its end."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Read no further: the thread ends with the entry that it is at. From any thread."""
        self._closed = True
        self._arrived.clear()
        self._room.release()
        self._tell()

    def _read(self) -> None:
        while not self._over and not self._closed:
            self._room.acquire()
            try:
                entry = None if self._closed else next(self._entries, None)
            except BaseException as error:  # nobody would hear of it in this thread
                self._error = error
                entry = None
            if entry is None:
                self._over = True
            else:
                self._arrived.append(entry)
            self._tell()
        # Not held any longer than they are of use: entries may hold whole videos.
        self._entries = iter(())
        if self._closed:
            self._arrived.clear()

    def _tell(self) -> None:
        """Wake who waits for news. Several calls in a row wake the loop once."""
        if self._loop is None or self._telling:
            return
        self._telling = True
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._telling = False
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
