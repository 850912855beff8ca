"""The summary of a run, and what happens to its failures."""

from collections import Counter
from dataclasses import dataclass, field

from clipserve.errors import AccessDenied, ModelNotReady, ServerUnavailable, UnknownModel
from clipserve.options import OnError
from clipserve.results import Row
from clipserve.runs.progress import Progress
from clipserve.sources.folders import Skipped

# No video can succeed after these errors, so they end a run whatever on_error says.
FATAL_ERRORS = (AccessDenied, UnknownModel)
# These fail every video alike while the server is away: commands report them once, and an evaluation ends.
SERVER_WIDE_ERRORS = (*FATAL_ERRORS, ServerUnavailable, ModelNotReady)

# Dropped rows that a stream keeps; it counts all of them, and a table keeps all of them.
MAX_DROPPED = 1000


@dataclass
class Summary:
    """Counts of a run's videos.

    Attributes:
        succeeded: videos with a prediction.
        truncated: how many of these are damaged or truncated.
        failed: videos without a prediction, by class of the error.
        skipped: files that scans of folders left out.
    """

    succeeded: int = 0
    truncated: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    skipped: Skipped = field(default_factory=Skipped)

    def count(self, row: Row) -> None:
        """Add one row."""
        if row.error is None:
            self.succeeded += 1
            self.truncated += bool(row.prediction and row.prediction.truncated)
        else:
            self.failed[type(row.error).__name__] += 1

    @property
    def failures(self) -> int:
        """How many videos failed."""
        return self.failed.total()

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failed.most_common())
        remark = f" ({self.truncated} truncated)" if self.truncated else ""
        text = f"{self.succeeded} classified{remark}, {self.failures} failed" + (f" ({kinds})" if kinds else "")
        return f"{text}; left out: {self.skipped}" if self.skipped else text


class ErrorPolicy:
    """Counts each row, shows progress, and does with failures what `on_error` says."""

    def __init__(self, on_error: OnError, progress: Progress) -> None:
        self.summary = Summary()
        self.dropped: list[Row] = []
        self._on_error = on_error
        self._progress = progress

    def drops(self, row: Row) -> bool:
        """Count a row. Returns whether to leave it out, or raises its error."""
        self.summary.count(row)
        self._progress.advance(self.summary.failures)
        if row.error is None:
            return False
        if self._on_error == "raise" or isinstance(row.error, FATAL_ERRORS):
            raise row.error
        if self._on_error == "keep":
            return False
        if len(self.dropped) < MAX_DROPPED:
            self.dropped.append(row)
        return True

    def close(self) -> None:
        """End the progress bar."""
        self._progress.close()
