"""Rows in the formats that programs read: columns, CSV, parquet, a data frame, and lines of JSON."""

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import ClipserveError
from clipserve.extras import load
from clipserve.names import UNPRINTABLE
from clipserve.results import Prediction, Row

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


def make_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Columns by name, one value per row, None where a row has no value.

    id, video, label (the true one), label_1, score_1, label_2, ... (best first), truncated (whether the video is
    damaged or cut off), error (its code), message, milliseconds.
    """
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "video": [row.video for row in rows],
        "label": [row.label for row in rows],
    }
    predicted = [row.prediction.labels if row.prediction else () for row in rows]
    for rank in range(max(map(len, predicted), default=0)):
        ranked = [labels[rank] if rank < len(labels) else None for labels in predicted]
        columns[f"label_{rank + 1}"] = [scored.label if scored else None for scored in ranked]
        columns[f"score_{rank + 1}"] = [scored.score if scored else None for scored in ranked]
    columns["truncated"] = [row.prediction.truncated if row.prediction else None for row in rows]
    columns["error"] = [row.error.code if row.error else None for row in rows]
    columns["message"] = [str(row.error) if row.error else None for row in rows]
    columns["milliseconds"] = [round(row.milliseconds, 1) for row in rows]
    return columns


def make_frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """See `Table.to_pandas`."""
    columns = make_columns(rows)
    if vectors := _list_features(rows):
        columns["features"] = vectors
    return load("pandas", "data").DataFrame(columns)


def write_csv(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_csv`."""
    columns = make_columns(rows)
    with open_atomically(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_parquet(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_parquet`."""
    pyarrow, parquet = load("pyarrow", "data"), load("pyarrow.parquet", "data")
    columns: dict[str, Any] = {
        name: pyarrow.array(values, _choose_type(pyarrow, name)) for name, values in make_columns(rows).items()
    }
    if vectors := _list_features(rows):
        columns["features"] = pyarrow.array(vectors, pyarrow.list_(pyarrow.float32()))
    with open_atomically(path, "wb") as file:
        parquet.write_table(pyarrow.table(columns), file)


def _choose_type(pyarrow: Any, name: str) -> Any:
    """The type of a column, stated because pyarrow cannot infer one where every value is None."""
    if name == "truncated":
        return pyarrow.bool_()
    return pyarrow.float64() if name.startswith(("score_", "milliseconds")) else pyarrow.string()


def _list_features(rows: Sequence[Row]) -> list[Any]:
    vectors = [row.prediction.features if row.prediction else None for row in rows]
    return vectors if any(vector is not None for vector in vectors) else []


def write_jsonl(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """See `Table.to_jsonl`."""
    with open_atomically(path) as file:
        file.writelines(write_line(row) + "\n" for row in rows)


def write_line(row: Row, number: int | None = None) -> str:
    """The row as one line of JSON, without a line break at its end. `number`, if given, comes first, as `row`."""
    return write_json(({} if number is None else {"row": number}) | describe_row(row))


def describe_row(row: Row) -> dict[str, Any]:
    """A row as a dict that JSON can hold, with `id`, `video` and, if it has one, the true `label`.

    A prediction has `model`, `labels` (each with label, index and score), `truncated` (null if the server does not say)
    and `milliseconds`, and, if they were requested, `features` and `report`. A failure has `error` with class, code,
    message and retryable.
    """
    line: dict[str, Any] = {"id": row.id, "video": row.video}
    if row.label is not None:
        line["label"] = row.label
    if row.prediction is not None:
        line |= describe_prediction(row.prediction, row.milliseconds)
    if row.error is not None:
        line["error"] = describe_error(row.error)
    return line


def describe_prediction(prediction: Prediction, milliseconds: float) -> dict[str, Any]:
    """A prediction as a dict that JSON can hold."""
    described: dict[str, Any] = {
        "model": prediction.model,
        "labels": [{"label": scored.label, "index": scored.index, "score": scored.score} for scored in prediction],
        "truncated": prediction.truncated,
        "milliseconds": round(milliseconds, 1),
    }
    if prediction.features is not None:
        described["features"] = prediction.features.tolist()
    if prediction.report is not None:
        described["report"] = dict(prediction.report)
    return described


def describe_error(error: ClipserveError) -> dict[str, Any]:
    """An error as a dict that JSON can hold."""
    return {"class": type(error).__name__, "code": error.code, "message": str(error), "retryable": error.retryable}


def write_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON for UTF-8 files and terminals: it escapes control characters and lone surrogates in texts."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    # json.dumps does not escape those beyond ASCII. The line breaks of an indent belong to no text.
    return "\n".join(UNPRINTABLE.sub(_escape, line) for line in text.split("\n"))


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]  # JSON has pairs of surrogates beyond 16 bits
