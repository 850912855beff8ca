"""Measures requests that wait for Triton's scheduler although the network is free: `python -m benchmarks.stalls`.

With a `default_queue_policy` in the config, Triton may notice a request up to 500 ms late if it arrives while the only
instance of a network works: the batcher sleeps that long, and nothing wakes it (core's dynamic_batch_scheduler.cc, up
to 26.06). Our configs have none. This measures them in turns with the same configs with a policy, at 1, 4 and 16
requests in flight, on the network alone and on the whole service. Writes benchmarks/results/stalls.md.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness.load import Calls, Request, classify_request, clip_region, closed_loop
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import copy_repository, export_for_benchmark, serve
from benchmarks.harness.results import new_parser, table, write_page
from benchmarks.harness.rounds import take_turns
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS, ModelSpec

IN_FLIGHT = (1, 4, 16)
STALL_SECONDS = 0.4
UNSEEN_SEED = 7_000_100
COLUMNS = (
    *("configs", "target", "in flight", "requests a second", "p50, ms", "p99, ms"),
    *("over 400 ms", "400 ms over the median"),
)


def add_policy(config: Any) -> None:
    """Give the config of a network a queue policy."""
    policy = config.dynamic_batching.default_queue_policy
    policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override = 256, 600_000_000, True


def list_requests(stack: ExitStack, url: str, spec: ModelSpec, video: bytes) -> dict[str, list[Request]]:
    """Requests to the network and to the whole service, enough for the highest load."""
    regions = [stack.enter_context(clip_region(url, spec)) for _ in range(max(IN_FLIGHT))]
    service = [classify_request(url, spec.name, [video])] * max(IN_FLIGHT)
    return {"network": [region.network_request() for region in regions], "service": service}


def measure(spec: ModelSpec, rounds: int, seconds: float) -> list[list[Any]]:
    """Measure both configs in turns; returns the rows of the table."""
    repository = export_for_benchmark(spec)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_motion_video(Path(folder) / "video.mp4", "moving left", UNSEEN_SEED)
        video = (Path(folder) / "video.mp4").read_bytes()
        policy = copy_repository(spec, repository, Path(folder) / "policy", {spec.net_name: add_policy})
        contestants = {}
        for configs, place in (("as exported", repository), ("with a queue policy", policy)):
            url = stack.enter_context(serve(place, spec.name)).grpc_url
            for target, requests in list_requests(stack, url, spec, video).items():
                for count in IN_FLIGHT:
                    contestants[configs, target, count] = partial(closed_loop, requests[:count], seconds)
        return [[*key, *summarise(str(key), calls)] for key, calls in take_turns(contestants, rounds=rounds).items()]


def summarise(label: str, rounds: list[Calls]) -> list[str]:
    """The numbers of a row. Raises SystemExit unless every request was answered."""
    for calls in rounds:
        calls.check_all_answered(label)
    latencies = np.array([seconds for calls in rounds for seconds in calls.answered])
    middle = float(np.median(latencies))
    return [
        f"{median(calls.rate for calls in rounds):.0f}",
        f"{middle * 1000:.0f}",
        f"{float(np.percentile(latencies, 99)) * 1000:.0f}",
        f"{float(np.mean(latencies > STALL_SECONDS)):.2%}",
        f"{float(np.mean(latencies > middle + STALL_SECONDS)):.2%}",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["motion", "x3d_m"], choices=list(SPECS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in each round")
    arguments = parser.parse_args()
    lines = [describe_machine("onnxruntime", "openvino")]
    for spec in (SPECS[name] for name in arguments.models):
        print(f"measuring {spec.name}", flush=True)
        rows = measure(spec, arguments.rounds, arguments.seconds)
        lines += ["", f"## {spec.name}", "", *table(COLUMNS, rows, texts=2)]
    write_page(arguments.out / "stalls.md", lines)


if __name__ == "__main__":
    main()
