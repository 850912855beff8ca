"""The process of a contestant: `python -m benchmarks.alternatives CONTESTANT MODEL SETTING`.

The contestant and all that it starts are one process tree, and the program that measures is not in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.alternatives.contestants import Classify, list_contestants
from benchmarks.alternatives.shared_model import SharedModel
from benchmarks.harness.processes import answer_orders, redirect_output


def classify_all(classify: Classify, order: dict[str, Any]) -> dict[str, Any]:
    """Classify the videos of an order, so many at a time; each answer has its latency in seconds."""

    def classify_one(path: str) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            scores, error = classify(path), ""
        except Exception as failure:
            scores, error = {}, f"{type(failure).__name__}: {failure}"[:300]
        return {"video": path, "seconds": time.perf_counter() - started, "scores": scores, "error": error}

    started = time.perf_counter()
    with ThreadPoolExecutor(order["concurrency"]) as threads:
        answers = list(threads.map(classify_one, order["videos"]))
    return {"seconds": time.perf_counter() - started, "answers": answers}


def main() -> None:
    """Open the contestant and answer orders."""
    redirect_output()
    key, model, setting = sys.argv[1:]
    (contestant,) = (one for one in list_contestants(len(os.sched_getaffinity(0))) if one.key == key)
    with contestant.open(SharedModel.from_json(model), json.loads(setting)) as classify:
        answer_orders(lambda order: classify_all(classify, order))


if __name__ == "__main__":
    main()
