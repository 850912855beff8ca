"""Measures clipserve.ray: `python -m benchmarks.ray_data one`, `... two`.

one: the same videos through `classify_many` and through a Ray Dataset, to one server on this machine, in turns. two: a
Ray cluster of one node and one of two, each node with one core and a Triton of its own.

Each runs with so many videos and with three times as many. The difference gives the rate without the start; what is
left of the smaller run is the start: of the actors, and in `two` of the Tritons. Writes ray_data_one.md or
ray_data_two.md to benchmarks/results/.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.footage import kinetics_like
from benchmarks.growth import on_core
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import export_for_benchmark, serve
from benchmarks.harness.results import new_parser, table, write_page
from benchmarks.harness.rounds import Samples, take_turns
from clipserve import VideoClassifier
from clipserve_export.specs import SPECS

MORE = 3  # times as many videos in the larger run
MIN_SHARE = 0.9  # of the rate of classify_many
MIN_SPEED_UP = 1.7  # of two nodes
PARALLEL = 16

Work = Callable[[int], float]  # videos -> seconds


def time_rows(rows: Iterator[Any], count: int) -> float:
    """Seconds until all rows are there. Raises SystemExit if one is missing or failed."""
    started = time.perf_counter()
    errors = [error for row in rows if (error := row["error"] if isinstance(row, dict) else row.error)]
    found = time.perf_counter() - started
    if errors:
        raise SystemExit(f"{len(errors)} of {count} videos failed: {errors[0]}")
    return found


def through_client(model: str, url: str, video: Path) -> Work:
    """`classify_many` in this process."""

    def work(count: int) -> float:
        with VideoClassifier(model, url) as classifier:
            return time_rows(iter(classifier.classify_many([video] * count, parallel=PARALLEL)), count)

    return work


def through_ray(model: str, video: Path, **options: Any) -> Work:
    """A Dataset, in the cluster that this process is connected to."""
    import ray

    from clipserve.ray import classify

    def work(count: int) -> float:
        rows = [{"id": str(number), "path": str(video)} for number in range(count)]
        dataset = ray.data.from_items(rows, override_num_blocks=max(2, count // 50))
        results = classify(dataset, model, parallel=PARALLEL, batch_rows=50, **options)
        return time_rows(results.iter_rows(), count)

    return work


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A Ray cluster on this machine whose nodes have a core each: node n runs on core n alone."""
    import ray
    from ray.cluster_utils import Cluster

    cores = sorted(os.sched_getaffinity(0))
    made = Cluster()
    try:
        for core in cores[:nodes]:
            with on_core(core):
                made.add_node(num_cpus=1, include_dashboard=False)
        ray.init(address=made.address, logging_level="error", log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        made.shutdown()


def in_cluster(nodes: int, model: str, video: Path, repository: Path) -> Work:
    """A cluster of its own for each run."""

    def work(count: int) -> float:
        with cluster(nodes):
            return through_ray(model, video, embedded=True, repository=str(repository))(count)

    return work


def measure(contestants: Mapping[str, Work], count: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """By contestant, one for each round, in turns: videos a second without the start, and the seconds of the start."""

    def both(work: Work) -> tuple[float, float]:
        few, many = work(count), work(MORE * count)
        each = max(many - few, 1e-9) / ((MORE - 1) * count)
        return 1 / each, max(few - count * each, 0.0)

    return take_turns({name: partial(both, work) for name, work in contestants.items()}, rounds=rounds, warm_up=0)


def report(found: Mapping[str, list[tuple[float, float]]], about: str, goal: str) -> list[str]:
    """The page: medians, in brackets the smallest and the largest of the rounds."""
    first = median(rate for rate, _ in next(iter(found.values())))
    rows = []
    for name, samples in found.items():
        rates, starts = (Samples(values) for values in zip(*samples, strict=True))
        rows.append([name, str(rates), f"{rates.median / first:.2f}", str(starts)])
    columns = ["", "videos a second, without the start", "against the first", "seconds of the start"]
    return [about, "", goal, "", *table(columns, rows)]


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("kind", choices=["one", "two"])
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS))
    parser.add_argument("--videos", type=int, default=100, help="of the smaller run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray

    model, count, rounds = arguments.model, arguments.videos, arguments.rounds
    repository, video = export_for_benchmark(SPECS[model]), kinetics_like()
    machine = describe_machine("ray", "onnxruntime", "openvino", "av")
    about = f"{model}, H.264 340 x 256, ten seconds; {count} and {MORE * count} videos, {rounds} rounds; {machine}"
    if arguments.kind == "one":
        goal = f"One server, {PARALLEL} videos at a time; at least {MIN_SHARE} of the rate of classify_many wanted."
        with serve(repository, model) as triton:
            ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
            contestants = {
                "classify_many": through_client(model, triton.grpc_url, video),
                "a Ray Dataset": through_ray(model, video, url=triton.grpc_url),
            }
            found = measure(contestants, count, rounds)
            ray.shutdown()
    else:
        goal = f"Nodes of one core, a Triton on each; two at least {MIN_SPEED_UP} times one wanted."
        names = {"one node": 1, "two nodes": 2}
        found = measure({name: in_cluster(n, model, video, repository) for name, n in names.items()}, count, rounds)
    write_page(arguments.out / f"ray_data_{arguments.kind}.md", report(found, about, goal))


if __name__ == "__main__":
    main()
