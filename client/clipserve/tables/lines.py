"""A row as one line of JSON, for programs: what `to_jsonl`, jobs and `clipserve classify --json` write."""

import json
import re
from typing import Any

from clipserve.errors import ClipserveError
from clipserve.names import UNPRINTABLE
from clipserve.results import Prediction, Row


def write_line(row: Row, number: int | None = None) -> str:
    """The row as JSON, without the line's end; the number, if any, comes first, as `row`.

    A success has `model`, `labels` (each with label, index and score), `truncated` (null where the server does not say)
    and `milliseconds`, and `features` and `report` where they were asked for; a failure has `error` with class, code,
    message and retryable.
    """
    line: dict[str, Any] = {} if number is None else {"row": number}
    line |= {"id": row.id, "video": row.video}
    if row.label is not None:
        line["label"] = row.label
    if row.prediction is not None:
        line |= describe_prediction(row.prediction, row.milliseconds)
    if row.error is not None:
        line["error"] = {"class": type(row.error).__name__, **describe_error(row.error)}
    return write_json(line)


def write_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON for UTF-8 files and terminals: control characters and lone surrogates in texts are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    # json leaves those beyond ASCII as they are. Line breaks of an indent are no part of a text.
    return "\n".join(UNPRINTABLE.sub(_escape, line) for line in text.split("\n"))


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]  # beyond 16 bits JSON has pairs of surrogates


def describe_prediction(prediction: Prediction, milliseconds: float) -> dict[str, Any]:
    """A prediction in JSON's types."""
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
    """An error in JSON's types."""
    return {"code": error.code, "message": str(error), "retryable": error.retryable}
