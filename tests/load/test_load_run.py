"""The whole load test, as it is called, against a real Triton by the real perf_analyzer."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.load.conftest import Restricted
from tests.load.false_server import false_server

PROGRAM = ROOT / "benchmarks" / "load"
QUICK = ("--seconds", "1.5", "--concurrency", "2", "--rate", "15", "--search-steps", "1")

pytestmark = pytest.mark.usefixtures("analyzer")


def run(*options, **variables):
    environment = {**os.environ, "COLUMNS": "200", **variables}
    environment.pop("CLIPSERVE_URL", None)
    command = [sys.executable, PROGRAM, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def at(server: Restricted, url=None):
    return (
        "--url",
        url or server.triton.grpc_url,
        "--key-file",
        server.key_file,
        "--metrics-url",
        server.triton.metrics_url,
    )


@pytest.fixture(scope="module")
def done(restricted, videos, tmp_path_factory):
    """One whole run, and the folder it left."""
    out = tmp_path_factory.mktemp("out")
    # Hours, so that no noise of this machine makes the lowest rate miss it.
    result = run(*at(restricted), "--videos", videos, "--out", out, "--latency-limit", "3600000", *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = out.iterdir()
    return result, folder


def test_every_way_through_is_measured_in_both_loops(done):
    rows = list(csv.DictReader((done[1] / "load.csv").open()))
    measured = {(row["through"], row["mode"]) for row in rows if not row["failure"]}
    assert measured == {(way, mode) for way in ("ensemble", "decode", "net") for mode in ("closed", "open")}
    closed = next(row for row in rows if row["mode"] == "closed")
    assert float(closed["throughput"]) > 1
    assert float(closed["p50"]) <= float(closed["p95"]) <= float(closed["p99"])


def test_the_raw_exports_of_each_run_are_kept_and_nothing_of_the_inputs(done, restricted):
    raw = sorted((done[1] / "raw").iterdir())
    assert raw[0].name == "01-ensemble-closed-2"
    assert raw[-1].name.endswith("-gate")
    assert {path.name for path in raw[0].iterdir()} == {"command.json", "errors.txt", "said.txt", "table.csv"}
    assert not (done[1] / "inputs").exists()
    kept = "".join(path.read_text(errors="replace") for path in done[1].rglob("*") if path.suffix in {".json", ".txt"})
    assert restricted.key_file.read_text().strip() not in kept


def test_pictures_and_a_page_that_needs_nothing_else(done):
    assert {path.name for path in done[1].glob("*.png")} == {"latency.png", "split.png"}
    page = (done[1] / "load.html").read_text()
    assert page.count("<svg") == 2
    assert "prefers-color-scheme: dark" in page
    assert 'src="' not in page
    assert "http-equiv" not in page


def test_it_tells_which_step_of_how_many_runs_and_what_came_of_it(done):
    said = done[0].stdout
    assert "[1/10] ensemble, 2 at a time; about 0:" in said
    # Whether the highest rate is refused depends on how busy this machine is.
    assert re.search(
        r"^(even the highest|[\d.]+ a second is the highest) rate .* p95 within 3.6e\+06 ms", said, re.MULTILINE
    )
    assert "accuracy gate passed" in said


def test_answers_that_are_wrong_under_load_fail_the_run(restricted, videos, tmp_path):
    with false_server(restricted.triton.grpc_url, honest=5) as url:
        result = run(*at(restricted, url), "--videos", videos, "--out", tmp_path, "--through", "ensemble", *QUICK)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "ACCURACY GATE FAILED" in result.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--url", "127.0.0.1:1"), "nobody answers at 127.0.0.1:1"),
        (("--model", "nix"), "has no model 'nix'"),
        (("--percentile", "80"), "--percentile is one of 50, 90, 95, 99"),
        (("--key-file", "/nowhere"), "cannot read --key-file /nowhere"),
        (("--videos", "/nowhere"), "there is no file /nowhere"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(restricted, videos, tmp_path, options, says):
    result = run(*at(restricted), "--videos", videos, "--out", tmp_path, *QUICK, *options)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_without_perf_analyzer_and_a_way_to_fetch_it_the_error_says_where_to_get_one(videos, tmp_path):
    result = run("--url", "127.0.0.1:1", "--videos", videos, "--out", tmp_path, PERF_ANALYZER="/nowhere/perf_analyzer")
    assert result.returncode == 2
    assert "/nowhere/perf_analyzer does not run: No such file" in result.stderr


def test_a_fetch_that_fails_says_what_to_install(tmp_path):
    from loadtest.analyzer import find_analyzer
    from loadtest.errors import LoadTestError

    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from loadtest.analyzer import find_analyzer\n"
        "find_analyzer(Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "PATH": "/nowhere", "PIP_INDEX_URL": "http://127.0.0.1:1/", "PIP_RETRIES": "0"}
    environment["PIP_NO_CACHE_DIR"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", script, PROGRAM, tmp_path], capture_output=True, text=True, env=environment, timeout=120
    )
    assert f"{LoadTestError.__name__}: there is no perf_analyzer on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert callable(find_analyzer)


def processes_with(text):
    """Ids of processes whose command line has it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ended_early_it_leaves_no_process_and_no_model_behind_but_what_it_measured(
    restricted, videos, tmp_path, number, status
):
    options = ("--videos", videos, "--out", tmp_path, "--seconds", "3", "--concurrency", "1,2", "--rate", "5")
    command = [sys.executable, PROGRAM, *map(str, (*at(restricted), *options))]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while "[2/" not in (tmp_path / "said").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    assert any("perf_analyzer" in Path(f"/proc/{pid}/cmdline").read_text() for pid in processes_with(str(tmp_path)))
    process.send_signal(number)
    assert process.wait(60) == status
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("*/raw/01-ensemble-closed-1/table.csv"))
    assert list(tmp_path.glob("*/load.csv"))
    from tritonclient import grpc as triton_grpc

    with triton_grpc.InferenceServerClient(restricted.triton.grpc_url) as client:
        assert not client.is_model_ready("motion_decode_alone")
