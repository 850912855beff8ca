"""What becomes of failures among many videos, and the count of them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from clipserve.amounts import is_one_of
from clipserve.batches.progress import Progress
from clipserve.batches.rows import Row
from clipserve.errors import AccessDenied, InvalidRequest, UnknownModel
from clipserve.sources.folders import Skipped

OnError: TypeAlias = Literal["keep", "raise", "drop"]

# No video can succeed after these, so they are raised whatever is asked for.
HOPELESS = (AccessDenied, UnknownModel)

# Dropped rows that a stream remembers; counts know of all. A table keeps all of them.
MAX_REMEMBERED = 1000


@dataclass
class Summary:
    """How many videos went well, how many of these are damaged or cut off, how many failed, by class of error, and what
    scans of folders left out.
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
        """How many failed."""
        return self.failed.total()

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.failed.most_common())
        remark = f" ({self.truncated} truncated)" if self.truncated else ""
        text = f"{self.succeeded} classified{remark}, {self.failures} failed" + (f" ({kinds})" if kinds else "")
        return f"{text}; left out: {self.skipped}" if self.skipped else text


class Tally:
    """Counts each row, shows progress, and decides by `on_error` what becomes of failures."""

    def __init__(self, on_error: OnError, progress: Progress) -> None:
        if not is_one_of(OnError, on_error):
            raise InvalidRequest(f"on_error is 'keep', 'raise' or 'drop', got {on_error!r}")
        self.summary = Summary()
        self.dropped: list[Row] = []
        self._on_error = on_error
        self._progress = progress

    def drops(self, row: Row) -> bool:
        """Count a row; gives whether to leave it out. Raises its error where that is asked for."""
        self.summary.count(row)
        self._progress.advance(self.summary.failures)
        if row.error is None:
            return False
        if self._on_error == "raise" or isinstance(row.error, HOPELESS):
            raise row.error
        if self._on_error == "keep":
            return False
        if len(self.dropped) < MAX_REMEMBERED:
            self.dropped.append(row)
        return True

    def close(self) -> None:
        """End the progress bar."""
        self._progress.close()
