"""Measures the whole service on this machine's GPU, and its parts: `python -m benchmarks.gpu_service`.

Two servers follow each other, with decoder=auto (NVDEC beside the CPU) and decoder=cpu. Measured are the first requests
after the start against later ones; the network alone; decoding alone and the whole service, for videos of 256p to 1080p
in H.264, HEVC of 8 and 10 bits, and AV1; what of the GPU, its video decoder and the processor that uses. Every clip of
the decode step is compared with the CPU's, and every answer with that of the network in float32 on the CPU. Encodes
its videos and exports its network first. The measurements share the time equally; what does not fit is named in one
line. Writes gpu_service.md, gpu_service.csv and gpu_service.png, also after Ctrl-C, and the log of each server, which
says why NVDEC is not used.

To compare settings of the decode step: `--parts decode --decoders auto --first 4 --set nvdec_processes=4
nvdec_streams=4`, once for each choice, each with its own `--out`. Decoding alone needs no first requests and answers,
so they are left out.

Needs the environment that `make env` makes on a machine with a GPU. `--quick` rehearses everything without one; its
numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tritonclient.utils import InferenceServerException

from benchmarks.footage import Footage
from benchmarks.gpu.machine import describe_gpu
from benchmarks.gpu.schedule import Budget
from benchmarks.gpu_service.measure import References, ServerMeasurement
from benchmarks.gpu_service.plan import (
    PARTS,
    QUICK_FOOTAGE,
    Cell,
    Pace,
    Shares,
    all_footage,
    encode_side_by_side,
    plan_cells,
)
from benchmarks.gpu_service.report import Results, write_results
from benchmarks.gpu_service.usage import UsageMonitor
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import copy_repository, export_for_benchmark, serve
from benchmarks.harness.results import CACHE, RESULTS
from clipserve_export.capacity import GPU_GIGABYTES
from clipserve_export.configs import DECODE, parse_config
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.errors import ServerStartError
from clipserve_server.options import Decoder

DECODERS = (Decoder.AUTO, Decoder.CPU)
START_SECONDS, END_SECONDS = 15.0, 5.0  # that a server's start takes at most, as a rule; and its end, and the page
# GiB of a GPU that NVDEC may take: docs/gpu-server.md. The network gets the rest.
NVDEC_GIGABYTES, LEAST_GIGABYTES = 8, 8
BATCHES = (1, 2, 3)  # whose first requests are measured, beside the largest


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure, and how thoroughly; by default as the committed results."""

    model: str = "x3d_m"
    decoders: Sequence[Decoder] = DECODERS
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the decode step, beside those of its config
    footage: Sequence[Footage] = tuple(all_footage())
    videos: Sequence[Path] = ()  # in place of the footage
    parts: Sequence[str] = PARTS
    in_flight: int = 48
    pace: Pace = field(default_factory=Pace)


QUICK = Settings(model="motion", footage=QUICK_FOOTAGE, in_flight=4, pace=Pace(0.1, 0.3, 0.3))


def measure(settings: Settings, budget: Budget, results: Results, folder: Path) -> None:
    """Measure everything, or what there is time for, into `results`. The servers' logs go to `folder`."""
    spec = SPECS[settings.model]
    paths = settings.videos or encode_side_by_side(settings.footage)
    with repository_for(settings) as repository, UsageMonitor() as monitor:
        results.network, results.precision, largest = describe_network(repository, spec)
        results.parameters = settings.parameters
        references = References(spec, {path.name: path.read_bytes() for path in paths})
        plans = {
            decoder: plan_cells(spec.net_name, list(references.videos), decoder, settings.parts, settings.in_flight)
            for decoder in settings.decoders
        }
        waiting = sum(map(len, plans.values()))
        for decoder, cells in plans.items():
            waiting -= len(cells)
            if budget.left < START_SECONDS:
                results.add_missing(f"decoder {decoder}", "the time was over")
                continue
            try:
                with serve(repository, spec.name, decoder=decoder, log=folder / f"triton_{decoder}.log") as triton:
                    print(f"decoder {decoder}: {triton.gpu_use() or 'no GPU'}; {budget.left:.0f} s left", flush=True)
                    server = ServerMeasurement(triton, references, monitor)
                    if decoder == settings.decoders[0] and set(settings.parts) != {"decode"}:
                        compare(server, sorted({*BATCHES, largest}), results)
                    # The servers that follow have their share of the time, and their start.
                    kept = END_SECONDS
                    if waiting:
                        kept += (budget.left - START_SECONDS) * waiting / (waiting + len(cells)) + START_SECONDS
                    shares = Shares(lambda kept=kept: budget.left - kept, len(cells), settings.pace)  # type: ignore[misc]
                    measure_rates(server, cells, shares, results)
            except ServerStartError as error:
                results.add_missing(f"decoder {decoder}", str(error))


@contextmanager
def repository_for(settings: Settings) -> Iterator[Path]:
    """The exported network, and a decode step with these parameters."""
    spec = SPECS[settings.model]
    exported = export_for_benchmark(spec, "torchscript", gpu_gigabytes=network_gigabytes())
    if not settings.parameters:
        yield exported
        return

    def change(config: Any) -> None:
        for name, value in settings.parameters.items():
            config.parameters[name].string_value = value

    with TemporaryDirectory(prefix="clipserve-benchmark-") as folder:
        yield copy_repository(spec, exported, Path(folder), {DECODE: change})


def network_gigabytes() -> int:
    """GiB of the GPU that the network may take: what NVDEC leaves of it."""
    if not torch.cuda.is_available():
        return GPU_GIGABYTES
    total = torch.cuda.get_device_properties(0).total_memory // 2**30
    return max(total - NVDEC_GIGABYTES, LEAST_GIGABYTES)


def compare(server: ServerMeasurement, batches: Sequence[int], results: Results) -> None:
    """Measure the first requests of a server that has just started, and compare its answers."""
    try:
        results.first += server.first_requests(batches)
    except InferenceServerException as error:
        results.add_missing("first requests", str(error))
    try:
        results.answers += server.answers()
    except InferenceServerException as error:
        results.add_missing("answers", str(error))


def measure_rates(server: ServerMeasurement, cells: Sequence[Cell], shares: Shares, results: Results) -> None:
    """Make these measurements, as far as their share of the time allows."""
    for cell in cells:
        seconds = shares.take()
        if not seconds:
            results.add_missing(cell, "the time was over")
            continue
        try:
            measured = server.measure(cell, seconds, shares.pace.warm_up)
        except Exception as error:  # servers and drivers raise anything; the other measurements go on
            results.add_missing(cell, f"{type(error).__name__}: {str(error)[:200]}")
            continue
        results.measured.append(measured)
        print(f"{cell}: {measured.calls.rate:.1f} a second; {shares.left():.0f} s left for this server", flush=True)


def describe_network(repository: Path, spec: ModelSpec) -> tuple[str, str, int]:
    """How the network was exported, in words; its precision; and how many videos share a run."""
    folder = repository / spec.net_name
    record = json.loads((folder / "1" / "export.json").read_text())
    config = parse_config((folder / "config.pbtxt").read_text())
    words = (
        f"{spec.name} as TorchScript, {record['precision']}, {record['layout']}, checked on a"
        f" {record['checked_on'].upper()}; runs of up to {config.max_batch_size} videos,"
        f" instances: {config.instance_group[0].count}"
    )
    return words, record["precision"], config.max_batch_size


def describe_server() -> str:
    """GPU, driver, processor and packages, in one line."""
    packages = ("torch", "PyNvVideoCodec", "av", "nvidia-pytriton")
    if not torch.cuda.is_available():
        return f"A rehearsal without a GPU; {describe_machine(*packages)}"
    gpu = describe_gpu(torch.device("cuda"))
    driver = gpu["nvidia-smi"].get("driver_version", "unknown")
    count = torch.cuda.device_count()
    return f"{count} x {gpu['device']}, driver {driver}, CUDA {gpu['cuda']}; {describe_machine(*packages)}"


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SPECS), help="default x3d_m")
    parser.add_argument("--minutes", type=float, default=6.0, help="when to stop, with the start (default 6)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--decoders", nargs="+", type=Decoder, choices=DECODERS, help="only these (default auto, cpu)")
    parser.add_argument(
        "--set", nargs="+", metavar="NAME=VALUE", help="parameters of the decode step: docs/settings.md"
    )
    parser.add_argument("--videos", type=Path, nargs="+", help="in place of those that are encoded here")
    parser.add_argument("--first", type=int, help="only so many of those, the most telling ones (default all)")
    parser.add_argument("--in-flight", type=int, help="requests in flight to decode step and service (default 48)")
    parser.add_argument("--quick", action="store_true", help="motion, two short videos, short rounds: a rehearsal")
    parser.add_argument("--out", type=Path, help="where to write (default benchmarks/results; rehearsals, .cache)")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    arguments = read_arguments()
    if not torch.cuda.is_available() and not arguments.quick:
        sys.exit("torch sees no GPU here; --quick rehearses the program without one")
    chosen = {name: getattr(arguments, name) for name in ("model", "parts", "decoders", "videos", "in_flight")}
    chosen["parameters"] = dict(text.partition("=")[::2] for text in arguments.set or ())
    settings = replace(
        QUICK if arguments.quick else Settings(), **{name: value for name, value in chosen.items() if value}
    )
    settings = replace(settings, footage=settings.footage[: arguments.first])
    folder = arguments.out or (CACHE / "gpu-service-rehearsal" if arguments.quick else RESULTS)
    logging.disable(logging.WARNING)  # compilers' progress
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the results so far are written
    results = Results(describe_server())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        measure(settings, Budget(arguments.minutes * 60), results, folder)
    except KeyboardInterrupt:
        results.add_missing("the rest", "interrupted")
    finally:
        write_results(results, folder)


if __name__ == "__main__":
    main()
