"""Requests that wait for Triton's scheduler and not for work: `python benchmarks/stalls.py`.

Where a config has a `default_queue_policy`, a request that arrives while the only instance of a network is at work is
noticed up to 500 ms later: Triton's batcher sleeps so long, and nothing wakes it (core's dynamic_batch_scheduler.cc, up
to 26.06). Our configs have none. This measures them beside the same configs with a policy, in turns, at 1, 4 and 16
requests in flight, on the network alone and on the whole service. Writes benchmarks/results/stalls.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from benchmark_models import export_for_benchmark
from calls import Ask, Calls, ask_for_labels, keep_asking
from machine import describe_machine
from steps import ask_network, clip_bytes, shared_region
from tritonclient.grpc.aio import InferenceServerClient

from clipserve_export.configs import DECODE, parse_config, print_config
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.triton import Triton

RESULTS = Path(__file__).parent / "results"
FLIGHTS = (1, 4, 16)
STALL_SECONDS = 0.4
AS_EXPORTED, WITH_POLICY = "as exported", "with a queue policy"
UNSEEN_SEED = 7_000_100


def add_policy(spec: ModelSpec, repository: Path, folder: Path) -> Path:
    """A copy of the model's repository in `folder` whose network has a queue policy."""
    for name in (spec.name, spec.net_name, DECODE):
        shutil.copytree(repository / name, folder / name)
    path = folder / spec.net_name / "config.pbtxt"
    config = parse_config(path.read_text())
    policy = config.dynamic_batching.default_queue_policy
    policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override = 256, 600_000_000, True
    path.write_text(print_config(config))
    return folder


def measure(triton: Triton, spec: ModelSpec, video: bytes, seconds: float) -> dict[tuple[str, int], Calls]:
    """What became of requests to the network and to the ensemble, so many in flight."""

    async def run() -> dict[tuple[str, int], Calls]:
        async with InferenceServerClient(triton.grpc_url) as client:
            with ExitStack() as stack:
                regions = [
                    stack.enter_context(shared_region(triton.grpc_url, clip_bytes(spec))) for _ in range(max(FLIGHTS))
                ]
                asks: dict[str, list[Ask]] = {
                    "network": [ask_network(client, spec, name) for name, _ in regions],
                    "service": [ask_for_labels(client, spec.name, [video])] * max(FLIGHTS),
                }
                return {
                    (asked, flight): await keep_asking(several[:flight], seconds)
                    for asked, several in asks.items()
                    for flight in FLIGHTS
                }

    return asyncio.run(run())


def summarise(form: str, asked: str, flight: int, rounds: list[Calls]) -> dict[str, str | float]:
    """A row of the table. Raises SystemExit where a request failed."""
    for calls in rounds:
        if calls.failed or calls.refused or not calls.answered:
            raise SystemExit(f"{form}, {asked}, {flight}: {len(calls.refused)} refused, {calls.failed}")
    latencies = np.array([seconds for calls in rounds for seconds in calls.answered])
    middle = float(np.median(latencies))
    return {
        "configs": form,
        "asked": asked,
        "in flight": flight,
        "requests a second": median(calls.rate for calls in rounds),
        "p50, ms": middle * 1000,
        "p99, ms": float(np.percentile(latencies, 99)) * 1000,
        "over 400 ms": float(np.mean(latencies > STALL_SECONDS)),
        "400 ms over the median": float(np.mean(latencies > middle + STALL_SECONDS)),
    }


def report(model: str, table: pd.DataFrame) -> str:
    """The page."""
    shares = ("over 400 ms", "400 ms over the median")
    shown: dict[str, Callable[[float], str]] = dict.fromkeys(shares, "{:.2%}".format)
    header = list(table.columns)
    lines = [
        f"{model}; {describe_machine('onnxruntime', 'openvino')}",
        "",
        "| " + " | ".join(header) + " |",
        "|---|---|" + "---:|" * (len(header) - 2),
    ]
    for row in table.to_dict("records"):
        cells = (
            value if isinstance(value, str) else shown.get(str(name), "{:.0f}".format)(value)
            for name, value in row.items()
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["motion", "x3d_m"], choices=list(SPECS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in each round")
    parser.add_argument("--out", type=Path, default=RESULTS / "stalls.md")
    arguments = parser.parse_args()
    pages = []
    for spec in (SPECS[name] for name in arguments.models):
        repository = export_for_benchmark(spec)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            write_motion_video(Path(folder) / "video.mp4", "moving left", UNSEEN_SEED)
            video = (Path(folder) / "video.mp4").read_bytes()
            forms = {AS_EXPORTED: repository, WITH_POLICY: add_policy(spec, repository, Path(folder) / "policy")}
            tritons = {
                form: stack.enter_context(Triton(place, models=[spec.name], http_port=0, grpc_port=0, metrics_port=0))
                for form, place in forms.items()
            }
            found: dict[tuple[str, str, int], list[Calls]] = {}
            for turn in range(arguments.rounds + 1):
                for form, triton in tritons.items():
                    print(f"{spec.name}, {form}, {f'round {turn}' if turn else 'warming up'}", flush=True)
                    for key, calls in measure(triton, spec, video, arguments.seconds if turn else 0.5).items():
                        if turn:
                            found.setdefault((form, *key), []).append(calls)
        rows = [summarise(form, asked, flight, rounds) for (form, asked, flight), rounds in found.items()]
        pages.append(report(spec.name, pd.DataFrame(rows)))
    text = "\n".join(pages)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
