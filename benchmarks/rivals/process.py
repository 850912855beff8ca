"""The process that a contestant runs in: `python -m rivals.process CONTESTANT GROUND SETTING`.

Reads orders from stdin and writes answers to stdout, a JSON object a line; ends when stdin closes. So the contestant
and all that it starts are one tree of processes, and whoever measures is not in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rivals.lineup import Classify, list_contestants
from rivals.networks import Ground


def answer_order(classify: Classify, order: dict[str, Any]) -> dict[str, Any]:
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
    """The command line above."""
    # Libraries print; what they print belongs to the log.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    key, ground, setting = sys.argv[1:]
    (contestant,) = (one for one in list_contestants(len(os.sched_getaffinity(0))) if one.key == key)
    with contestant.open(Ground.from_json(ground), json.loads(setting)) as classify:
        print(json.dumps({"ready": True}), file=replies, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer_order(classify, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
