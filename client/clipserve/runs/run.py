"""A run over many videos, checked and ready to begin: what both streams need."""

from collections.abc import Callable
from dataclasses import dataclass

from clipserve.cancellation import Cancellation
from clipserve.connection import Connection
from clipserve.error_mapping import CallContext
from clipserve.options import RunArguments
from clipserve.retry import RetryPolicy
from clipserve.runs.progress import open_progress
from clipserve.runs.summary import ErrorPolicy
from clipserve.sources.entries import Entries
from clipserve.sources.folders import Skipped
from clipserve.sources.source import Source, count_entries, read_entries

# Entries that are read ahead of the next row to hand out, in multiples of the calls in flight. Then a slow video holds
# up no other, and the number of rows that wait behind it is bounded.
READ_AHEAD = 4


@dataclass(frozen=True)
class Run:
    """What one run does.

    Attributes:
        entries: the videos, read as they are needed.
        options: what to ask about each of them, and how.
        call: names and deadline of each call.
        retry: whether to send a request again.
        errors: counts rows and decides about failures.
        cancellation: ends the run's calls.
    """

    entries: Entries
    options: RunArguments
    call: CallContext
    retry: RetryPolicy
    errors: ErrorPolicy
    cancellation: Cancellation

    @property
    def room(self) -> int:
        """How many videos may be read or in flight, or have a row that nobody has taken."""
        return self.options.parallel * READ_AHEAD


def plan_run(
    arguments: RunArguments, connection: Connection, read: Callable[[Source, Skipped], Entries] = read_entries
) -> Run:
    """Open the source with `read`, and all else that a run needs.

    Raises:
        InvalidRequest: `arguments.source` is no source, or a progress bar cannot be shown.
    """
    errors = ErrorPolicy(arguments.on_error, open_progress(arguments.progress, count_entries(arguments.source)))
    return Run(
        entries=read(arguments.source, errors.summary.skipped),
        options=arguments,
        call=connection.start_call(arguments.timeout_seconds),
        retry=RetryPolicy(arguments.retry_seconds),
        errors=errors,
        cancellation=Cancellation(model=connection.model),
    )
