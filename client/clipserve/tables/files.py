"""Rows as columns, and as files of several kinds."""

import csv
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest
from clipserve.results import Row
from clipserve.tables.lines import write_line

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


def make_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Columns by name, one value a row, None where there is nothing.

    id, video, label (the true one), label_1, score_1, label_2, ... (best first), truncated (whether the video is
    damaged or cut off), error (its code), message, milliseconds.
    """
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "video": [row.video for row in rows],
        "label": [row.label for row in rows],
    }
    answers = [row.prediction.labels if row.prediction else () for row in rows]
    for rank in range(max(map(len, answers), default=0)):
        best = [labels[rank] if rank < len(labels) else None for labels in answers]
        columns[f"label_{rank + 1}"] = [scored.label if scored else None for scored in best]
        columns[f"score_{rank + 1}"] = [scored.score if scored else None for scored in best]
    columns["truncated"] = [row.prediction.truncated if row.prediction else None for row in rows]
    columns["error"] = [row.error.code if row.error else None for row in rows]
    columns["message"] = [str(row.error) if row.error else None for row in rows]
    columns["milliseconds"] = [round(row.milliseconds, 1) for row in rows]
    return columns


def make_frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """See `Table.to_pandas`."""
    try:
        import pandas
    except ImportError as missing:
        raise _name_extra("a data frame", missing) from missing
    columns = make_columns(rows)
    if vectors := _list_features(rows):
        columns["features"] = vectors
    return pandas.DataFrame(columns)


def write_csv(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_csv`."""
    columns = make_columns(rows)
    with open_atomically(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_jsonl(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_jsonl`."""
    with open_atomically(path) as file:
        file.writelines(write_line(row) + "\n" for row in rows)


def write_parquet(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_parquet`."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as missing:
        raise _name_extra("parquet", missing) from missing
    columns: dict[str, Any] = {
        name: pyarrow.array(values, _choose_type(pyarrow, name)) for name, values in make_columns(rows).items()
    }
    if vectors := _list_features(rows):
        columns["features"] = pyarrow.array(vectors, pyarrow.list_(pyarrow.float32()))
    with open_atomically(path, "wb") as file:
        parquet.write_table(pyarrow.table(columns), file)


def _choose_type(pyarrow: Any, name: str) -> Any:
    """Of a column that may be empty, and then would have no type."""
    if name == "truncated":
        return pyarrow.bool_()
    return pyarrow.float64() if name.startswith(("score_", "milliseconds")) else pyarrow.string()


def _list_features(rows: Sequence[Row]) -> list[Any]:
    vectors = [row.prediction.features if row.prediction else None for row in rows]
    return vectors if any(vector is not None for vector in vectors) else []


def _name_extra(what: str, missing: ImportError) -> InvalidRequest:
    return InvalidRequest(f"{what} is not there ({missing}): pip install 'clipserve[data]'")
