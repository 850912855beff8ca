"""The whole load test, as users run it, against a real Triton by the real perf_analyzer."""

import csv
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient import grpc as triton_grpc
from typer.testing import CliRunner

from clipserve.command_line import build_app
from clipserve.loadtest.load_levels import LoadTestError
from clipserve.loadtest.perf_analyzer import find_perf_analyzer
from clipserve.plan.load_test import read_load_test
from clipserve.plan.planning import make_plan
from clipserve.plan.workload import Workload
from tests.interrupts import interruptible
from tests.loadtest.conftest import Restricted
from tests.loadtest.falsifying_server import falsifying_server
from tests.loadtest.program import COMMAND, QUICK, run
from tests.watching import HANG_SECONDS, wait_for

pytestmark = pytest.mark.usefixtures("analyzer")


def at(server: Restricted, url=None):
    return (
        "--url",
        url or server.triton.grpc_url,
        "--key-file",
        server.key_file,
        "--metrics-url",
        server.triton.metrics_url,
    )


@pytest.fixture
def invoke(monkeypatch):
    """Call the command in this process, which saves seconds of imports."""
    monkeypatch.delenv("CLIPSERVE_URL", raising=False)
    return lambda *options: CliRunner().invoke(build_app(), ["loadtest", *map(str, options)])


@pytest.fixture(scope="module")
def done(restricted, videos, tmp_path_factory):
    """One whole run, and the folder it left."""
    out = tmp_path_factory.mktemp("out")
    # A limit of hours, so that no noise of this machine makes a rate miss it.
    options = ("--videos", videos, "--out", out, "--latency-limit", "3600000", "--search-steps", "1")
    result = run(*at(restricted), *options, *QUICK)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = out.iterdir()
    return result, folder


def test_every_part_of_the_service_is_measured_in_both_loops(done):
    rows = list(csv.DictReader((done[1] / "load.csv").open()))
    measured = {(row["through"], row["mode"]) for row in rows if not row["failure"]}
    assert measured == {(part, mode) for part in ("ensemble", "decode", "net") for mode in ("closed", "open")}
    closed = next(row for row in rows if row["mode"] == "closed")
    assert float(closed["throughput"]) > 1
    assert float(closed["p50"]) <= float(closed["p95"]) <= float(closed["p99"])


def test_the_raw_output_of_each_run_is_kept_without_the_inputs_and_the_key(done, restricted):
    raw = sorted((done[1] / "raw").iterdir())
    assert raw[0].name == "01-ensemble-closed-2"
    assert raw[-1].name.endswith("-accuracy-check")
    assert {path.name for path in raw[0].iterdir()} == {"command.json", "stderr.txt", "stdout.txt", "table.csv"}
    assert not (done[1] / "inputs").exists()
    kept = "".join(path.read_text(errors="replace") for path in done[1].rglob("*") if path.suffix in {".json", ".txt"})
    assert restricted.key_file.read_text().strip() not in kept


def test_facts_that_a_plan_reads(done):
    findings = read_load_test(done[1])
    assert (findings.model, findings.cores) == ("motion", None)  # a server that this command did not start
    assert findings.peak > 1
    assert make_plan(Workload(rate=10 * findings.peak, model="motion", cores=2), findings).servers >= 10


def test_plots_and_a_page_that_needs_no_other_file(done):
    assert {path.name for path in done[1].glob("*.png")} == {"latency.png", "split.png"}
    page = (done[1] / "load.html").read_text()
    assert page.count("<svg") == 2
    assert "prefers-color-scheme: dark" in page
    assert 'src="' not in page
    assert "http-equiv" not in page


def test_it_says_which_run_of_how_many_begins_and_the_results(done):
    stdout = done[0].stdout
    assert "[1/10] ensemble, 2 in flight; about 0:" in stdout
    # Whether the server refuses the highest rate depends on how busy this machine is.
    assert re.search(
        r"^(even the highest|[\d.]+ a second is the highest) rate .* p95 within 3.6e\+06 ms", stdout, re.MULTILINE
    )
    assert "accuracy check passed" in stdout


def test_answers_that_are_wrong_under_load_fail_the_run(restricted, videos, tmp_path, invoke):
    options = ("--videos", videos, "--out", tmp_path, "--through", "ensemble", "--search-steps", "0")
    with falsifying_server(restricted.triton.grpc_url, honest=5) as url:
        result = invoke(*at(restricted, url), *options, *QUICK)
    assert result.exit_code == 1, result.output
    assert "ACCURACY CHECK FAILED" in result.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--url", "127.0.0.1:1"), "no server answers at 127.0.0.1:1"),
        (("--model", "nix"), "has no model 'nix'"),
        (("--percentile", "80"), "--percentile must be one of 50, 90, 95, 99"),
        (("--key-file", "/nowhere"), "cannot read --key-file /nowhere"),
        (("--videos", "/nowhere"), "there is no file /nowhere"),
        (("--out", "/proc"), "cannot write into --out /proc"),
        (("--rate", "nan"), "--rate takes numbers above 0"),
        (("--seconds", "nan"), "--seconds takes a finite number; got nan"),
        (("--url", "", "--model", "nix"), "there is no model 'nix'; --model must be one of x3d_xs"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(restricted, videos, tmp_path, invoke, options, says):
    result = invoke(*at(restricted), "--videos", videos, "--out", tmp_path, *QUICK, *options)
    assert result.exit_code == 2
    assert says in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("place", ["--out", "XDG_CACHE_HOME"])
def test_what_cannot_be_written_is_told_in_a_sentence(invoke, monkeypatch, tmp_path, videos, place):
    file = tmp_path / "file"
    file.touch()
    if place == "--out":
        result, says = invoke("--out", file), f"cannot write sample videos into {file}/videos"
    else:
        analyzer = find_perf_analyzer()
        monkeypatch.setenv("PERF_ANALYZER", str(analyzer.command))
        monkeypatch.setenv("LD_LIBRARY_PATH", analyzer.environment.get("LD_LIBRARY_PATH", ""))
        monkeypatch.setenv(place, str(file))
        result, says = invoke("--videos", videos, "--out", tmp_path / "out"), "motion cannot be exported: "
    assert result.exit_code == 2
    assert says in result.stderr.replace("\n", " ")
    assert "Not a directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_the_extra_the_error_says_what_to_install(invoke, monkeypatch, videos, tmp_path):
    for module in ("report", "plots"):
        monkeypatch.delitem(sys.modules, f"clipserve.loadtest.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("--url", "127.0.0.1:1", "--videos", videos, "--out", tmp_path)
    assert result.exit_code == 2
    assert "this needs matplotlib, which is not installed: pip install 'clipserve[loadtest]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_perf_analyzer_that_does_not_run_is_told_with_its_variable(invoke, monkeypatch, videos, tmp_path):
    monkeypatch.setenv("PERF_ANALYZER", "/nowhere/perf_analyzer")
    result = invoke("--url", "127.0.0.1:1", "--videos", videos, "--out", tmp_path)
    assert result.exit_code == 2
    assert "/nowhere/perf_analyzer does not run: No such file" in result.stderr
    assert "set PERF_ANALYZER" in result.stderr


def test_a_fetch_that_fails_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PERF_ANALYZER", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(LoadTestError, match=r"no perf_analyzer on this machine.*on Debian or Ubuntu install libb64-0d"):
        find_perf_analyzer(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PERF_ANALYZER", raising=False)
    (tmp_path / "file").touch()
    with pytest.raises(LoadTestError, match=r"cannot write perf_analyzer into .*/file: Not a directory; set XDG_CACHE"):
        find_perf_analyzer(tmp_path / "file")


def processes_with(text):
    """Command lines of processes that have the text, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in (words := path.read_bytes()):
                found[int(path.parent.name)] = words.decode()
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_early_it_leaves_no_process_and_no_model_but_the_results_so_far(
    restricted, videos, tmp_path, number, status
):
    options = ("--videos", videos, "--out", tmp_path, "--seconds", "1.5", "--concurrency", "1,2", "--rate", "5")
    command = [*COMMAND, *map(str, (*at(restricted), "--through", "ensemble,decode", *options))]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(interruptible(command), stdout=output, stderr=subprocess.STDOUT, text=True)
    assert wait_for(lambda: "[2/" in (tmp_path / "output").read_text(), 2 * HANG_SECONDS)
    assert wait_for(lambda: any("perf_analyzer" in words for words in processes_with(str(tmp_path)).values()))
    process.send_signal(number)
    assert process.wait(HANG_SECONDS) == status
    assert processes_with(str(tmp_path)) == {}
    assert list(tmp_path.glob("*/raw/01-ensemble-closed-1/table.csv"))
    assert list(tmp_path.glob("*/load.csv"))
    with triton_grpc.InferenceServerClient(restricted.triton.grpc_url) as client:
        assert not client.is_model_ready("motion_decode_alone")
