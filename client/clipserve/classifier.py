"""The classifier for ordinary, blocking code.

The way of one call: options.py checks the arguments, request.py reads the video and builds the request, protocol.py
decides which calls the server gets, transport.py makes them, request.py parses the response into a Prediction
(results.py). error_mapping.py turns a failed call into an error of errors.py; retry.py decides whether to try again.
"""

import time
from functools import partial
from typing import Self

from clipserve import protocol
from clipserve.arguments import takes
from clipserve.connection import Connection
from clipserve.contract import ClipContract
from clipserve.errors import ClipserveError
from clipserve.options import ClassifyArguments, EmbedArguments, RunArguments
from clipserve.request import ServedModel, read_request
from clipserve.results import Prediction, Row
from clipserve.retry import RetryPolicy
from clipserve.runs.run import Run, plan_run
from clipserve.runs.streams import RowStream
from clipserve.sources.entries import Entry
from clipserve.sources.source import read_entries
from clipserve.tables.embeddings import Embeddings, collect_embeddings
from clipserve.timeline.many import Part, Parts, TimelineRows
from clipserve.timeline.opening import open_rows, open_timeline
from clipserve.timeline.options import TimelineArguments, TimelineRunArguments
from clipserve.timeline.timelines import Timeline
from clipserve.transport import Transport
from clipserve.weak_group import WeakGroup


class VideoClassifier:
    """Names the human actions in videos, with a model that a Triton server runs.

    >>> with VideoClassifier("x3d_m", "localhost:8001") as classifier:
    ...     prediction = classifier.classify("archery.mp4")
    >>> prediction.top.label
    'archery'

    Several threads may share one classifier. It connects at the first call. With the addresses of several servers, each
    call goes to the server with the fewest calls in flight. A server that dies, stops or lacks the model gets no calls
    until it is ready again.
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
        self._transport = Transport(connection)
        self._streams: WeakGroup[RowStream | Timeline | TimelineRows] = WeakGroup()

    @takes(ClassifyArguments)
    def classify(self, arguments: ClassifyArguments) -> Prediction:
        """Classify one video.

        Raises:
            VideoError: the video cannot be classified.
            RequestError: an argument, the model's name or the local file is wrong, or the classifier is closed.
            ServerError: the server did not answer, or answered with a failure.
        """
        self._transport.check_open()
        call = self._connection.start_call(arguments.timeout_seconds)
        request = read_request(
            arguments.video,
            self._served_model,
            arguments,
            self._connection.download_limits,
            self._transport.cancellation,
        )
        retry = RetryPolicy(0) if arguments.retry else None
        return self._transport.run(protocol.classify(request, call.about(request.video.name), retry))

    @takes(RunArguments)
    def classify_many(self, arguments: RunArguments) -> RowStream:
        """Classify many videos, several at a time; returns a stream of rows.

        Raises:
            InvalidRequest: an argument is not allowed, such as a CSV file without the column `path`, or the
                classifier is closed.
        """
        self._transport.check_open()
        run = plan_run(arguments, self._connection)
        # Connections of its own: closing them ends the run's blocking calls, and no others.
        transport = Transport(self._connection, run.cancellation, self._transport.fleet)
        stream = RowStream(run, partial(self._classify_entry, run, transport), end_calls=transport.close)
        self._streams.add(stream)
        return stream

    @takes(EmbedArguments)
    def embed(self, arguments: EmbedArguments) -> Embeddings:
        """Feature vectors of many videos, all in one array.

        >>> embeddings = classifier.embed("videos/")
        >>> embeddings.vectors  # float32 [videos, D], in the order of embeddings.videos

        Videos that failed are in `embeddings.failures`.

        Raises:
            InvalidRequest: as `classify_many`.
        """
        return collect_embeddings(self.classify_many(**arguments.for_run()).table())

    @takes(TimelineArguments)
    def timeline(self, arguments: TimelineArguments) -> Timeline:
        """Find out when which action happens in a video: labels each window, as soon as the server answers it.

        >>> for window in classifier.timeline("match.mp4", window=2, step=1):
        ...     print(window.start_seconds, window.end_seconds, window.top)

        The client sends the video once. Window i begins i steps after the start. The last window is the last one that
        begins before the end of the video, or before `end`; it ends there. A video shorter than a window has one
        window. The scores of a window are those of `classify` with its start and end and the same options. Errors of
        the video or of the server are raised when the windows are taken.

        Raises:
            InvalidRequest: an argument is not allowed, or the classifier is closed.
        """
        self._transport.check_open()
        timeline = open_timeline(arguments, self._connection, self._transport.fleet)
        self._streams.add(timeline)
        return timeline

    @takes(TimelineRunArguments)
    def timeline_many(self, arguments: TimelineRunArguments) -> TimelineRows:
        """The windows of many videos, several videos at a time.

        >>> for row in classifier.timeline_many("matches/"):
        ...     print(row.video, row.window or row.error or "complete")

        Raises:
            InvalidRequest: as `classify_many`.
        """
        return self.continue_timelines((Part(*item) for item in enumerate(read_entries(arguments.source))), arguments)

    def continue_timelines(self, parts: Parts, arguments: TimelineRunArguments) -> TimelineRows:
        """As `timeline_many`, for videos of which some windows are known. `arguments.source` is not read.

        Raises:
            InvalidRequest: the classifier is closed.
        """
        self._transport.check_open()
        rows = open_rows(arguments, self._connection, self._transport.fleet, parts)
        self._streams.add(rows)
        return rows

    def models(self) -> list[str]:
        """The sorted names of the models that are ready.

        Raises:
            AccessDenied: the server gives the list only to clients with a key; the message names its header.
            ServerError: the server did not answer, or answered with a failure.
        """
        self._transport.check_open()
        return self._transport.run(protocol.list_models(self._connection.start_call()))

    def model_version(self) -> str | None:
        """The version of the model's network that answers now, such as "2"; None if the server does not say.

        Raises:
            UnknownModel: the server has no such model.
            AccessDenied: the server gives configs only to clients with a key.
            ServerError: the server did not answer, or answered with a failure.
        """
        self._transport.check_open()
        return self._transport.run(protocol.read_version(self._connection.start_call()))

    def contract(self) -> ClipContract:
        """The clip contract of the model: its clip, classes, normalisation, licences and sources.

        >>> classifier.contract().frames
        16

        Raises:
            UnknownModel: the server has no such model.
            UnexpectedAnswer: the model has no contract, because an older version exported it.
            AccessDenied, ServerError: as `models`.
        """
        self._transport.check_open()
        return self._transport.run(protocol.read_contract(self._connection.start_call()))

    def wait_until_ready(self, *, timeout_seconds: float = protocol.READY_TIMEOUT_SECONDS) -> None:
        """Wait until the server answers, and the model and each of its steps are ready.

        Raises:
            UnknownModel: the server's repository has no such model.
            ModelNotReady, ServerUnavailable, DeadlineExceeded: the time is over; the message says what was missing.
            AccessDenied, ServerFailed: waiting longer would not help.
            RequestCancelled: the classifier was closed.
        """
        self._transport.check_open()
        self._transport.run(protocol.wait_until_ready(self._connection.start_call(timeout_seconds)))

    def close(self) -> None:
        """Close the connection. Calls in flight end with RequestCancelled. Later calls raise InvalidRequest."""
        for stream in self._streams.alive():
            stream.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VideoClassifier({self.model!r}, {self._connection.shown_url!r})"

    def _classify_entry(self, run: Run, transport: Transport, entry: Entry) -> Row:
        """All that one video of a run needs, in one thread."""
        if isinstance(entry.video, ClipserveError):
            return entry.fail(entry.video)
        start = time.perf_counter()
        try:
            request = read_request(
                entry.video, self._served_model, run.options, self._connection.download_limits, run.cancellation
            )
            start = time.perf_counter()
            prediction = transport.run(protocol.classify(request, run.call.about(entry.name), run.retry))
        except ClipserveError as error:
            return entry.fail(error, (time.perf_counter() - start) * 1000)
        return entry.answer(prediction, (time.perf_counter() - start) * 1000)
