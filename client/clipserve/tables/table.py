"""The rows of a finished run, to look at, save and process further."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest, UnexpectedAnswer
from clipserve.results import Row
from clipserve.runs.summary import Summary
from clipserve.sources.folders import Skipped

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

SHOWN_ROWS = 50


@dataclass(frozen=True)
class Table:
    """The rows of a run, in the order in which they came. A notebook displays it as a table.

    Attributes:
        rows: one for every video; with on_error="drop" one for each prediction.
        dropped: the failures that on_error="drop" left out of `rows`.
        skipped: files that scans of folders left out.
    """

    rows: Sequence[Row]
    dropped: Sequence[Row] = field(default=(), repr=False)
    skipped: Skipped = field(default_factory=Skipped, repr=False)

    @property
    def failures(self) -> list[Row]:
        """Every failed row, including the dropped ones."""
        return [*(row for row in self.rows if row.error is not None), *self.dropped]

    @property
    def summary(self) -> Summary:
        """The number of predictions, of failures by class of error, and of files that were left out."""
        summary = Summary(skipped=self.skipped)
        for row in (*self.rows, *self.dropped):
            summary.count(row)
        return summary

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """float32 [rows, D]: the embedding of each row, NaN where a video failed.

        Raises:
            InvalidRequest: the run did not request features.
            UnexpectedAnswer: they have different sizes.
        """
        found = [row.prediction.features if row.prediction else None for row in self.rows]
        width = next((vector.size for vector in found if vector is not None), None)
        if width is None:
            if any(row.prediction for row in self.rows):
                raise InvalidRequest("these rows have no features: classify with features=True, or use embed()")
            width = 0  # no video succeeded, so D is unknown
        features = np.full((len(found), width), np.nan, np.float32)
        for number, vector in enumerate(found):
            if vector is not None:
                check_size(vector, width, self.rows[number])
                features[number] = vector
        return features

    def show(self, rows: int = SHOWN_ROWS) -> None:
        """Print the first rows with their labels, scores and a bar; in a notebook, display them.

        Raises:
            InvalidRequest: rich is not installed.
        """
        from clipserve.tables.display import show_rows

        show_rows(self.rows[:rows], self._write_caption(rows))

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with the columns id, video, label, label_1, score_1, ..., truncated, error, message and
        milliseconds, and features if the run requested them.

        Raises:
            InvalidRequest: pandas is not installed.
        """
        from clipserve.tables.formats import make_frame

        return make_frame(self.rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas`, without features, as CSV in UTF-8. The file appears when it is complete."""
        from clipserve.tables.formats import write_csv

        write_csv(self.rows, path)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object per row and line, in UTF-8, with features and reports; see `formats.write_line`.

        The file appears when it is complete.
        """
        from clipserve.tables.formats import write_jsonl

        write_jsonl(self.rows, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas`, features as lists of float32. The file appears when it is complete.

        Raises:
            InvalidRequest: pyarrow is not installed.
        """
        from clipserve.tables.formats import write_parquet

        write_parquet(self.rows, path)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> Row:
        return self.rows[number]

    def __str__(self) -> str:
        return f"{len(self)} rows: {self.summary}"

    def _repr_html_(self) -> str:
        from clipserve.tables.display import write_html

        return write_html(self.rows[:SHOWN_ROWS], self._write_caption(SHOWN_ROWS))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}

    def _write_caption(self, shown: int) -> str:
        hidden = len(self) - shown
        return f"{self.summary}" + (f"; {hidden} more rows are not shown" if hidden > 0 else "")


def check_size(vector: npt.NDArray[np.float32], size: int, row: Row) -> None:
    """Raise UnexpectedAnswer if the vector of a row has another size than those of the rows before."""
    if vector.size != size:
        raise UnexpectedAnswer(
            f"the features of {row.video!r} have {vector.size} values, and those before had {size}: the server replaced"
            " the model during the run; embed again",
            video=row.video,
            model=row.prediction.model if row.prediction else None,
        )
