"""A run over many videos, checked and ready to begin: what the two streams have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from clipserve.amounts import read_whole
from clipserve.batches.cancellation import Cancellation
from clipserve.batches.progress import open_progress
from clipserve.batches.tally import OnError, Tally
from clipserve.channel import Settings, check_patience
from clipserve.errors import InvalidRequest
from clipserve.failures import Call
from clipserve.patience import Patience
from clipserve.question import Options, Question, read_options
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.folders import Skipped
from clipserve.sources.reading import Source, count_entries, read_entries


@dataclass(frozen=True)
class Run:
    """What a run asks, of which videos, and how.

    Attributes:
        entries: the videos, read as they are needed.
        question: asked about each of them.
        call: names and deadline of each call.
        patience: how long a server that is away is asked again.
        tally: counts rows and decides about failures.
        cancellation: ends the run's calls.
        parallel: calls under way at once.
        ordered: whether rows come in the order of the source, or as they finish.
    """

    entries: Entries
    question: Question
    call: Call
    patience: Patience
    tally: Tally
    cancellation: Cancellation
    parallel: int
    ordered: bool


def plan_run(
    source: Source,
    settings: Settings,
    options: Options,
    *,
    parallel: int,
    on_error: OnError,
    ordered: bool,
    progress: bool | None,
    patience_seconds: float | None,
    read: Callable[[Source, Skipped], Entries] = read_entries,
) -> Run:
    """Check everything, and open the source by `read`.

    Raises:
        InvalidRequest: an argument is not what is allowed, or this is no source.
    """
    question, timeout_seconds = read_options(options)
    if (calls := read_whole(parallel)) is None or calls < 1:
        raise InvalidRequest(f"parallel is a whole number from 1 on, got {parallel!r}")
    tally = Tally(on_error, open_progress(progress, count_entries(source)))
    return Run(
        entries=read(source, tally.summary.skipped),
        question=question,
        call=settings.start_call(timeout_seconds),
        patience=Patience(check_patience(patience_seconds)),
        tally=tally,
        cancellation=Cancellation(),
        parallel=calls,
        ordered=ordered,
    )


class Reading:
    """Reads entries; a source that breaks in the middle is an error only when the rows before it were handed out."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._error: Exception | None = None

    def read(self) -> Entry | None:
        """The next entry; None at the end."""
        if self._error is not None:
            return None
        try:
            return next(self._entries, None)
        except Exception as error:
            self._error = error
            return None

    def check(self) -> None:
        """Raise what ended the source before its end."""
        if self._error is not None:
            raise self._error
