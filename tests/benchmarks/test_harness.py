"""What all benchmarks share: rounds, processor time, processes, results, load."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.harness.load import Calls, classify_request, clip_region, closed_loop, one_by_one, open_loop
from benchmarks.harness.machine import describe_machine, tree_seconds
from benchmarks.harness.processes import ContestantProcess
from benchmarks.harness.results import table, write_csv
from benchmarks.harness.rounds import Samples, interleave, take_turns
from tritonclient.grpc import InferenceServerClient

from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS
from tests.motion_repository import UNSEEN_SEED

CHILD = """
import sys, time
from benchmarks.harness.processes import answer_orders, redirect_output
redirect_output()
print("for the log")
answer_orders(lambda order: {"twice": 2 * order["number"]})
"""


def test_every_round_begins_with_another_contestant_and_warm_ups_do_not_count() -> None:
    assert list(interleave(["a", "b", "c"], 2)) == [(0, ["a", "b", "c"]), (1, ["b", "c", "a"]), (2, ["c", "a", "b"])]
    called: list[str] = []
    turns = take_turns({name: lambda name=name: called.append(name) or len(called) for name in "ab"}, rounds=2)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert turns == {"a": [4, 5], "b": [3, 6]}


def test_no_round_begins_after_the_limit_but_the_first_always_runs() -> None:
    turns = take_turns({"a": lambda: time.sleep(0.02)}, rounds=100, limit_seconds=0)
    assert len(turns["a"]) == 1


def test_samples_have_a_median_and_a_spread() -> None:
    samples = Samples((1.0, 4.0, 2.0))
    assert (samples.median, samples.spread) == (2.0, 1.5)
    assert str(samples) == "2.00 (1.00 to 4.00)"


def test_the_processor_time_of_children_that_have_ended_is_counted() -> None:
    before = tree_seconds(os.getpid())
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert tree_seconds(os.getpid()) - before >= 0.55


def test_a_contestant_answers_in_its_process_and_prints_into_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ContestantProcess("child", [sys.executable, "-c", CHILD], variables={}, log=log) as process:
        process.wait_until_ready()
        answer, peak = process.ask({"number": 21}, watch_memory=True)
    assert answer == {"twice": 42}
    assert peak > 2**20
    assert log.read_text() == "for the log\n"


def test_results_are_tables(tmp_path: Path) -> None:
    assert table(["name", "ms"], [["a", 1]]) == ["| name | ms |", "| --- | ---: |", "| a | 1 |"]
    write_csv(tmp_path / "new" / "a.csv", [{"name": "a", "ms": 1}])
    assert list(csv.DictReader((tmp_path / "new" / "a.csv").open())) == [{"name": "a", "ms": "1"}]
    assert "cores" in describe_machine("numpy", "no-such-package")


def test_requests_are_counted_in_every_loop(motion_url: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_motion_video(path, "moving left", UNSEEN_SEED)
    request = classify_request(motion_url, "motion", [path.read_bytes()])
    with InferenceServerClient(motion_url) as client:
        assert len(one_by_one(client, request, 2).check_all_answered("service").answered) == 2
    assert closed_loop([request] * 2, 0.5).check_all_answered("service").rate > 1
    assert 0 < open_loop(request, 10, 0.5).check_all_answered("service").median < 0.5


def test_the_steps_alone_pass_the_clip_through_shared_memory(motion_url: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_motion_video(path, "moving left", UNSEEN_SEED)
    with clip_region(motion_url, SPECS["motion"]) as region, InferenceServerClient(motion_url) as client:
        assert one_by_one(client, region.decode_request(path.read_bytes())).answered
        assert region.read().std() > 1
        assert one_by_one(client, region.network_request()).answered


def test_a_request_that_fails_is_no_answer(motion_url: str) -> None:
    with InferenceServerClient(motion_url) as client:
        calls = one_by_one(client, classify_request(motion_url, "motion", [b"no video"]))
    assert calls.answered == []
    assert sum(calls.failed.values()) == 1
    with pytest.raises(SystemExit, match="service: 0 answered, 0 refused"):
        calls.check_all_answered("service")
    assert Calls().median != Calls().median
