"""Rows of many videos, and whether each of them came out once."""

from collections import Counter
from typing import Any

QUICK: dict[str, Any] = {"batch_rows": 20, "parallel": 4, "retry_seconds": 60.0}


def check_rows(rows: list[dict[str, Any]], count: int) -> None:
    """Each video once, with the label that it shows."""
    assert Counter(row["id"] for row in rows) == Counter(f"video-{number}" for number in range(count))
    wrong = [row for row in rows if (row["error"] or row["label"]) != row["kind"].replace("broken", "not-a-video")]
    assert not wrong
