"""The classifier for asyncio: the same methods, as coroutines."""

import time
from functools import partial
from typing import Self

from clipserve import protocol
from clipserve.arguments import takes
from clipserve.cancellation import Cancellation, run_in_thread
from clipserve.connection import Connection
from clipserve.contract import ClipContract
from clipserve.errors import ClipserveError
from clipserve.options import ClassifyArguments, EmbedArguments, RequestOptions, RunArguments
from clipserve.request import InferRequest, ServedModel, read_request
from clipserve.results import Prediction, Row
from clipserve.retry import RetryPolicy
from clipserve.runs.async_streams import AsyncRowStream
from clipserve.runs.run import Run, plan_run
from clipserve.sources.entries import Entry
from clipserve.sources.source import read_entries_later
from clipserve.sources.videos import VideoSource
from clipserve.tables.embeddings import Embeddings, collect_embeddings
from clipserve.timeline.async_many import AsyncTimelineRows
from clipserve.timeline.opening import open_async_rows, open_async_timeline
from clipserve.timeline.options import TimelineArguments, TimelineRunArguments
from clipserve.timeline.timelines import AsyncTimeline
from clipserve.transport import CLOSED, AsyncTransport
from clipserve.weak_group import WeakGroup


class AsyncVideoClassifier:
    """`VideoClassifier` for asyncio: the same arguments, methods and errors.

    >>> async with AsyncVideoClassifier("x3d_m", "localhost:8001") as classifier:
    ...     predictions = await asyncio.gather(*map(classifier.classify, paths))

    Several event loops may share one classifier, one after the other or in several threads. Take the rows of one
    `classify_many` in one loop. Cancelling a task cancels its call.
    """

    @takes(Connection)
    def __init__(self, connection: Connection) -> None:
        """Connect to a server, at the first call.

        Raises:
            InvalidRequest: an argument is not allowed, or a file of `tls` cannot be read.
        """
        self.model = connection.model
        self._connection = connection
        self._served_model = ServedModel(connection.model)
        self._transport = AsyncTransport(connection)
        self._streams: WeakGroup[AsyncRowStream | AsyncTimeline | AsyncTimelineRows] = WeakGroup()

    @takes(ClassifyArguments)
    async def classify(self, arguments: ClassifyArguments) -> Prediction:
        """Classify one video; see `VideoClassifier.classify`. Files are read in a thread."""
        self._transport.check_open()
        call = self._connection.start_call(arguments.timeout_seconds)
        cancellation = Cancellation(CLOSED)  # of this call alone: its task may be cancelled
        with self._transport.cancellation.calls(cancellation.cancel):
            request = await self._read_request(arguments.video, arguments, cancellation)
        retry = RetryPolicy(0) if arguments.retry else None
        return await self._transport.run(protocol.classify(request, call.about(request.video.name), retry))

    @takes(RunArguments)
    def classify_many(self, arguments: RunArguments) -> AsyncRowStream:
        """Classify many videos, several at a time; see `VideoClassifier.classify_many`.

        >>> async for row in classifier.classify_many("videos/"): ...

        A thread reads the source, so that the event loop never waits for a disk. So an error of the source, such as a
        CSV file without the column `path`, is raised with the first row.
        """
        self._transport.check_open()
        run = plan_run(arguments, self._connection, read_entries_later)
        stream = AsyncRowStream(run, partial(self._classify_entry, run))
        self._streams.add(stream)
        return stream

    @takes(EmbedArguments)
    async def embed(self, arguments: EmbedArguments) -> Embeddings:
        """Feature vectors of many videos; see `VideoClassifier.embed`."""
        return collect_embeddings(await self.classify_many(**arguments.for_run()).table())

    @takes(TimelineArguments)
    def timeline(self, arguments: TimelineArguments) -> AsyncTimeline:
        """Find out when which action happens in a video; see `VideoClassifier.timeline`.

        >>> async for window in classifier.timeline("match.mp4"): ...
        """
        self._transport.check_open()
        timeline = open_async_timeline(arguments, self._connection, self._transport)
        self._streams.add(timeline)
        return timeline

    @takes(TimelineRunArguments)
    def timeline_many(self, arguments: TimelineRunArguments) -> AsyncTimelineRows:
        """The windows of many videos; see `VideoClassifier.timeline_many`."""
        self._transport.check_open()
        entries = read_entries_later(arguments.source)
        rows = open_async_rows(arguments, self._connection, self._transport, entries)
        self._streams.add(rows)
        return rows

    async def models(self) -> list[str]:
        """The names of the models that are ready; see `VideoClassifier.models`."""
        self._transport.check_open()
        return await self._transport.run(protocol.list_models(self._connection.start_call()))

    async def model_version(self) -> str | None:
        """The version of the model that answers now; see `VideoClassifier.model_version`."""
        self._transport.check_open()
        return await self._transport.run(protocol.read_version(self._connection.start_call()))

    async def contract(self) -> ClipContract:
        """The clip contract of the model; see `VideoClassifier.contract`."""
        self._transport.check_open()
        return await self._transport.run(protocol.read_contract(self._connection.start_call()))

    async def wait_until_ready(self, *, timeout_seconds: float = protocol.READY_TIMEOUT_SECONDS) -> None:
        """Wait for the server and the model; see `VideoClassifier.wait_until_ready`."""
        self._transport.check_open()
        await self._transport.run(protocol.wait_until_ready(self._connection.start_call(timeout_seconds)))

    async def close(self) -> None:
        """Close the connections of all event loops; see `VideoClassifier.close`."""
        for stream in self._streams.alive():
            await stream.close()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncVideoClassifier({self.model!r}, {self._connection.shown_url!r})"

    async def _read_request(
        self, video: VideoSource, options: RequestOptions, cancellation: Cancellation
    ) -> InferRequest:
        """Read the video in a thread, whose download ends when the waiting task is cancelled."""
        limits = self._connection.download_limits
        read = partial(read_request, video, self._served_model, options, limits, cancellation)
        return await run_in_thread(read, cancellation)

    async def _classify_entry(self, run: Run, entry: Entry) -> Row:
        """All that one video of a run needs."""
        if isinstance(entry.video, ClipserveError):
            return entry.fail(entry.video)
        start = time.perf_counter()
        try:
            request = await self._read_request(entry.video, run.options, run.cancellation)
            start = time.perf_counter()
            prediction = await self._transport.run(protocol.classify(request, run.call.about(entry.name), run.retry))
        except ClipserveError as error:
            return entry.fail(error, (time.perf_counter() - start) * 1000)
        return entry.answer(prediction, (time.perf_counter() - start) * 1000)
