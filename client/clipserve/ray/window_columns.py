"""The columns of a Dataset of windows: a row for each window of a video, and one for the failure of a video.

Beside the columns of the Dataset:

| column | type | |
| window | int64 | number of the window in its video, from 0 |
| start, end | float64 | seconds from the first frame of the video on |
| start_frame, end_frame | int64 | its first frame, and the first one after it |
| windows | int64 | how many windows the video has |
| duration | float64 | length of the video in seconds |
| score | float64 | of `label` |
| label, labels, scores, features, report, truncated, ... | | as columns.py has them, but for `milliseconds` |

In the row of a failure what is about a window is null, and `windows` says how many came before it. They have rows of
their own, with null in `windows`.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import clipserve
from clipserve.ray.columns import join_columns, write_message
from clipserve.ray.columns import list_types as list_video_types
from clipserve.ray.options import TimelineDatasetOptions
from clipserve.timeline.many import TimelineRow


def list_types(options: TimelineDatasetOptions) -> dict[str, pa.DataType]:
    """The columns that are added, `id` left out, with their types."""
    shared = list_video_types(options)
    del shared["milliseconds"]
    return {
        "window": pa.int64(),
        "start": pa.float64(),
        "end": pa.float64(),
        "start_frame": pa.int64(),
        "end_frame": pa.int64(),
        "windows": pa.int64(),
        "duration": pa.float64(),
        "score": pa.float64(),
        **shared,
    }


def add_columns(
    table: pa.Table,
    ids: Sequence[str],
    answers: Sequence[Sequence[TimelineRow]],
    model_version: str | None,
    options: TimelineDatasetOptions,
) -> pa.Table:
    """For each video, which is a row of `table`, its windows and its failure. answers: the rows of each video."""
    same = {"model": options.model, "model_version": model_version, "clipserve_version": clipserve.__version__}
    places: list[int] = []
    records: list[dict[str, Any]] = []
    for place, rows in enumerate(answers):
        *_, end = rows
        facts = {"duration": end.facts.duration_seconds, "truncated": end.facts.truncated}
        count = {"windows": len(rows) - 1}
        shown = [row for row in rows if not row.is_complete]
        places += [place] * len(shown)
        for row in shown:
            counted = count if row is end or end.is_complete else {}
            records.append(same | facts | counted | describe_row(row, options))
    # from_pylist: null where a record has nothing
    made = pa.Table.from_pylist(records, pa.schema(list(list_types(options).items())))
    return join_columns(table, ids, {name: made[name] for name in made.column_names}, places)


def describe_row(row: TimelineRow, options: TimelineDatasetOptions) -> dict[str, Any]:
    """The columns of a window, or of a failure."""
    if row.error is not None:
        return {"error": row.error.code, "message": write_message(row.error)}
    assert row.window is not None
    return {
        "window": row.window.index,
        "start": row.window.start_seconds,
        "end": row.window.end_seconds,
        "start_frame": row.window.start_frame,
        "end_frame": row.window.end_frame,
        "label": row.window.top.label,
        "score": row.window.top.score,
        "labels": [scored.label for scored in row.window],
        "scores": [scored.score for scored in row.window],
        options.feature_column: row.window.features,
        "report": json.dumps(dict(row.window.report or {})),
    }
