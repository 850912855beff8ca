"""The windows of many videos in one file, in as many runs as it takes."""

from collections.abc import Callable, Iterable

from clipserve.classifier import VideoClassifier
from clipserve.errors import ClipserveError
from clipserve.jobs.job import RETRY_SECONDS
from clipserve.retry import RETRIED_ERRORS
from clipserve.sources.entries import Entry
from clipserve.timeline.many import Part
from clipserve.timeline.options import TimelineOptions, TimelineRunArguments
from clipserve.timeline.window_file import WindowFile


def run_job(
    classifier: VideoClassifier,
    entries: Iterable[tuple[int, Entry]],
    file: WindowFile,
    *,
    options: TimelineOptions,
    parallel: int = TimelineRunArguments.parallel,
    progress: bool | None = None,
    retry_seconds: float = RETRY_SECONDS,
    on_failure: Callable[[ClipserveError], object] = lambda error: None,
) -> None:
    """Write the windows that the file lacks, each once, those of one video in order.

    Each run reads the source from its beginning: `entries` have their numbers in it. `on_failure` is called with the
    error of each video that fails.

    Raises:
        ServerUnavailable, ServerBusy, ModelNotReady: the server was away for longer than `retry_seconds`. The windows
            that came before are in the file.
        UnknownModel, AccessDenied: no video can be classified.
        InvalidRequest: the source, or one of its videos, is not the one that the file was started with.
        OSError: the file cannot be written.
    """
    parts = (Part(number, entry, file.ask_from(number)) for number, entry in file.select_missing(entries))
    arguments = TimelineRunArguments(
        (), parallel=parallel, progress=progress, retry_seconds=retry_seconds, **options.settings()
    )
    with classifier.continue_timelines(parts, arguments) as rows:
        for row in rows:
            if isinstance(row.error, RETRIED_ERRORS):  # about the server, not about this video: no line for it
                raise row.error
            file.append(row)
            if row.error is not None:
                on_failure(row.error)
