"""Plans: what they refuse, what they say, and how they follow from a load test."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clip_decode.limits import Limits
from clipserve import InvalidRequest
from clipserve.command_line import build_app
from clipserve.contract import ClipContract
from clipserve.loadtest.measurements import Measurement
from clipserve.loadtest.report import write_csv
from clipserve.plan.load_test import read_load_test
from clipserve.plan.planning import make_plan
from clipserve.plan.utilisation import MAX_UTILISATION, find_utilisation, wait_at
from clipserve.plan.workload import MAX_PIXELS, MAX_SECONDS, Workload
from clipserve_export.capacity import max_clips, max_videos
from clipserve_export.formats import FORMATS
from clipserve_export.moves import replace_texts
from clipserve_export.repository import Chosen, model_configs
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import OWN, SPECS, ModelSpec


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
        ({"hours": 5}, "--hours needs --videos"),
        ({"rate": 1, "hours": 5}, "--rate and --hours"),
        ({"rate": 1, "videos": 5}, "--videos needs --hours or --servers; got it with a rate"),
        ({"rate": 1, "servers": 5}, "--rate and --servers"),
        ({"rate": 0}, "rate must be a number above 0"),
        ({"rate": math.inf}, "rate must be a number above 0"),
        ({"rate": 1, "size": "720p"}, "such as 1280x720"),
        ({"rate": 1, "codec": "gif"}, "'mpeg2', got 'gif'"),
        ({"rate": 1, "seconds": 1e9}, "to 14,400; got"),
        ({"rate": 1e308}, "rate must be a number above 0, from 0.000001 to 1,000,000,000,000"),
        ({"rate": 1e-320}, "rate must be a number above 0"),
        ({"per_day": 5e-324}, "per_day must be a number above 0"),
        ({"videos": 1e6, "hours": 1e-300}, "hours must be a number above 0"),
        ({"rate": 1, "price": 1e300}, "price must be a number above 0"),
        ({"rate": 1, "size": "99999x99999"}, "a server takes 35,651,584"),
        ({"rate": 1, "cores": 10**400}, "from 1 to 1,024"),
        ({"servers": 10**400}, "from 1 to 1,000,000"),
        ({"rate": 1, "model": "resnet"}, "one of x3d_xs"),
        ({"rate": 1, "clips": 31}, "from 1 to 30"),
        ({"rate": 1, "cores": 0}, "from 1 to 1,024"),
        ({"rate": 1, "latency": -5}, "latency must be a number above 0"),
    ],
)
def test_nonsense_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        make_plan(Workload(**wrong))


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
    with pytest.raises(InvalidRequest, match="clips is 5, and a load test sends requests for one clip"):
        make_plan(Workload(rate=70, model="motion", clips=5), findings)


def test_a_load_test_of_a_model_of_ones_own_is_planned_by_the_contract_in_its_repository(
    load_test: Path, tmp_path: Path
) -> None:
    contract = ClipContract(frames=64, stride=2, short_side=224, crop=224, classes=3)
    spec = ModelSpec(name="mine", family=OWN, contract=contract, labels="", clip_megabytes=100)
    repository = tmp_path / "repository"
    chosen = Chosen(form=FORMATS["onnx"], contract=contract, serving=Serving())
    replace_texts(repository, model_configs(repository, spec, chosen))
    (load_test / "facts.json").write_text(json.dumps({"model": "mine", "server_cores": 4}))
    arguments = ("--rate", "70", "--megabytes", "3", "--model", "mine")
    measured = ("--measured", str(load_test))
    made = json.loads(run(*arguments, *measured, "--repository", str(repository), "--json").stdout)
    shm = math.ceil(64 + (64 + 4) * (3 + 64 * 224 * 224 * 3 / 2**20))
    assert (made["servers"], made["shm_megabytes"]) == (2, shm)
    largest_run = max_videos(spec) * max_clips(spec) * 100
    assert made["memory_megabytes"] == 2048 + largest_run + shm
    elsewhere = run(*arguments, *measured, "--repository", str(tmp_path / "other"))
    assert elsewhere.exit_code == 2
    assert "has no model 'mine'" in elsewhere.stderr
    assert "loadtest --model mine" in run(*arguments).stderr.replace("\n", " ")


def test_a_folder_without_results_is_refused(tmp_path: Path, load_test: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no results of a load test"):
        read_load_test(tmp_path / "other")
    (load_test / "facts.json").write_text("[]")
    with pytest.raises(InvalidRequest, match="has no results of a load test"):
        read_load_test(load_test)


def test_a_load_test_without_open_loop_gives_the_latency_of_its_smallest_load(tmp_path: Path) -> None:
    runs = [Measurement("ensemble", "closed", load, throughput=30.0 + load, p95=40.0 * load) for load in (4, 2)]
    write_csv(tmp_path / "load.csv", runs)
    (tmp_path / "facts.json").write_text(json.dumps({"model": "motion", "server_cores": 4}))
    findings = read_load_test(tmp_path)
    assert make_plan(Workload(rate=70, model="motion", latency=500), findings).servers >= 3
    with pytest.raises(InvalidRequest, match="one request alone takes about 80 ms"):
        make_plan(Workload(rate=70, model="motion", latency=50), findings)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("load.csv", "through,mode,load,throughput,p95,failure\nensemble,closed,1,0,40,\n"),
        ("load.csv", "through,mode,load,throughput,p95,failure\nensemble,closed,1,nan,40,\n"),
        ("load.csv", "through,mode,load,throughput,p95,failure\nensemble,closed,1,inf,40,\n"),
        ("load.csv", "through,mode,load,throughput,p95,failure\nensemble,closed,1\n"),
        ("load.csv", f"through\n{'x' * 200_000}\n"),
        ("load.csv", "\x00"),
        ("load.csv", ""),
        ("facts.json", '{"model": "motion", "server_cores": 0}'),
        ("facts.json", '{"model": "motion", "server_cores": "4"}'),
        ("facts.json", '{"model": "motion", "server_cores": true}'),
        ("facts.json", "7"),
    ],
)
def test_results_that_are_none_are_refused(load_test: Path, file: str, text: str) -> None:
    (load_test / file).write_text(text)
    with pytest.raises(InvalidRequest, match="has no r"):
        read_load_test(load_test)


def test_silly_numbers_end_in_numbers() -> None:
    """Up to the limits of each, also together."""
    for on in ("cpu", "h100"):
        for size, seconds in (("10x10", 1e-6), ("8192x4352", 14_400)):
            common: dict[str, Any] = {"on": on, "size": size, "seconds": seconds, "megabytes": 1, "price": 1e12}
            for much in ({"rate": 1e12}, {"rate": 1e-6}, {"videos": 1e12, "hours": 1e-6}, {"servers": 1_000_000}):
                made = make_plan(Workload(**common, **much, clips=30))
                assert all(math.isfinite(step.value) for step in made.steps)
                assert made.servers >= 1


def test_the_limits_are_those_of_the_decode_step() -> None:
    assert (Limits().max_seconds, Limits().max_pixels) == (MAX_SECONDS, MAX_PIXELS)


def test_fewer_cores_beside_a_gpu_may_make_decoding_the_slower_part() -> None:
    """With 30 clips a video, the network of x3d_l is slower beside 16 cores."""
    common: dict[str, Any] = {"rate": 5, "on": "h100", "size": "340x256", "clips": 30, "model": "x3d_l"}
    sixteen, one = make_plan(Workload(**common)), make_plan(Workload(**common, cores=1))
    values = [{step.what: step for step in made.steps} for made in (sixteen, one)]
    assert "the network is slower" in values[0]["a server with one H100"].how
    assert "decoding is slower" in values[1]["a server with one H100"].how
    decoding = [steps["decoding, in the service"].value for steps in values]
    assert decoding[1] == pytest.approx(decoding[0] / 16)
    assert one.capacity == decoding[1] < sixteen.capacity
    assert "1 are taken to decode in proportion" in str(one.extrapolations)


def test_a_request_alone_takes_no_less_than_its_processor_time_on_one_core() -> None:
    made = make_plan(Workload(rate=0.1, cores=1, model="mvit_base_32x3", clips=5))
    steps = {step.what: step for step in made.steps}
    alone = steps["p95 of a request alone"]
    assert alone.how.endswith("(decoding on 1 core + networks on 1)")
    assert alone.value / 1000 > steps["a video"].value


def test_shared_memory_of_a_gpu_server_is_what_its_start_asks_for() -> None:
    """64 + (64 waiting + 16 workers + 18 NVDEC streams) x (3 + 3)."""
    clip = 16 * 256**2 * 3 / 2**20
    made = make_plan(Workload(rate=5, on="h100", megabytes=3))
    assert made.shm_megabytes == math.ceil(64 + (64 + 16 + 18) * (3 + clip))
    assert make_plan(Workload(rate=5, megabytes=3)).shm_megabytes == math.ceil(64 + (64 + 16) * (3 + clip))


def test_the_command_shows_arithmetic_sources_and_extrapolation(load_test: Path) -> None:
    shown = run("--rate", "50", "--size", "1920x1080", "--latency", "3000", "--price", "2")
    assert shown.exit_code == 0
    for text in (
        "5 servers: 80 cores",
        "1.13 x (0.826 + 0.109)",
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
