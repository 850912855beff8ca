"""The videos of many batches in one run, against a real Triton."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clipserve import AsyncVideoClassifier, RequestCancelled, ServerUnavailable, UnknownModel, VideoClassifier
from clipserve.ray.calls import Calls, TimelineCalls
from clipserve.results import Row
from tests.watching import NEVER_SECONDS, at_once

OPTIONS: dict[str, Any] = {"parallel": 4, "retry_seconds": 5.0}


@pytest.fixture
def calls(motion_url: str) -> Iterator[Calls]:
    calls = Calls(partial(AsyncVideoClassifier, "motion", motion_url), OPTIONS)
    yield calls
    calls.close()


def top(row: Row) -> str:
    return row.prediction.top.label if row.prediction else row.error.code if row.error else ""


def test_batches_of_several_threads_get_their_own_rows_in_order(calls: Calls, motion_files: dict[str, Path]) -> None:
    labels = ["bouncing", "broken", "growing", "still", "moving left"]
    batches = [labels[number:] + labels[:number] for number in range(5)]

    def classify(batch: list[str]) -> list[str]:
        return [top(row) for (row,) in calls.ask([str(motion_files[label]) for label in batch])]

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(classify, batches))
    assert found == [["not-a-video" if label == "broken" else label for label in batch] for batch in batches]
    assert calls.model_version == "1"
    assert calls.ask([]) == []


def test_bytes_are_videos(calls: Calls, motion_files: dict[str, Path]) -> None:
    ((row,),) = calls.ask([memoryview(motion_files["still"].read_bytes())])
    assert top(row) == "still"


def test_an_unknown_model_ends_all_batches(motion_url: str, motion_files: dict[str, Path]) -> None:
    calls = Calls(partial(AsyncVideoClassifier, "nope", motion_url), OPTIONS)
    for _ in range(2):
        with pytest.raises(UnknownModel, match="motion"):
            calls.ask([str(motion_files["still"])] * 3)
    calls.close()


def test_a_server_that_stays_away_is_no_row() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        options = {**OPTIONS, "retry_seconds": 0.5, "timeout_seconds": 0.5}
        calls = Calls(partial(AsyncVideoClassifier, "motion", url), options)
        with pytest.raises(ServerUnavailable):
            calls.ask([b"video"])
        calls.close()


def test_close_ends_a_batch_that_waits(motion_url: str, slow_video: Path) -> None:
    calls = Calls(partial(AsyncVideoClassifier, "motion", motion_url), OPTIONS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(calls.ask, [str(slow_video)] * 50)
        calls.close()
        with pytest.raises(RequestCancelled):
            waiting.result()
    with pytest.raises(RequestCancelled):
        calls.ask([b"video"])


def test_close_does_not_wait_for_a_server_that_is_away() -> None:
    calls = Calls(partial(AsyncVideoClassifier, "motion", "127.0.0.1:1"), {**OPTIONS, "retry_seconds": NEVER_SECONDS})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(calls.ask, [b"video"] * 3)
        time.sleep(0.5)
        with at_once():
            calls.close()
        with pytest.raises(RequestCancelled):
            waiting.result()


def test_windows_of_several_videos_come_in_order_with_the_end_of_each(
    motion_url: str, motion_files: dict[str, Path]
) -> None:
    options = {**OPTIONS, "window": 0.5, "step": 0.25}
    calls = TimelineCalls(partial(AsyncVideoClassifier, "motion", motion_url), options)
    files = [str(motion_files[label]) for label in ("still", "broken", "growing")]
    still, broken, growing = calls.ask([*files[:2], memoryview(motion_files["growing"].read_bytes())])
    calls.close()
    with VideoClassifier("motion", motion_url) as classifier:
        for found, path in ((still, files[0]), (growing, files[2])):
            expected = list(classifier.timeline(path, window=0.5, step=0.25))
            assert len(expected) > 3
            assert [row.window for row in found[:-1]] == expected
            assert found[-1].is_complete
            assert found[-1].facts.windows_total == len(expected)
    assert [row.error.code for row in broken if row.error] == ["not-a-video"]
    assert len(broken) == 1
