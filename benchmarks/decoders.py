"""CPUs against NVDEC beside them, in the decode step: `python benchmarks/decoders.py`.

Videos a second through the step `decode` of a Triton, clips in shared memory, no network behind it; with decoder=cpu
and with decoder=auto, which are equal where there is no GPU. The table is printed; results/nvdec.md has an H100's.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from benchmark_models import export_for_benchmark
from calls import Calls, keep_asking
from decode_footage import FOOTAGE, encode, footage_folder, kinetics_like
from machine import describe_machine
from steps import ask_to_decode, clip_bytes, shared_region
from tritonclient.grpc.aio import InferenceServerClient

from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.options import Decoder
from clipserve_server.triton import Triton

NAMES = ("h264-1080p-10s-short-groups.mp4", "h264-720p-10s.mp4", "hevc-1080p-10s.mp4")
METRIC = 'clipserve_decode_decoded_total{decoder="nvdec"}'
WARM_SECONDS = 1.5


async def measure(url: str, spec: ModelSpec, video: bytes, flight: int, seconds: float) -> Calls:
    """Closed loop with `flight` requests at a time, after a moment that does not count."""
    async with InferenceServerClient(url) as client:
        with ExitStack() as stack:
            names = [stack.enter_context(shared_region(url, clip_bytes(spec)))[0] for _ in range(flight)]
            asks = [ask_to_decode(client, spec, video, name) for name in names]
            await keep_asking(asks, WARM_SECONDS)
            return await keep_asking(asks, seconds)


def read_nvdec(triton: Triton) -> float:
    """Videos that NVDEC has decoded so far."""
    with urlopen(triton.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(METRIC))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS), help="whose clips are made")
    parser.add_argument("--flight", type=int, default=48, help="requests at a time")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--videos", type=Path, nargs="*", help="in place of the four that are made")
    arguments = parser.parse_args()
    spec = SPECS[arguments.model]
    repository = export_for_benchmark(spec)
    made = (encode(footage, footage_folder()) for footage in FOOTAGE if footage.name in NAMES)
    videos = arguments.videos or [*made, kinetics_like()]
    print(f"{describe_machine('av')}; clips of {spec.name}, {arguments.flight} requests at a time\n")
    print("| decoder | video | videos a second | median, ms | by NVDEC, with the warm-up | refused, failed |")
    print("|---|---|---:|---:|---:|---:|")
    for decoder in (Decoder.CPU, Decoder.AUTO):
        ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
        with Triton(repository, models=[spec.name], decoder=decoder, **ports) as triton:
            for video in videos:
                before = read_nvdec(triton)
                load = measure(triton.grpc_url, spec, video.read_bytes(), arguments.flight, arguments.seconds)
                calls = asyncio.run(load)
                print(
                    f"| {decoder} | {video.name} | {calls.rate:.1f} | {calls.median * 1000:.0f}"
                    f" | {read_nvdec(triton) - before:.0f} | {len(calls.refused)}, {sum(calls.failed.values())} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
