"""The columns that a Dataset of videos has before and after its classification.

In: `path` (a path or address, read by the actor), or `bytes` (the video, as `ray.data.read_binary_files` reads it);
`id` where ids are not paths. Every other column is kept, `bytes` is not. Out, beside them:

| column | type | |
| id | string | the column `id`, else the path, else the SHA-256 of the bytes; so in each row that has none |
| label | string | the best label |
| labels, scores | list of string, of float64 | `top_k` of them, best first |
| features | list of float32 | the embedding, where it was requested; `feature_column` names the column |
| report | string | JSON, where it was requested |
| truncated | bool | whether the video is damaged or cut off |
| error, message | string | the code and the text of a failure |
| milliseconds | float64 | from sending to the answer, retries included |
| model, model_version, clipserve_version | string | what answered, and this package |

Of a failure `label` to `truncated` are null, of a success `error` and `message`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

import clipserve
from clipserve.errors import ClipserveError, InvalidRequest, VideoNotReadable
from clipserve.names import spell_name
from clipserve.ray.calls import Video
from clipserve.ray.options import AnyOptions, DatasetOptions
from clipserve.results import Row
from clipserve.sources.addresses import hide_credentials, is_elsewhere

ID, PATH, BYTES = "id", "path", "bytes"


def list_types(options: DatasetOptions) -> dict[str, pa.DataType]:
    """The columns that are added, `id` left out, with their types."""
    return {
        "label": pa.string(),
        "labels": pa.list_(pa.string()),
        "scores": pa.list_(pa.float64()),
        **({options.feature_column: pa.list_(pa.float32())} if options.features else {}),
        **({"report": pa.string()} if options.report else {}),
        "truncated": pa.bool_(),
        "error": pa.string(),
        "message": pa.string(),
        "milliseconds": pa.float64(),
        "model": pa.string(),
        "model_version": pa.string(),
        "clipserve_version": pa.string(),
    }


def check_columns(
    names: Sequence[str], options: AnyOptions, list_types: Callable[[AnyOptions], Mapping[str, pa.DataType]]
) -> None:
    """Raise InvalidRequest unless a Dataset with these columns can be classified, and get those of `list_types`."""
    own = {ID, PATH, BYTES, *list_types(replace(options, features=False, report=True))}
    if options.features and options.feature_column in own:
        raise InvalidRequest(
            f"feature_column is {options.feature_column!r}, which is another column of the results: choose a name"
            " beside them, such as 'features' or 'embedding'"
        )
    if PATH not in names and BYTES not in names:
        raise InvalidRequest(
            f"a Dataset of videos needs a column {PATH!r} (paths or addresses) or {BYTES!r} (as read_binary_files reads"
            f" them); this one has {', '.join(map(repr, names)) or 'no columns'}"
        )
    if taken := sorted(set(names) & set(list_types(options))):
        renamed = {name: f"true_{name}" for name in taken}
        raise InvalidRequest(
            f"the Dataset already has the columns {', '.join(map(repr, taken))}, which the results need: rename them"
            f" with dataset.rename_columns({renamed})"
        )


def read_ids(table: pa.Table) -> list[str]:
    """The id of each row."""
    ids, paths = (table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in (ID, PATH))
    return [
        str(id) if id is not None else _name_path(path) if path is not None else _hash_bytes(table, row)
        for row, (id, path) in enumerate(zip(ids, paths, strict=True))
    ]


def _hash_bytes(table: pa.Table, row: int) -> str:
    content = table[BYTES][row].as_buffer() if BYTES in table.column_names else None
    return hashlib.sha256(content or b"").hexdigest()


def _name_path(path: object) -> str:
    text = str(path)
    return spell_name(hide_credentials(text) if is_elsewhere(text) else text)


def read_videos(table: pa.Table) -> list[Video]:
    """The video of each row: its bytes, else its path; without either the error in its place."""
    paths = table[PATH].to_pylist() if PATH in table.column_names else [None] * len(table)
    contents = list(table[BYTES]) if BYTES in table.column_names else [None] * len(table)
    return [_choose_video(path, content) for path, content in zip(paths, contents, strict=True)]


def _choose_video(path: Any, content: Any) -> Video:
    if content is not None and content.is_valid:
        return memoryview(content.as_buffer())
    if isinstance(path, str) and path:
        return path
    return VideoNotReadable(f"the row has neither a path nor bytes; its path is {path!r}")


def add_columns(
    table: pa.Table,
    ids: Sequence[str],
    answers: Sequence[Sequence[Row]],
    model_version: str | None,
    options: DatasetOptions,
) -> pa.Table:
    """The table, without the videos' bytes, with the columns of the results. answers: a row for each video."""
    rows = [row for (row,) in answers]
    predictions = [row.prediction for row in rows]
    columns: dict[str, Any] = {
        "label": [found.top.label if found else None for found in predictions],
        "labels": [[scored.label for scored in found] if found else None for found in predictions],
        "scores": [[scored.score for scored in found] if found else None for found in predictions],
        options.feature_column: [found.features if found else None for found in predictions],
        "report": [json.dumps(dict(found.report or {})) if found else None for found in predictions],
        "truncated": [found.truncated if found else None for found in predictions],
        "error": [row.error.code if row.error else None for row in rows],
        "message": [write_message(row.error) for row in rows],
        "milliseconds": [row.milliseconds for row in rows],
        "model": [options.model] * len(rows),
        "model_version": [model_version] * len(rows),
        "clipserve_version": [clipserve.__version__] * len(rows),
    }
    made = {name: pa.array(columns[name], kind) for name, kind in list_types(options).items()}
    return join_columns(table, ids, made, range(len(table)))


def join_columns(table: pa.Table, ids: Sequence[str], made: Mapping[str, pa.Array], places: Sequence[int]) -> pa.Table:
    """`id`, the columns of `table` without the videos' bytes, and those of `made`, whose rows are about `places`."""
    kept = table.drop_columns([name for name in (ID, BYTES) if name in table.column_names])
    known = {ID: pa.array(ids, pa.string()), **{name: kept[name] for name in kept.column_names}}
    rows = pa.array(places, pa.int64())
    return pa.table({**{name: column.take(rows) for name, column in known.items()}, **made})


def write_message(error: ClipserveError | None) -> str | None:
    """The text of an error as UTF-8 can hold it."""
    return None if error is None else spell_name(str(error))
