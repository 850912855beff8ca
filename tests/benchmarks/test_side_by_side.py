"""The side-by-side measurement, in small: real contestants, real processes, real files."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.alternatives.contestants import list_contestants
from benchmarks.alternatives.shared_model import SharedModel
from benchmarks.harness.processes import ContestantFailed, ContestantProcess
from benchmarks.harness.results import ROOT
from benchmarks.side_by_side_report import Turn, summarise

from tests.interrupts import interruptible
from tests.watching import HANG_SECONDS

COMMAND = [sys.executable, "-m", "benchmarks.side_by_side", "--quick"]
ALWAYS = {"clipserve", "clipserve-fp32", "clipserve-one", "codelab", "codelab-frames", "codelab-five"}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The only folder for temporary files; short, as LitServe puts sockets there, whose paths end at 107 characters."""
    with tempfile.TemporaryDirectory(prefix="sbs-") as folder:
        yield Path(folder)


def left_behind(scratch: Path) -> list[str]:
    """All but the session number that ONNX Runtime keeps in whatever folder for temporary files it finds."""
    return [path.name for path in scratch.iterdir() if path.name != ".ses"]


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def expected(page: str) -> set[str]:
    """All contestants but those that the page names as left out: the extra `bench` is no part of `test`."""
    return {one.key for one in list_contestants(2) if f"{one.title} was left out" not in page}


@pytest.mark.long
def test_everyone_installed_answers_alike_and_is_measured(tmp_path: Path, scratch: Path) -> None:
    results = tmp_path / "results"
    done = subprocess.run(
        [*COMMAND, "--out", results], cwd=ROOT, env=environment(scratch), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (results / "side_by_side_motion.csv").open() as file:
        counted = [row for row in csv.DictReader(file) if row["round"] == "1"]
    page = (results / "side_by_side_motion.md").read_text()
    assert {row["contestant"] for row in counted} == expected(page) >= ALWAYS
    for row in counted:
        assert row["failed"] == "0", row
        assert float(row["videos_per_second"]) > 0
        assert float(row["processor_seconds_per_video"]) > 0
    # Trained weights: whoever decodes and computes right names the same motion.
    assert page.count("| 2 of 2 |") == len(expected(page))
    assert (results / "side_by_side_motion.png").stat().st_size > 10_000
    assert not left_behind(scratch)


@pytest.mark.long
def test_stopped_in_the_middle_it_leaves_nothing_behind(tmp_path: Path, scratch: Path) -> None:
    results = tmp_path / "results"
    command = [*COMMAND, "--out", str(results), "--only", "codelab"]
    process = subprocess.Popen(
        interruptible(command),
        cwd=ROOT,
        env=environment(scratch),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any("warming up" in line for line in process.stdout)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("tritonserver" in child.name() for child in started)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=HANG_SECONDS) != 0
    _, alive = psutil.wait_procs(started, timeout=HANG_SECONDS)
    assert not alive
    assert not left_behind(scratch)
    assert not results.exists()


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    missing = SharedModel("motion", str(tmp_path), str(tmp_path / "no-weights.pt"), str(tmp_path / "no.onnx"))
    setting = json.dumps({"decode": "SLICE", "threads": 1, "concurrency": 1})
    command = [sys.executable, "-m", "benchmarks.alternatives", "codelab", missing.to_json(), setting]
    process = ContestantProcess("codelab's way", command, variables={}, log=tmp_path / "log")
    with process, pytest.raises(ContestantFailed, match=r"codelab's way: its process has ended\n(?s:.)*no-weights\.pt"):
        process.wait_until_ready()


def test_ratios_are_taken_round_by_round() -> None:
    def turn(key: str, number: int, seconds: float, scores: dict[str, float]) -> Turn:
        answer = {"video": "a", "seconds": seconds, "scores": json.loads(json.dumps(scores)), "error": ""}
        return Turn(key, number, seconds, 2 * seconds, 0, 0.0, 0.0, (answer,))

    even, other = {"0": 0.6, "1": 0.4}, {"0": 0.45, "1": 0.55}
    turns = [turn("clipserve", 0, 9.0, other), turn("codelab", 0, 9.0, even)]
    turns += [turn("clipserve", 1, 1.0, other), turn("codelab", 1, 6.0, even)]
    turns += [turn("clipserve", 2, 2.0, other), turn("codelab", 2, 8.0, even)]
    ours, codelab = (next(one for one in list_contestants(2) if one.key == key) for key in ("clipserve", "codelab"))
    summary = summarise(codelab, codelab.settings[0], turns)
    assert summary.rate_ratios.values == pytest.approx((6.0, 4.0))
    assert summary.cost_ratios.values == pytest.approx((6.0, 4.0))
    assert summary.rate == pytest.approx((1 / 6 + 1 / 8) / 2)
    different = summarise(ours, ours.settings[0], turns)
    assert (different.same_top, different.compared) == (0, 1)
    assert different.furthest == pytest.approx(0.25)
