"""The windows of one video as they come: iterate over them."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from tritonclient.utils import InferenceServerException

from clipserve.cancellation import Cancellation, call_soon
from clipserve.connection import Connection
from clipserve.fleet.fleet import Fleet
from clipserve.fleet.members import Member
from clipserve.protocol import Failed, Pick, Sleep, name_failure
from clipserve.timeline.progress import Progress
from clipserve.timeline.protocol import Commands, Deliver, Explain, Open, Receive, Send
from clipserve.timeline.segments import Segment, SegmentOptions, segments
from clipserve.timeline.stream import AsyncStream, Stream
from clipserve.timeline.window import VideoFacts, Window
from clipserve.transport import AsyncTransport, Transport, close_in, find_cut

CLOSED = "the timeline was closed before its last window"


class Timeline:
    """The windows of one video, in order, as the server answers them.

    >>> for window in classifier.timeline("match.mp4"):
    ...     print(window.start_seconds, window.top)

    Nothing is sent before the first window is requested. The server works at most 64 windows ahead of those that were
    taken, so a slow caller fills no memory. Closing the timeline, leaving it as a context, Ctrl-C and closing its
    classifier end the work on the server.

    Attributes:
        video: the video's name, as in `Prediction.video`; None before the first window is requested.
        facts: what the server knows of the video; grows as windows come.
    """

    def __init__(
        self,
        begin: Callable[[Cancellation], tuple[str, Commands]],
        connection: Connection,
        fleet: Fleet,
        progress: Progress,
    ) -> None:
        self.video: str | None = None
        self.facts = VideoFacts()
        self._begin = begin
        self._progress = progress
        self._cancellation = Cancellation(CLOSED, model=connection.model)
        # A transport of its own, for short questions: closing it ends them, and no others.
        self._transport = Transport(connection, self._cancellation, fleet)
        self._route = fleet.open_route()
        self._protocol: Commands | None = None
        self._stream: Stream | None = None
        self._ended = False  # by its last window or an error, not by close()
        fleet.add(self)

    def drop(self, member: Member) -> None:
        """End the stream if it comes from this member, which does not answer."""
        stream = self._stream
        if stream is not None and stream.member is member:
            stream.cancel()

    def close(self) -> None:
        """End the work on the server; windows that were not taken are lost. May be called twice, and by any thread."""
        self._transport.close()
        if (stream := self._stream) is not None:
            stream.close()
        self._progress.close()

    def segments(self, options: SegmentOptions | None = None, **changes: object) -> list[Segment]:
        """The windows that are left, joined into labelled segments; see `clipserve.segments`."""
        with self:
            return segments(self, options, **changes)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Window:
        if self._ended:
            raise StopIteration
        try:
            window = self._take()
        except BaseException:  # Ctrl-C, too
            self._ended = not self._cancellation.cancelled
            self._finish()
            raise
        if window is None:
            self._ended = True
            self._finish()
            raise StopIteration
        self._progress.show(self.video, window, self.facts)
        return window

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def __del__(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self.close()
        if self._protocol is not None:
            self._protocol.close()
        self._drop_stream()
        self._route.release()

    def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _take(self) -> Window | None:
        """The next window; None at the end."""
        self._cancellation.check()
        if self._protocol is None:
            self.video, self._protocol = self._begin(self._cancellation)
            self._progress.begin(self.video)
        try:
            command = self._protocol.send(None)
            while not isinstance(command, Deliver):
                try:
                    answer = self._execute(command)
                except InferenceServerException as exc:
                    self._cancellation.check()
                    command = self._protocol.throw(find_cut(self._route.member) or exc)
                else:
                    command = self._protocol.send(answer)
        except StopIteration:
            return None
        self.facts = command.facts
        return command.window

    def _execute(self, command: Any) -> Any:
        self._cancellation.check()
        match command:
            case Open(message):
                self._drop_stream()
                self._stream = Stream(self._transport.fleet, self._route.member, message)
            case Send(message):
                assert self._stream is not None
                self._stream.send(message)
            case Receive(seconds):
                assert self._stream is not None
                with self._cancellation.calls(self._stream.cancel):
                    response = self._stream.receive(seconds)
                self._route.member.note_answer()
                return response
            case Explain(failure, call):
                self._drop_stream()
                return self._transport.run(name_failure(failure, call), self._route)
            case Pick():
                return self._route.pick()
            case Failed(error):
                return self._route.note_failure(error)
            case Sleep(seconds):
                self._cancellation.sleep(seconds)
        return None


class AsyncTimeline:
    """`Timeline` for asyncio: `async for window in classifier.timeline("match.mp4")`.

    It belongs to the event loop that takes its first window. Leave an unfinished one by `await timeline.close()`, by
    `async with`, or by closing its classifier.
    """

    def __init__(
        self,
        begin: Callable[[Cancellation], Any],
        connection: Connection,
        transport: AsyncTransport,
        progress: Progress,
    ) -> None:
        self.video: str | None = None
        self.facts = VideoFacts()
        self._begin = begin
        self._transport = transport
        self._route = transport.fleet.open_route()
        self._progress = progress
        self._cancellation = Cancellation(CLOSED, model=connection.model)
        self._protocol: Commands | None = None
        self._stream: AsyncStream | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False  # by its last window or an error, not by close()
        self._taking = False
        transport.fleet.add(self)

    def drop(self, member: Member) -> None:
        """End the stream if it comes from this member, which does not answer."""
        stream, loop = self._stream, self._loop
        if stream is not None and loop is not None and stream.member is member:
            call_soon(loop, stream.cancel)

    async def close(self) -> None:
        """End the work on the server; windows that were not taken are lost. May be called twice, and from any loop."""
        self._cancellation.cancel()
        self._progress.close()
        if self._loop is asyncio.get_running_loop() and not self._taking:
            await self._finish()

    async def segments(self, options: SegmentOptions | None = None, **changes: object) -> list[Segment]:
        """The windows that are left, joined into labelled segments; see `clipserve.segments`."""
        async with self:
            return segments([window async for window in self], options, **changes)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Window:
        if self._ended:
            raise StopAsyncIteration
        self._loop = self._loop or asyncio.get_running_loop()
        self._taking = True
        try:
            window = await self._take()
        except BaseException:  # a cancelled task, too
            self._ended = not self._cancellation.cancelled
            await self._finish()
            raise
        finally:
            self._taking = False
        if window is None:
            self._ended = True
            await self._finish()
            raise StopAsyncIteration
        self._progress.show(self.video, window, self.facts)
        return window

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        """Of one that was left by `break`, the server would keep the work until it gives up waiting for the client."""
        self._progress.close()
        if self._stream is not None and self._loop is not None:
            close_in(self._loop, self._stream)
        self._route.release()

    async def _finish(self) -> None:
        self._cancellation.cancel()
        self._progress.close()
        if self._protocol is not None:
            self._protocol.close()
        await self._drop_stream()
        self._route.release()

    async def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def _take(self) -> Window | None:
        """The next window; None at the end."""
        self._cancellation.check()
        if self._protocol is None:
            self.video, self._protocol = await self._begin(self._cancellation)
            self._progress.begin(self.video)
        try:
            command = self._protocol.send(None)
            while not isinstance(command, Deliver):
                try:
                    answer = await self._execute(command)
                except InferenceServerException as exc:
                    self._cancellation.check()
                    command = self._protocol.throw(find_cut(self._route.member) or exc)
                else:
                    command = self._protocol.send(answer)
        except StopIteration:
            return None
        self.facts = command.facts
        return command.window

    async def _execute(self, command: Any) -> Any:
        self._cancellation.check()
        match command:
            case Open(message):
                await self._drop_stream()
                self._stream = AsyncStream(self._transport.fleet, self._route.member, message)
            case Send(message):
                assert self._stream is not None
                self._stream.send(message)
            case Receive(seconds):
                response = await self._receive(seconds)
                self._route.member.note_answer()
                return response
            case Explain(failure, call):
                await self._drop_stream()
                return await self._transport.run(name_failure(failure, call), self._route)
            case Pick():
                if not self._transport.fleet.is_known:
                    await asyncio.to_thread(self._transport.fleet.look_up)
                return self._route.pick()
            case Failed(error):
                return self._route.note_failure(error)
            case Sleep(seconds):
                await self._cancellation.sleep_in_loop(seconds)
        return None

    async def _receive(self, seconds: float) -> Any:
        stream, loop = self._stream, asyncio.get_running_loop()
        assert stream is not None
        try:
            with self._cancellation.calls(lambda: call_soon(loop, stream.cancel)):
                return await stream.receive(seconds)
        except asyncio.CancelledError:
            # gRPC also raises it in a call that close() ended; only a cancelled task may see it.
            task = asyncio.current_task()
            if not (task and task.cancelling()):
                self._cancellation.check()
            raise
