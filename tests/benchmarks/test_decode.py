"""The decode benchmark on one small file, with the decoders that are installed."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.harness.results import ROOT


@pytest.fixture(scope="module")
def results(real_videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one run on the smallest real video, and on a file that is no video."""
    folder = tmp_path_factory.mktemp("decode")
    (no_video := folder / "carphone_distorted.txt").write_text("no video")
    options = ["--only", "carphone_distorted", "--rounds", "1", "--out", folder, "--foreign", no_video, *real_videos]
    command = [sys.executable, "-m", "benchmarks.decode", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "carphone_distorted.txt is left out: " in done.stdout
    return folder


def test_every_decoder_that_loads_is_measured_in_a_process_of_its_own(results: Path) -> None:
    with (results / "decode.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["workload"] for row in rows} == {"uniform 16", "uniform 32", "5 clips"}
    times = {row["decoder"]: float(row["milliseconds"]) for row in rows if row["workload"] == "uniform 16"}
    assert times.keys() >= {"clipserve", "pyav", "packets alone"}
    assert times["packets alone"] < times["clipserve"]
    assert {row["wrong_frames"] for row in rows if row["decoder"] in ("clipserve", "pyav")} == {"0"}


def test_the_page_tells_own_footage_and_foreign_files_apart_and_who_is_left_out(results: Path) -> None:
    page = (results / "decode.md").read_text()
    assert "## Foreign files" in page
    assert "## Own footage" not in page
    for decoder in ("torchcodec", "decord", "opencv"):
        assert (f"{decoder} is left out: " in page) is not (f"| {decoder} |" in page)
    assert (results / "decode.png").stat().st_size > 5_000
