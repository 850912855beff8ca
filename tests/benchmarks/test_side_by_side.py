"""The side-by-side measurement, in small: real contestants, real processes, real files."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from tests.interrupts import hear_interrupts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMAND = [sys.executable, str(BENCHMARKS / "side_by_side.py"), "--quick"]
ALWAYS = {"clipserve", "clipserve-fp32", "clipserve-one", "codelab", "codelab-frames", "codelab-five"}
WITH_TORCHCODEC = {"pool", "ensemble"}


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


def installed() -> set[str]:
    """The `bench` extra is no part of `test`."""
    found = set(ALWAYS)
    if find_spec("torchcodec"):
        found |= WITH_TORCHCODEC | ({"litserve"} if find_spec("litserve") else set())
    return found


@pytest.mark.long
def test_everyone_installed_answers_alike_and_is_measured(tmp_path: Path, scratch: Path) -> None:
    results = tmp_path / "results"
    done = subprocess.run(
        [*COMMAND, "--results", results], env=environment(scratch), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (results / "side_by_side_motion.csv").open() as file:
        counted = [row for row in csv.DictReader(file) if row["round"] == "1"]
    assert {row["contestant"] for row in counted} == installed()
    for row in counted:
        assert row["failed"] == "0", row
        assert float(row["videos_per_second"]) > 0
        assert float(row["processor_seconds_per_video"]) > 0
    page = (results / "side_by_side_motion.md").read_text()
    # Trained weights: whoever decodes and computes right names the same motion.
    assert page.count("| 2 of 2 |") == len(installed())
    assert page.count("left out") == len({"pool", "ensemble", "litserve"} - installed())
    assert (results / "side_by_side_motion.png").stat().st_size > 10_000
    assert not left_behind(scratch)


def test_stopped_in_the_middle_it_leaves_nothing_behind(tmp_path: Path, scratch: Path) -> None:
    results = tmp_path / "results"
    command = [*COMMAND, "--results", str(results), "--only", "codelab"]
    process = subprocess.Popen(
        command,
        env=environment(scratch),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    assert process.stdout is not None
    assert any("warming up" in line for line in process.stdout)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("tritonserver" in child.name() for child in started)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    assert not left_behind(scratch)
    assert not results.exists()


def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from rivals.lineup import list_contestants
    from rivals.networks import Ground
    from rivals.seats import ContestantFailed, Seat

    ground = Ground("motion", str(tmp_path), str(tmp_path / "no-weights.pt"), str(tmp_path / "no.onnx"))
    (codelab,) = (one for one in list_contestants(2) if one.key == "codelab")
    seat = Seat(codelab, codelab.settings[0], ground, libraries="", log=tmp_path / "log", folder=tmp_path)
    with seat, pytest.raises(ContestantFailed, match=r"no-weights\.pt"):
        seat.wait_until_ready()


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from rivals.lineup import list_contestants
    from rivals.rounds import Slice
    from rivals.summaries import summarise

    def turn(key: str, number: int, seconds: float, scores: dict[str, float]) -> Slice:
        answer = {"video": "a", "seconds": seconds, "scores": json.loads(json.dumps(scores)), "error": ""}
        return Slice(key, number, seconds, 2 * seconds, 0, 0.0, 0.0, (answer,))

    even, other = {"0": 0.6, "1": 0.4}, {"0": 0.45, "1": 0.55}
    slices = [turn("clipserve", 0, 9.0, other), turn("codelab", 0, 9.0, even)]
    slices += [turn("clipserve", 1, 1.0, other), turn("codelab", 1, 6.0, even)]
    slices += [turn("clipserve", 2, 2.0, other), turn("codelab", 2, 8.0, even)]
    ours, codelab = (next(one for one in list_contestants(2) if one.key == key) for key in ("clipserve", "codelab"))
    summary = summarise(codelab, codelab.settings[0], slices, "clipserve")
    assert summary.rate_ratios == pytest.approx((6.0, 4.0))
    assert summary.cost_ratios == pytest.approx((6.0, 4.0))
    assert summary.rate == pytest.approx((1 / 6 + 1 / 8) / 2)
    apart = summarise(ours, ours.settings[0], slices, "clipserve")
    assert (apart.same_top, apart.compared) == (0, 1)
    assert apart.furthest == pytest.approx(0.25)


def test_the_processor_time_of_children_that_have_ended_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from rivals.process_tree import Usage

    before = Usage.now(os.getpid(), [])
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    used = Usage.now(os.getpid(), []).since(before)
    assert used.tree >= 0.55
