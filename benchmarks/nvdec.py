"""Measures the decode step with CPUs alone and with NVDEC beside them: `python -m benchmarks.nvdec`.

Videos a second through the decode step of a Triton, with clips in shared memory and no network behind it; with
decoder=cpu and with decoder=auto, which are equal where there is no GPU. Prints the table; results/nvdec.md has an
H100's.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from benchmarks.footage import FOOTAGE, encode, kinetics_like
from benchmarks.harness.load import Calls, clip_region, closed_loop
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import export_for_benchmark, serve
from benchmarks.harness.results import table
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.options import Decoder
from clipserve_server.triton import Triton

NAMES = ("h264-1080p-10s-short-groups.mp4", "h264-720p-10s.mp4", "hevc-1080p-10s.mp4")
METRIC = 'clipserve_decode_decoded_total{decoder="nvdec"}'
WARM_UP_SECONDS = 1.5


def measure(url: str, spec: ModelSpec, video: bytes, in_flight: int, seconds: float) -> Calls:
    """Closed loop with so many requests in flight, after a warm-up."""
    with ExitStack() as stack:
        regions = [stack.enter_context(clip_region(url, spec)) for _ in range(in_flight)]
        requests = [region.decode_request(video) for region in regions]
        closed_loop(requests, WARM_UP_SECONDS)
        return closed_loop(requests, seconds)


def read_nvdec(triton: Triton) -> float:
    """Videos that NVDEC has decoded so far."""
    with urlopen(triton.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(METRIC))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS), help="the model whose clips are made")
    parser.add_argument("--in-flight", type=int, default=48, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--videos", type=Path, nargs="*", help="in place of the four that are encoded here")
    arguments = parser.parse_args()
    spec = SPECS[arguments.model]
    repository = export_for_benchmark(spec)
    videos = arguments.videos or [*(encode(f) for f in FOOTAGE if f.name in NAMES), kinetics_like()]
    rows = []
    for decoder in (Decoder.CPU, Decoder.AUTO):
        with serve(repository, spec.name, decoder=decoder) as triton:
            for video in videos:
                before = read_nvdec(triton)
                calls = measure(triton.grpc_url, spec, video.read_bytes(), arguments.in_flight, arguments.seconds)
                by_nvdec = f"{read_nvdec(triton) - before:.0f}"
                lost = f"{len(calls.refused)}, {sum(calls.failed.values())}"
                rows.append([decoder, video.name, f"{calls.rate:.1f}", f"{calls.median * 1000:.0f}", by_nvdec, lost])
                print(*rows[-1], flush=True)
    print(f"\n{describe_machine('av')}; clips of {spec.name}, {arguments.in_flight} requests in flight\n")
    columns = ["decoder", "video", "videos a second", "median, ms", "by NVDEC, with the warm-up", "refused, failed"]
    print("\n".join(table(columns, rows, texts=2)))


if __name__ == "__main__":
    main()
