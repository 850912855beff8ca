"""The classifier for asyncio: the same names, awaited."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Self, Unpack
from weakref import WeakSet

from clipserve import conversations, defaults
from clipserve.async_wire import AsyncWire
from clipserve.batches.async_streams import AsyncRowStream
from clipserve.batches.cancellation import Cancellation
from clipserve.batches.rows import Row
from clipserve.batches.runs import Run, plan_run
from clipserve.batches.tally import OnError
from clipserve.channel import Settings, Tls
from clipserve.errors import ClipserveError
from clipserve.exchange import Exchange, ServedModel, start_exchange
from clipserve.hand_over import HandOver
from clipserve.patience import Patience
from clipserve.question import Options, Quality, Question, Sampling, ask_for_features
from clipserve.results import Prediction
from clipserve.sources.downloads import DownloadLimits
from clipserve.sources.entries import Entry
from clipserve.sources.reading import Source, read_entries_later
from clipserve.sources.videos import VideoSource
from clipserve.tables.embeddings import Embeddings, collect_embeddings


class AsyncVideoClassifier:
    """`VideoClassifier` for asyncio: the same arguments, methods and errors.

    >>> async with AsyncVideoClassifier("x3d_m", "localhost:8001") as classifier:
    ...     predictions = await asyncio.gather(*map(classifier.classify, paths))

    Several event loops may share one, one after the other or each in a thread of its own; the rows of one
    `classify_many` are taken in one loop. Cancelling a task cancels its call.
    """

    def __init__(
        self,
        model: str = defaults.MODEL,
        url: str = defaults.URL,
        *,
        timeout_seconds: float = defaults.TIMEOUT_SECONDS,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        download_limits: DownloadLimits | None = None,
    ) -> None:
        self.model = model
        self._served = ServedModel(model)
        self._settings = Settings(
            model=model,
            url=url,
            tls=tls,
            headers=headers or {},
            timeout_seconds=timeout_seconds,
            download_limits=download_limits,
        )
        self._wire = AsyncWire(self._settings)
        self._streams: WeakSet[AsyncRowStream] = WeakSet()

    async def classify(
        self,
        video: VideoSource,
        *,
        top_k: int = defaults.TOP_K,
        features: bool = False,
        report: bool = False,
        sampling: Sampling = defaults.SAMPLING,
        views: int | None = None,
        crops: int | None = None,
        start: float | None = None,
        end: float | None = None,
        quality: Quality = defaults.QUALITY,
        retry: bool = False,
        timeout_seconds: float | None = None,
    ) -> Prediction:
        """Classify one video; see `VideoClassifier.classify`. Files are read in a thread."""
        call = self._settings.start_call(timeout_seconds)
        question = Question(
            top_k=top_k,
            features=features,
            report=report,
            sampling=sampling,
            views=views,
            crops=crops,
            start=start,
            end=end,
            quality=quality,
        )
        exchange = await self._start_exchange(video, question, Cancellation())
        call = call.about(exchange.video.name)
        if retry:
            return await self._wire.hold(conversations.classify_patiently(exchange, call, Patience(0)))
        return await self._wire.hold(conversations.classify(exchange, call))

    def classify_many(
        self,
        source: Source,
        *,
        parallel: int = defaults.PARALLEL,
        on_error: OnError = "keep",
        ordered: bool = True,
        progress: bool | None = None,
        patience_seconds: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncRowStream:
        """Classify many videos, several at once; see `VideoClassifier.classify_many`.

        >>> async for row in classifier.classify_many("videos/"): ...

        The source is read in a thread, so that the event loop never waits for a disk: a CSV without the column `path`
        is an error of the first row.
        """
        self._wire.check_open()
        run = plan_run(
            source,
            self._settings,
            options,
            parallel=parallel,
            on_error=on_error,
            ordered=ordered,
            progress=progress,
            patience_seconds=patience_seconds,
            read=read_entries_later,
        )
        stream = AsyncRowStream(run, partial(self._classify_entry, run))
        self._streams.add(stream)
        return stream

    async def embed(
        self,
        source: Source,
        *,
        parallel: int = defaults.PARALLEL,
        on_error: OnError = "drop",
        progress: bool | None = None,
        patience_seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Embeddings:
        """Feature vectors of many videos; see `VideoClassifier.embed`."""
        stream = self.classify_many(
            source,
            parallel=parallel,
            on_error=on_error,
            progress=progress,
            patience_seconds=patience_seconds,
            **ask_for_features(options),
        )
        return collect_embeddings(await stream.table())

    async def models(self) -> list[str]:
        """Names of the models that are ready to take videos; see `VideoClassifier.models`."""
        return await self._wire.hold(conversations.list_models(self._settings.start_call(None)))

    async def wait_until_ready(self, *, timeout_seconds: float = defaults.READY_TIMEOUT_SECONDS) -> None:
        """Wait for the server and the model; see `VideoClassifier.wait_until_ready`."""
        call = self._settings.start_call(timeout_seconds)
        await self._wire.hold(conversations.wait_until_ready(call))

    async def close(self) -> None:
        """Close the connections. Calls under way end with RequestCancelled, those of other event loops, too."""
        for stream in list(self._streams):
            await stream.close()
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncVideoClassifier({self.model!r}, {self._settings.url!r})"

    async def _start_exchange(self, video: VideoSource, question: Question, cancellation: Cancellation) -> Exchange:
        """Read the video in a thread, which ends when the waiting task is cancelled."""
        read = partial(
            start_exchange,
            video,
            model=self._served,
            question=question,
            limits=self._settings.download_limits,
            cancellation=cancellation,
        )
        found: HandOver[Exchange] = HandOver()
        try:
            await asyncio.to_thread(found.fill, read)
            return found.take()
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        finally:
            found.drop()

    async def _classify_entry(self, run: Run, entry: Entry) -> Row:
        """All that one video of a run needs."""
        if isinstance(entry.video, ClipserveError):
            return entry.fail(entry.video)
        start = time.perf_counter()
        try:
            exchange = await self._start_exchange(entry.video, run.question, run.cancellation)
            start = time.perf_counter()
            conversation = conversations.classify_patiently(exchange, run.call.about(entry.name), run.patience)
            prediction = await self._wire.hold(conversation)
        except ClipserveError as error:
            return entry.fail(error, (time.perf_counter() - start) * 1000)
        return entry.answer(prediction, (time.perf_counter() - start) * 1000)
