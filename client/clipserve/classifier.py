"""The classifier for ordinary, blocking code."""

import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Self, Unpack
from weakref import WeakSet

from clipserve import conversations, defaults
from clipserve.batches.rows import Row
from clipserve.batches.runs import Run, plan_run
from clipserve.batches.streams import RowStream
from clipserve.batches.tally import OnError
from clipserve.channel import Settings, Tls
from clipserve.errors import ClipserveError
from clipserve.exchange import ServedModel, start_exchange
from clipserve.patience import Patience
from clipserve.question import Options, Quality, Question, Sampling, ask_for_features
from clipserve.results import Prediction
from clipserve.sources.downloads import DownloadLimits
from clipserve.sources.entries import Entry
from clipserve.sources.reading import Source
from clipserve.sources.videos import VideoSource
from clipserve.tables.embeddings import Embeddings, collect_embeddings
from clipserve.wire import Wire


class VideoClassifier:
    """Names the human actions in videos, with a model that a Triton server runs.

    >>> with VideoClassifier("x3d_m", "localhost:8001") as classifier:
    ...     prediction = classifier.classify("archery.mp4")
    >>> prediction.top.label
    'archery'

    Several threads may share one classifier: each call is a gRPC call of its own on one channel,
    and nothing else is shared. Nothing connects before the first call.

    Args:
        model: public name of a model; `models()` lists them.
        url: host:port of the server's gRPC port.
        timeout_seconds: deadline of every call, from sending to the answer.
        tls: how to encrypt; None sends everything in the clear.
        headers: sent with every call as gRPC metadata, such as {"authorization": "Bearer ..."}.
        download_limits: what fetching a video from an http(s) address may take.

    Raises:
        InvalidRequest: an argument is not what is allowed, or a file of `tls` cannot be read.
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
        self._wire = Wire(self._settings)
        self._streams: WeakSet[RowStream] = WeakSet()

    def classify(
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
        """Classify one video.

        Args:
            video: path of a video file, an http(s) address, its bytes, or a file opened with mode
                'rb' (read from its current position on).
            top_k: how many labels to return; a model with fewer returns all it has.
            features: also return the embedding, float32 [D].
            report: also return what the server did with the video.
            sampling, views, crops, start, end, quality: which part of the video the model sees, see
                `Question`.
            retry: while the server is busy, away or loading, ask again within the deadline. Off, as
                one who waits for one answer rather hears at once what is wrong.
            timeout_seconds: deadline of this call; None takes the classifier's.

        Raises:
            VideoError: the video cannot be classified.
            RequestError: an argument, the model's name or the local file is wrong.
            ServerError: the server did not answer, or answered with a failure.
        """
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
        exchange = start_exchange(video, model=self._served, question=question, limits=self._settings.download_limits)
        call = call.about(exchange.video.name)
        if retry:
            return self._wire.hold(conversations.classify_patiently(exchange, call, Patience(0)))
        return self._wire.hold(conversations.classify(exchange, call))

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
    ) -> RowStream:
        """Classify many videos, several at once; rows come as they are done.

        Args:
            source: a path, pattern, folder, http(s) address, CSV or JSON lines file, data frame, bytes, open file, or
                any iterable of these, read only as far as it is needed; see `read_entries`.
            parallel: calls under way at once.
            on_error: a video that fails becomes a row with its error ("keep"), ends the run ("raise"), or is left out
                and counted ("drop"). An unknown model and missing credentials end the run in any case.
            ordered: rows come in the order of the source; False: as they finish.
            progress: show a bar on stderr, or in the notebook; None: when stderr is a terminal, or when a notebook's
                run takes longer than a second.
            patience_seconds: how long to wait for a server that is busy, away or loading, where that is longer than a
                call's deadline. None: as long as the deadline, for a server that has answered before. See `Patience`.
            options: what to ask about each video, and `timeout_seconds`, as for `classify`.

        Raises:
            InvalidRequest: an argument is not what is allowed, or `source` is none, such as a CSV without the column
                `path`.
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
        )
        # A connection of its own: closing it is what ends blocking calls that are under way.
        wire = Wire(self._settings, run.cancellation.pause)
        stream = RowStream(run, partial(self._classify_entry, run, wire), end_calls=wire.close)
        self._streams.add(stream)
        return stream

    def embed(
        self,
        source: Source,
        *,
        parallel: int = defaults.PARALLEL,
        on_error: OnError = "drop",
        progress: bool | None = None,
        patience_seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Embeddings:
        """Feature vectors of many videos, all in one array.

        >>> embeddings = classifier.embed("videos/")
        >>> embeddings.vectors  # float32 [videos, D], in the order of embeddings.videos

        Takes what `classify_many` takes. Failures are in `failures`; with on_error="keep" they are also among the rows,
        as NaN.
        """
        stream = self.classify_many(
            source,
            parallel=parallel,
            on_error=on_error,
            progress=progress,
            patience_seconds=patience_seconds,
            **ask_for_features(options),
        )
        return collect_embeddings(stream.table())

    def models(self) -> list[str]:
        """Names of the models that are ready to take videos, sorted.

        Raises:
            AccessDenied: the server keeps the list for those with a key; the message names its header.
            ServerError: the server did not answer, or answered with a failure.
        """
        return self._wire.hold(conversations.list_models(self._settings.start_call(None)))

    def wait_until_ready(self, *, timeout_seconds: float = defaults.READY_TIMEOUT_SECONDS) -> None:
        """Wait until the server answers and the model, with every model it is made of, is ready.

        Raises:
            UnknownModel: the server answers, and its repository has no such model.
            ModelNotReady, ServerUnavailable, DeadlineExceeded: time ran out; says what stood in
                the way last.
            AccessDenied, ServerFailed: waiting longer would not help.
        """
        call = self._settings.start_call(timeout_seconds)
        self._wire.hold(conversations.wait_until_ready(call))

    def close(self) -> None:
        """Close the connection. Calls under way end with RequestCancelled."""
        for stream in list(self._streams):
            stream.close()
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VideoClassifier({self.model!r}, {self._settings.url!r})"

    def _classify_entry(self, run: Run, wire: Wire, entry: Entry) -> Row:
        """All that one video of a run needs, in one thread."""
        if isinstance(entry.video, ClipserveError):
            return entry.fail(entry.video)
        start = time.perf_counter()
        try:
            exchange = start_exchange(
                entry.video,
                model=self._served,
                question=run.question,
                limits=self._settings.download_limits,
                cancellation=run.cancellation,
            )
            start = time.perf_counter()
            conversation = conversations.classify_patiently(exchange, run.call.about(entry.name), run.patience)
            prediction = wire.hold(conversation)
        except ClipserveError as error:
            return entry.fail(error, (time.perf_counter() - start) * 1000)
        return entry.answer(prediction, (time.perf_counter() - start) * 1000)
