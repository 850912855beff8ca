"""Plans: what they refuse, what they say, and how they follow from a load test."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clipserve import InvalidRequest
from clipserve.command_line import build_app
from clipserve.loadtest.measurements import Measurement
from clipserve.loadtest.report import write_csv
from clipserve.plan.load_test import read_load_test
from clipserve.plan.planning import MAX_UTILISATION, find_utilisation, make_plan, wait_at
from clipserve.plan.workload import Workload
from clipserve_export.specs import SPECS


@pytest.fixture
def load_test(tmp_path: Path) -> Path:
    """Results of `clipserve loadtest`, on four cores."""
    runs = [
        Measurement("ensemble", "closed", 1, throughput=30.0, p95=40.0),
        Measurement("ensemble", "closed", 4, throughput=40.0, p95=120.0),
        Measurement("ensemble", "open", 20, throughput=20.0, p95=60.0),
        Measurement("ensemble", "open", 30, throughput=30.0, p95=150.0),
        Measurement("ensemble", "open", 50, failure="[busy] many videos are waiting"),
        Measurement("net", "closed", 4, throughput=300.0, p95=20.0),
    ]
    write_csv(tmp_path / "load.csv", runs)
    (tmp_path / "facts.json").write_text(json.dumps({"model": "motion", "server_cores": 4}))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(), ["plan", *arguments])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "none of them"),
        ({"rate": 1, "per_day": 5}, "--rate and --per-day"),
        ({"videos": 5}, "none of them"),
        ({"hours": 5}, "--hours goes with --videos"),
        ({"rate": 1, "hours": 5}, "--rate and --hours"),
        ({"rate": 1, "videos": 5}, "not with a rate"),
        ({"rate": 1, "servers": 5}, "--rate and --servers"),
        ({"rate": 0}, "rate is a number above 0"),
        ({"rate": math.inf}, "rate is a number above 0"),
        ({"rate": 1, "size": "720p"}, "such as 1280x720"),
        ({"rate": 1, "codec": "gif"}, "'mpeg2', got 'gif'"),
        ({"rate": 1, "seconds": 1e9}, "at most 86,400"),
        ({"rate": 1, "model": "resnet"}, "one of x3d_xs"),
        ({"rate": 1, "clips": 31}, "from 1 to 30"),
        ({"rate": 1, "cores": 0}, "from 1 on"),
        ({"rate": 1, "latency": -5}, "latency is a number above 0"),
    ],
)
def test_nonsense_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Workload(**wrong)


def test_a_latency_that_one_request_alone_exceeds_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="one request alone takes about"):
        make_plan(Workload(rate=5, latency=50))


def test_files_that_a_server_refuses_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than a server takes, 512 MiB"):
        make_plan(Workload(rate=5, megabytes=600))


@pytest.mark.parametrize("model", ["x3d_xs", "x3d_l", "mvit_base_32x3", "motion"])
@pytest.mark.parametrize("on", ["cpu", "h100"])
@pytest.mark.parametrize("codec", ["h264", "vp9", "mpeg2"])
def test_more_work_needs_more(model: str, on: Any, codec: Any) -> None:
    assert model in SPECS
    common: dict[str, Any] = {"model": model, "on": on, "codec": codec}
    small = make_plan(Workload(rate=100, **common))
    assert make_plan(Workload(per_day=100 * 86_400, **common)).servers == small.servers
    assert make_plan(Workload(videos=720_000, hours=2, **common)).servers == small.servers
    assert make_plan(Workload(rate=1000, **common)).servers > small.servers
    assert make_plan(Workload(rate=100, clips=10, **common)).capacity < small.capacity
    assert make_plan(Workload(rate=100, size="3840x2160", **common)).capacity < small.capacity
    assert make_plan(Workload(rate=100, seconds=60, **common)).capacity < small.capacity
    assert small.gpus == (small.servers if on == "h100" else 0)
    assert small.servers * small.capacity * small.utilisation >= 100


def test_servers_that_are_there_do_so_much_and_take_so_long() -> None:
    one = make_plan(Workload(servers=1, on="h100"))
    forty = make_plan(Workload(servers=40, on="h100", videos=1e7, price=4))
    assert forty.rate == pytest.approx(40 * one.capacity * one.utilisation)
    assert (forty.servers, forty.gpus) == (40, 40)
    values = {step.what: step.value for step in forty.steps}
    assert values["time for all videos"] == pytest.approx(1e7 / forty.rate / 3600)
    assert values["price of all videos"] == pytest.approx(40 * 4 * 1e7 / forty.rate / 3600)
    assert make_plan(Workload(rate=forty.rate, on="h100")).servers == 40


def test_the_wait_stays_within_what_the_latency_leaves() -> None:
    for seconds in (0.001, 0.1, 1.0, 100.0):
        utilisation = find_utilisation(10.0, seconds)
        assert 0 < utilisation <= MAX_UTILISATION
        assert wait_at(10.0, utilisation) <= seconds
    assert make_plan(Workload(rate=5, latency=900)).utilisation < make_plan(Workload(rate=5, latency=5000)).utilisation


def test_what_was_measured_is_not_called_extrapolated() -> None:
    near = Workload(rate=5, size="1280x720", megabytes=3, cores=2)
    assert make_plan(near).extrapolations == []
    far = make_plan(Workload(rate=5, size="7680x4320", model="x3d_l", cores=64)).extrapolations
    assert [word for word in ("h264 was measured", "x3d_l was not", "64 are taken", "0.1 bit") if word in str(far)] == [
        "h264 was measured", "x3d_l was not", "64 are taken", "0.1 bit",
    ]  # fmt: skip


def test_a_load_test_gives_the_capacity_and_the_rate_within_the_latency(load_test: Path) -> None:
    findings = read_load_test(load_test)
    bulk = make_plan(Workload(rate=70, model="motion"), findings)
    assert (bulk.capacity, bulk.servers, bulk.cores) == (40.0, 2, 8)
    online = make_plan(Workload(rate=70, model="motion", latency=100), findings)
    assert (online.capacity * online.utilisation, online.servers) == (20.0, 4)
    larger = make_plan(Workload(rate=70, model="motion", cores=8), findings)
    assert (larger.capacity, larger.servers) == (80.0, 1)
    assert "4 cores were tested" in str(larger.extrapolations)
    with pytest.raises(InvalidRequest, match="the best p95 was 60 ms"):
        make_plan(Workload(rate=70, model="motion", latency=50), findings)
    with pytest.raises(InvalidRequest, match="the load test is of 'motion'"):
        make_plan(Workload(rate=70), findings)


def test_a_folder_without_results_is_refused(tmp_path: Path, load_test: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no results of a load test"):
        read_load_test(tmp_path / "other")
    (load_test / "facts.json").write_text("[]")
    with pytest.raises(InvalidRequest, match="has no results of a load test"):
        read_load_test(load_test)


def test_the_command_shows_arithmetic_sources_and_extrapolation(load_test: Path) -> None:
    shown = run("--rate", "50", "--size", "1920x1080", "--latency", "3000", "--price", "2")
    assert shown.exit_code == 0
    for text in (
        "4 servers: 64 cores",
        "1.09 x (0.826 + 0.109)",
        "benchmarks/results/decode.csv",
        "AMD EPYC",
        "~ beyond",
    ):
        assert text in shown.stdout
    measured = run("--rate", "70", "--model", "motion", "--measured", str(load_test))
    assert "2 servers: 8 cores" in measured.stdout
    assert str(load_test / "load.csv") in measured.stdout.replace("\n", "")


def test_the_command_as_json() -> None:
    made = json.loads(run("--videos", "10e6", "--hours", "72", "--on", "h100", "--json").stdout)
    assert made["workload"]["videos"] == 1e7
    assert (made["servers"], made["gpus"]) == (2, 2)
    assert {"what", "value", "unit", "how", "source", "extrapolated"} == made["steps"][0].keys()
    assert made["extrapolations"]


@pytest.mark.parametrize(
    "arguments", [("--rate", "5", "--latency", "1"), ("--rate", "x"), ("--rate", "1", "--size", "1")]
)
def test_the_command_refuses_with_status_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
