"""Timelines from their arguments, for both classifiers."""

from collections.abc import Callable
from functools import partial

from clipserve.cancellation import Cancellation, run_in_thread
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.fleet.fleet import Fleet
from clipserve.sources.entries import Entries
from clipserve.sources.videos import VideoSource, read_video
from clipserve.timeline.async_many import AsyncTimelineRows
from clipserve.timeline.many import Part, Parts, RunRecord, TimelineRows
from clipserve.timeline.options import TimelineArguments, TimelineRunArguments
from clipserve.timeline.progress import Silence, open_progress
from clipserve.timeline.protocol import Commands, TimelineRetry, follow
from clipserve.timeline.request import TimelineRequest
from clipserve.timeline.timelines import AsyncTimeline, Timeline
from clipserve.transport import AsyncTransport


def open_timeline(arguments: TimelineArguments, connection: Connection, fleet: Fleet) -> Timeline:
    """See `VideoClassifier.timeline`."""
    plan = _plan(arguments, connection)
    begin = partial(plan, arguments.video, arguments.first_window)
    return Timeline(begin, connection, fleet, open_progress(arguments.progress))


def open_async_timeline(
    arguments: TimelineArguments, connection: Connection, transport: AsyncTransport
) -> AsyncTimeline:
    """See `AsyncVideoClassifier.timeline`."""
    plan = _plan(arguments, connection)
    begin = _in_thread(partial(plan, arguments.video, arguments.first_window))
    return AsyncTimeline(begin, connection, transport, open_progress(arguments.progress))


def open_rows(arguments: TimelineRunArguments, connection: Connection, fleet: Fleet, parts: Parts) -> TimelineRows:
    """See `VideoClassifier.timeline_many`."""
    plan = _plan(arguments, connection)

    def open_part(part: Part) -> Timeline:
        return Timeline(partial(plan, part.entry.video, part.first_window), connection, fleet, Silence())

    record = RunRecord(arguments.on_error, open_progress(arguments.progress))
    return TimelineRows(parts, open_part, record, arguments.parallel)


def open_async_rows(
    arguments: TimelineRunArguments, connection: Connection, transport: AsyncTransport, entries: Entries
) -> AsyncTimelineRows:
    """See `AsyncVideoClassifier.timeline_many`."""
    plan = _plan(arguments, connection)

    def open_part(part: Part) -> AsyncTimeline:
        begin = _in_thread(partial(plan, part.entry.video, part.first_window))
        return AsyncTimeline(begin, connection, transport, Silence())

    record = RunRecord(arguments.on_error, open_progress(arguments.progress))
    return AsyncTimelineRows(entries, open_part, record, arguments.parallel)


def _plan(
    arguments: TimelineArguments | TimelineRunArguments, connection: Connection
) -> Callable[..., tuple[str, Commands]]:
    """A function that reads a video, and returns its name and the protocol of its timeline."""
    call, retry = connection.start_call(arguments.timeout_seconds), TimelineRetry(arguments.retry_seconds)

    def begin(source: VideoSource, first_window: int, cancellation: Cancellation) -> tuple[str, Commands]:
        try:
            video = read_video(source, connection.download_limits, cancellation)
        except ClipserveError as error:
            error.model = connection.model  # reading does not know the model
            raise
        request = TimelineRequest(connection.model, video, arguments)
        return video.name, follow(request, call.about(video.name), first_window, retry)

    return begin


def _in_thread(begin: Callable[[Cancellation], tuple[str, Commands]]) -> Callable[[Cancellation], object]:
    def begin_later(cancellation: Cancellation) -> object:
        return run_in_thread(partial(begin, cancellation), cancellation)

    return begin_later
