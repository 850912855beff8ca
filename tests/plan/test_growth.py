"""The plan against what was measured: benchmarks/results/growth.csv, within 20 %."""

import csv
from typing import Any

import pytest

from clipserve.plan.costs import decode_cost, length_growth
from clipserve.plan.figures import interpolate, load_figures
from clipserve.plan.planning import make_plan
from clipserve.plan.workload import Workload
from tests.exports import ROOT

RESULTS = ROOT / "benchmarks" / "results"
# What growth was measured with; two cores.
MEASURED: dict[str, Any] = {"rate": 1.0, "size": "340x256", "model": "x3d_m", "cores": 2}


def read_csv(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


GROWTH = [
    {"kind": row["kind"], **{key: float(row[key]) for key in ("size", "rate", "p50", "p95")}}
    for row in read_csv("growth.csv")
]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [row for row in GROWTH if row["kind"] == kind]


def within(measured: float) -> Any:
    return pytest.approx(measured, rel=0.2)


def alone(**changes: Any) -> float:
    """Seconds of one request alone, half of them faster: the plan's p95 over the measured factor."""
    (step,) = [step for step in make_plan(Workload(**(MEASURED | changes))).steps if step.what.startswith("p95 of")]
    return step.value / 1000 / load_figures()["latency"]["p95_over_p50"]


def test_the_figures_are_those_of_the_committed_tables() -> None:
    figures = load_figures()
    points = {kind: {f"{row['size']:g}": row["p50"] for row in of_kind(kind)} for kind in ("views", "length")}
    assert figures["clips"]["p50_seconds"] == points["views"]
    assert figures["length"]["p50_seconds"] == points["length"]
    first = of_kind("concurrency")[0]
    assert figures["latency"]["p95_over_p50"] == pytest.approx(first["p95"] / first["p50"], abs=0.005)
    decode = {
        (row["file"].split(".")[0], row["workload"]): float(row["milliseconds"])
        for row in read_csv("decode.csv")
        if row["decoder"] == "clipserve" and row["footage"] == "own footage"
    }
    for codec, _, height, seconds, *times in figures["decode"]["rows"]:
        stem = f"{codec}-{height}p-{seconds}s"
        assert times in [
            [decode[name, workload] for workload in ("uniform 16", "uniform 32", "5 clips")]
            for name in (stem, f"{stem}-short-groups")
            if (name, "5 clips") in decode
        ], codec
    networks = {
        (row["model"], row["clips"], row["runtime"]): float(row["milliseconds"]) for row in read_csv("networks.csv")
    }
    for precision, of_models in figures["cpu_networks"]["milliseconds"].items():
        for model, milliseconds in of_models.items():
            if model != "motion":
                assert milliseconds == networks[model, "1", f"OpenVINO as served, {precision}"]


def test_the_capacity_of_two_cores_is_the_measured_peak() -> None:
    """None of its figures is from that run: decoding is from decode.csv, the network from another machine."""
    peak = max(row["rate"] for row in of_kind("concurrency"))
    assert make_plan(Workload(**MEASURED)).capacity == within(peak)


@pytest.mark.parametrize("servers", [1, 2])
def test_servers_of_a_core_add_up_as_measured(servers: int) -> None:
    (row,) = [row for row in of_kind("servers") if row["size"] == servers]
    assert servers * make_plan(Workload(**(MEASURED | {"cores": 1}))).capacity == within(row["rate"])


@pytest.mark.parametrize(
    "row", [row for row in of_kind("views") if row["size"] > 1], ids=lambda row: f"{row['size']:g}"
)
def test_clips_cost_what_was_measured(row: dict[str, Any]) -> None:
    assert make_plan(Workload(**MEASURED, clips=int(row["size"]))).capacity == within(1 / row["p50"])


@pytest.mark.parametrize(
    "row", [*of_kind("views"), *of_kind("length")], ids=lambda row: f"{row['kind']}-{row['size']:g}"
)
def test_a_request_alone_takes_what_was_measured(row: dict[str, Any]) -> None:
    changes = {"clips": int(row["size"])} if row["kind"] == "views" else {"seconds": row["size"]}
    assert alone(**changes) == within(row["p50"])


@pytest.mark.parametrize("kind", ["views", "length"])
def test_each_point_follows_from_the_others(kind: str) -> None:
    """What a plan says about sizes that were not measured."""
    points = [(row["size"], row["p50"]) for row in of_kind(kind)]
    for left_out in points:
        others = [point for point in points if point != left_out]
        beyond = "flat" if kind == "length" and left_out[0] > others[-1][0] else "line"
        assert interpolate(others, left_out[0], beyond=beyond)[0] == within(left_out[1])


def test_longer_videos_cost_hardly_more_and_the_plan_says_that_it_extrapolates() -> None:
    assert length_growth(10) == (1, False)
    assert length_growth(3600) == (length_growth(120)[0], True)
    assert "from 5 to 120 s" in decode_cost(Workload(rate=1, seconds=3600)).extrapolated
