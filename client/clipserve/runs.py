"""A run over many videos, checked and ready to begin: what the two streams have in common."""

from dataclasses import dataclass

from clipserve.cancellation import Cancellation
from clipserve.channel import Settings, check_patience
from clipserve.entries import Entries
from clipserve.errors import InvalidRequest
from clipserve.failures import Call
from clipserve.patience import Patience
from clipserve.progress import open_progress
from clipserve.question import Options, Question, read_options
from clipserve.sources import Source, count_entries, read_entries
from clipserve.tally import OnError, Tally


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
) -> Run:
    """Check everything, and open the source.

    Raises:
        InvalidRequest: an argument is not what is allowed, or this is no source.
    """
    question, timeout_seconds = read_options(options)
    if isinstance(parallel, bool) or not isinstance(parallel, int) or parallel < 1:
        raise InvalidRequest(f"parallel is a whole number from 1 on, got {parallel!r}")
    return Run(
        entries=read_entries(source),
        question=question,
        call=settings.start_call(timeout_seconds),
        patience=Patience(check_patience(patience_seconds)),
        tally=Tally(on_error, open_progress(progress, count_entries(source))),
        cancellation=Cancellation(),
        parallel=parallel,
        ordered=ordered,
    )
