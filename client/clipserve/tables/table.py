"""The rows of a finished run: to look at, to save, to go on with."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest
from clipserve.results import Row
from clipserve.runs.summary import Summary
from clipserve.sources.folders import Skipped

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

SHOWN_ROWS = 50


@dataclass(frozen=True)
class Table:
    """Rows in the order they came. In a notebook it shows itself.

    Attributes:
        rows: of every video, or, with on_error="drop", of those that went well.
        dropped: the failures that on_error="drop" left out of `rows`.
        skipped: what scans of folders left out.
    """

    rows: Sequence[Row]
    dropped: Sequence[Row] = field(default=(), repr=False)
    skipped: Skipped = field(default_factory=Skipped, repr=False)

    @property
    def failures(self) -> list[Row]:
        """Every row that failed, dropped ones included."""
        return [*(row for row in self.rows if row.error is not None), *self.dropped]

    @property
    def summary(self) -> Summary:
        """How many went well, how many failed, by class of the error, and what was left out."""
        summary = Summary(skipped=self.skipped)
        for row in (*self.rows, *self.dropped):
            summary.count(row)
        return summary

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """float32 [rows, D]: the embedding of each row, NaN where a video failed.

        Raises:
            InvalidRequest: they were not asked for.
        """
        found = [row.prediction.features if row.prediction else None for row in self.rows]
        width = next((vector.size for vector in found if vector is not None), None)
        if width is None:
            if any(row.prediction for row in self.rows):
                raise InvalidRequest("these rows have no features: classify with features=True, or use embed()")
            width = 0  # nothing went well, so nobody knows
        features = np.full((len(found), width), np.nan, np.float32)
        for number, vector in enumerate(found):
            if vector is not None:
                features[number] = vector
        return features

    def show(self, rows: int = SHOWN_ROWS) -> None:
        """Print the first rows with their labels, scores and a bar; in a notebook, display them.

        Raises:
            InvalidRequest: rich is not installed.
        """
        from clipserve.tables.drawing import show_table

        show_table(self, rows)

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame: id, video, label, label_1, score_1, ..., truncated, error, message, milliseconds, and features
        if any.

        Raises:
            InvalidRequest: pandas is not installed.
        """
        from clipserve.tables.files import make_frame

        return make_frame(self.rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas`, without features, as CSV in UTF-8; whole or not at all."""
        from clipserve.tables.files import write_csv

        write_csv(self.rows, path)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object a row, in UTF-8, with features and reports; see lines.py. Whole or not at all."""
        from clipserve.tables.files import write_jsonl

        write_jsonl(self.rows, path)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas`, features as lists of float32; whole or not at all.

        Raises:
            InvalidRequest: pyarrow is not installed.
        """
        from clipserve.tables.files import write_parquet

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
        from clipserve.tables.drawing import write_html

        return write_html(self, SHOWN_ROWS)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}
