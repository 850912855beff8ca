"""The benchmark of a GPU server, rehearsed without a GPU: its plan, what it measures and compares, its page."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.gpu.outcomes import Closeness
from benchmarks.gpu_service.__main__ import Settings
from benchmarks.gpu_service.measure import Answer, FirstRequests, Measured, References, ServerMeasurement
from benchmarks.gpu_service.plan import WANTED, Cell, Pace, Shares, all_footage, plan_cells
from benchmarks.gpu_service.report import Results, write_results
from benchmarks.gpu_service.usage import UsageMonitor, Use
from benchmarks.harness.load import Calls
from benchmarks.harness.results import ROOT

from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton
from tests.gpu_machine import pretend_gpu
from tests.motion_repository import UNSEEN_SEED

MOTION = SPECS["motion"]
NVIDIA_SMI = """\
#!/bin/sh
case "$*" in *utilization.gpu,utilization.decoder,memory.used*--loop-ms=*) ;; *) exit 2 ;; esac
echo "40, [N/A], 1000"
while true; do echo "60, 30, 3000"; echo "100, 90, 2000"; sleep 0.02; done
"""


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, bytes]:
    files = {}
    for number, label in enumerate(("moving left", "bouncing")):
        path = tmp_path / f"{number}.mp4"
        write_motion_video(path, label, UNSEEN_SEED + number)
        files[path.name] = path.read_bytes()
    return files


def test_the_measurements_share_the_time_that_is_left_equally() -> None:
    seconds = 40.0
    shares = Shares(lambda: seconds, cells=4, pace=Pace(warm_up=1, least=1, most=7))
    assert shares.take() == 7  # a quarter, less the warm-up and the end of a loop, would be 8
    seconds = 24
    assert shares.take() == 6
    seconds = 6
    assert shares.take() == 1, "less than the least"
    seconds = 2.9
    assert shares.take() == 0, "the time is over"


def test_a_measurement_begins_when_the_requests_from_before_it_are_answered() -> None:
    settings = Settings()
    slowest = min(WANTED[footage.name] for footage in settings.footage if footage.name in WANTED)
    assert settings.pace.warm_up >= settings.in_flight / slowest


def test_one_server_measures_the_networks_and_each_measures_every_video() -> None:
    cells = [
        cell
        for decoder in ("auto", "cpu")
        for cell in plan_cells("x_net", ["a", "b"], decoder, ("network", "decode"), 48)
    ]
    assert [(cell.decoder, cell.name, cell.in_flight) for cell in cells] == [
        *(("auto", "x_net", count) for count in (32, 1, 8)),
        *((decoder, video, 48) for decoder in ("auto", "cpu") for video in ("a", "b")),
    ]
    names = " ".join(footage.name for footage in all_footage())
    for kind in ("h264-256p", "h264-720p", "h264-1080p", "hevc-1080p", "hevc10-720p", "av1-"):
        assert kind in names


def test_the_use_of_gpu_and_processor_is_that_of_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(NVIDIA_SMI)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    with UsageMonitor() as monitor:
        time.sleep(0.3)  # the first line, without a figure for the decoder, is from before the block
        with monitor.watch() as use:
            subprocess.run([sys.executable, "-c", burn], check=True)
    assert use.gpu_percent == pytest.approx(80, abs=4)
    assert use.decoder_percent == pytest.approx(60, abs=6)
    assert use.gpu_megabytes == 2000
    assert 0.05 < use.cores < 1.5


def test_a_server_is_measured_and_compared_with_the_cpu(motion_server: Triton, videos: dict[str, bytes]) -> None:
    references = References(MOTION, videos)
    with UsageMonitor() as monitor:
        server = ServerMeasurement(motion_server, references, monitor)
        first = list(server.first_requests([1, 2]))
        assert [one.what for one in first][1:] == ["network, batch 1", "network, batch 2"]
        assert all(len(one.first) == 3 and one.ratio > 0 for one in first)
        answers = {answer.video: answer for answer in server.answers()}
        assert answers.keys() == videos.keys()
        assert all(answer.decoder == "cpu" for answer in answers.values()) or torch.cuda.is_available()
        assert all(answer.closeness.holds("fp16", 1.0) for answer in answers.values())
        for part, name in (("network", MOTION.net_name), ("service", "0.mp4"), ("decode", "0.mp4")):
            measured = server.measure(Cell(part, name, "auto", 3), 0.3, 0.1)
            measured.calls.check_all_answered(part)
            assert measured.compared == (3 if part == "decode" else 0)
            assert measured.equal == measured.compared
            assert (measured.by_nvdec is None) == (part == "network")
        # Clips of another video are not equal to it.
        videos["0.mp4"] = videos["1.mp4"]
        assert server.measure(Cell("decode", "0.mp4", "auto", 2), 0.2, 0.0).equal == 0


def test_the_page_has_every_result_and_one_line_about_the_rest(tmp_path: Path) -> None:
    calls = Calls(2.0, answered=[0.1] * 60, refused=[0.2])
    use = Use(gpu_percent=50, decoder_percent=25, gpu_megabytes=4000, cores=7.25)
    video = "h264-1080p-10s-short-groups.mp4"
    results = Results("1 x a GPU", "x3d_m as TorchScript, fp16", "fp16")
    results.first = [FirstRequests("service", [0.3, 0.1, 0.1], 0.1)]
    results.measured = [
        Measured(Cell("network", "x3d_m_net", "auto", 32), calls, use),
        Measured(Cell("service", video, "auto", 48), calls, use, 0.75),
        Measured(Cell("decode", video, "cpu", 48), calls, Use(cores=16), 0.0, 47, 48),
    ]
    results.answers = [Answer(video, "nvdec", Closeness(1e-6, 1e-3, 1.0, 1))]
    cell = Cell("service", video, "cpu", 48)
    results.add_missing(cell, "the time was over")
    results.add_missing(cell, "the time was over")
    write_results(results, tmp_path)
    page = (tmp_path / "gpu_service.md").read_text()
    assert "Not measured: service by cpu (2 times): the time was over." in page
    assert "| service | 300.0 | 100.0 | 100.0 | 100.0 | 3.0 |" in page
    assert f"| {video} | auto | 48 | 30.0 | 100.0 | 100.0 | 1, 0 | 75 % | 25 | 50 % | 25 % | 4000 | 7.2 |" in page
    assert f"| {video} | cpu | 48 | 30.0 | 100.0 | 100.0 | 1, 0 | 0 % | 47 of 48 |  |  |  |  | 16.0 |" in page
    assert f"| {video} | nvdec | 1.0e-06 | 1.0e-03 | yes |" in page
    with (tmp_path / "gpu_service.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wanted"] for row in rows] == ["500", "25", ""]
    assert (tmp_path / "gpu_service.png").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_one_command_measures_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_service", "--quick", "--minutes", "4", "--out", str(tmp_path)]
    environment = {**os.environ, **pretend_gpu(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "gpu_service.md").read_text()
    assert "Everything planned was measured." in page
    with (tmp_path / "gpu_service.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 2 * 2 * 2
    assert all(row["failed"] == "0" for row in rows)
    # On a busy machine one of these measurements, 0.3 s each, may see no answer, or nothing of the GPU.
    assert {row["part"] for row in rows if float(row["a_second"]) > 0} == {"network", "service", "decode"}
    decoded = [row for row in rows if row["part"] == "decode"]
    assert all(row["equal_clips"] == row["compared_clips"] != "" for row in decoded)
    assert {row["nvdec_percent"] for row in decoded if row["decoder"] == "cpu"} == {"0"}
    assert all(int(row["nvdec_percent"]) > 50 for row in decoded if row["decoder"] == "auto")
    assert {row["gpu_percent"] for row in rows if row["gpu_percent"]} == {"60"}
    assert "NVDEC of GPU 0: h264 of 8 bits ready" in (tmp_path / "triton_auto.log").read_text()


@pytest.mark.long
def test_settings_of_the_decode_step_can_be_compared(tmp_path: Path) -> None:
    choice = ["--parts", "decode", "--decoders", "cpu", "--first", "1", "--set", "workers=1", "max_waiting=9"]
    command = [sys.executable, "-m", "benchmarks.gpu_service", "--quick", *choice, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Decode step: workers=1, max_waiting=9." in (tmp_path / "gpu_service.md").read_text()
    with (tmp_path / "gpu_service.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["part"], row["decoder"]) == ("decode", "cpu")
