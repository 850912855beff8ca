"""What the client itself costs: `python benchmarks/client.py failures`, `... overhead`, `... parallel`.

failures: rows a second and memory for 100,000 paths that are not there. overhead: the share of a core that the client
takes at 100 requests a second beyond what gRPC itself takes for the same messages, against a server in another process
that answers at once. parallel: five workers against
one, on the embedded Triton with the motion model and videos that take long to decode. Each ends with an error if what
the project promises does not hold.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)

from clipserve import VideoClassifier
from clipserve.connection import choose_channel_options

RESULTS = Path(__file__).parent / "results"

FAILING_ROWS = 100_000
LEAST_ROWS_PER_SECOND = 2_000
# Memory may grow by what allocators need to settle, not by a part of every row.
ALLOWED_GROWTH_MEGABYTES = 8

RATE = 100.0  # requests a second
ROUND_SECONDS = 5.0
ROUNDS = 4
VIDEO_BYTES = 200_000
MOST_CORE_SHARE = 0.05

WORKERS = 5
LEAST_SPEED_UP = 1.8
DECODED_VIDEOS = 40
# Few pixels for the network, many for the decoder.
DECODED_SIZE = (1280, 720)
DECODED_SECONDS = 6.0


class Echo(GRPCInferenceServiceServicer):
    """Answers every request with the same labels, at once."""

    def ModelInfer(self, request: Any, context: Any) -> Any:
        """One answer for all."""
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        labels = [b"0.930000:5:archery", b"0.040000:88:deadlifting"]
        response.outputs.add(name="SCORES", datatype="BYTES", shape=[1, len(labels)])
        response.raw_output_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in labels))
        return response


def serve_echo() -> None:
    """Serve until stdin closes; the port is the first line of stdout."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 2**31 - 1)])
    add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    print(server.add_insecure_port("localhost:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def resident_megabytes() -> float:
    """Memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_failures() -> list[dict[str, Any]]:
    """Rows a second and growth of memory, in source order and as they finish."""
    results = []
    with VideoClassifier("motion", "localhost:1") as classifier:
        for ordered in (True, False):
            paths = (f"/nowhere/{number}.mp4" for number in range(FAILING_ROWS))
            start = time.perf_counter()
            before = 0.0
            for number, row in enumerate(classifier.classify_many(paths, ordered=ordered)):
                assert row.error is not None
                if number == FAILING_ROWS // 10:
                    before = resident_megabytes()
            seconds = time.perf_counter() - start
            results.append(
                {
                    "order": "of the source" if ordered else "as they finish",
                    "rows": number + 1,
                    "rows/s": round((number + 1) / seconds),
                    "growth over the last 90 %, MiB": round(resident_megabytes() - before, 1),
                }
            )
    return results


def pace(path: Path, seconds: float) -> Iterator[Path]:
    """The same file, RATE times a second."""
    start = time.perf_counter()
    for number in range(round(seconds * RATE)):
        time.sleep(max(start + number / RATE - time.perf_counter(), 0))
        yield path


def measure_overhead() -> list[dict[str, Any]]:
    """CPU time of every thread of this process, gRPC's included, over wall time: medians of rounds that take turns."""
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as video,
        subprocess.Popen(
            [sys.executable, __file__, "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        video.write(os.urandom(VIDEO_BYTES))
        video.flush()
        assert server.stdout is not None
        url = f"localhost:{int(server.stdout.readline())}"
        path = Path(video.name)
        with (
            VideoClassifier("motion", url) as classifier,
            grpc.insecure_channel(url, options=choose_channel_options(url)) as channel,
        ):
            calls: dict[str, Callable[[Iterator[Path]], Iterable[object]]] = {
                "bare gRPC": partial(map, partial(send_bare, GRPCInferenceServiceStub(channel))),
                "classify": partial(map, classifier.classify),
                "classify_many": classifier.classify_many,
            }
            shares: dict[str, list[float]] = {name: [] for name in calls}
            for number in range(ROUNDS + 1):
                for name, call in calls.items():
                    start, cpu = time.perf_counter(), time.process_time()
                    for answer in call(pace(path, ROUND_SECONDS if number else 1)):
                        assert getattr(answer, "error", None) is None, answer
                    share = (time.process_time() - cpu) / (time.perf_counter() - start)
                    shares[name] += [share] if number else []  # the first round imports and connects
        server.communicate("")
    bare = median(shares["bare gRPC"])
    return [
        {
            "call": name,
            "requests/s": RATE,
            "bytes each": VIDEO_BYTES,
            "share of a core": round(median(found), 4),
            "beyond gRPC": round(median(found) - bare, 4),
        }
        for name, found in shares.items()
    ]


def send_bare(stub: GRPCInferenceServiceStub, path: Path) -> Any:
    """Read the file and send it, with gRPC and protobuf alone."""
    request = service_pb2.ModelInferRequest(model_name="motion")
    request.inputs.add(name="VIDEO", datatype="BYTES", shape=[1, 1])
    content = path.read_bytes()
    request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    return stub.ModelInfer(request, timeout=10)


def measure_parallel() -> list[dict[str, Any]]:
    """Videos a second with one worker and with five; the best of two rounds each, in turns."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from clipserve_export.exporting import export_model
    from clipserve_export.motion.scenes import LABELS
    from clipserve_export.motion.videos import write_motion_video
    from clipserve_export.repository import write_configs
    from clipserve_export.specs import SPECS
    from clipserve_server.triton import Triton

    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "repository")
        write_configs(repository)
        export_model(
            SPECS["motion"], format_name="onnx", weights_source="pretrained", labels_file=None, repository=repository
        )
        videos = []
        width, height = DECODED_SIZE
        for number, label in enumerate(LABELS[:4]):
            videos.append(Path(folder, f"{number}.mp4"))
            write_motion_video(videos[-1], label, number, width=width, height=height, seconds=DECODED_SECONDS)
        source = [videos[number % len(videos)] for number in range(DECODED_VIDEOS)]
        rates: dict[int, list[float]] = {1: [], WORKERS: []}
        with (
            Triton(repository, models=["motion"], http_port=0, grpc_port=0, metrics_port=0) as triton,
            VideoClassifier("motion", triton.grpc_url) as classifier,
        ):
            decode_milliseconds = [
                float(row.prediction.report["decode_milliseconds"])
                for row in classifier.classify_many(videos, parallel=1, report=True)
                if row.prediction and row.prediction.report
            ]
            for _ in range(2):
                for parallel, found in rates.items():
                    start = time.perf_counter()
                    table = classifier.classify_many(source, parallel=parallel).table()
                    found.append(len(table) / (time.perf_counter() - start))
                    assert not table.failures, table.failures[0].error
    return [
        {
            "workers": parallel,
            "videos/s": round(max(found), 2),
            "against one": round(max(found) / max(rates[1]), 2),
            "decoding alone, ms": round(median(decode_milliseconds), 1),
        }
        for parallel, found in rates.items()
    ]


def judge(kind: str, results: list[dict[str, Any]]) -> list[str]:
    """What does not hold."""
    if kind == "failures":
        return [
            f"{result}"
            for result in results
            if result["rows/s"] < LEAST_ROWS_PER_SECOND
            or result["growth over the last 90 %, MiB"] > ALLOWED_GROWTH_MEGABYTES
        ]
    if kind == "overhead":
        return [f"{result}" for result in results if result["beyond gRPC"] > MOST_CORE_SHARE]
    return [f"{result}" for result in results[1:] if result["against one"] < LEAST_SPEED_UP]


def show(kind: str, results: list[dict[str, Any]]) -> None:
    """Print the table, and keep it as benchmarks/results/client_<kind>.md."""
    table = Table(*results[0], title=kind)
    for result in results:
        table.add_row(*map(str, result.values()))
    Console().print(table)
    lines = [list(results[0]), ["---"] * len(results[0]), *([str(value) for value in r.values()] for r in results)]
    RESULTS.mkdir(exist_ok=True)
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    (RESULTS / f"client_{kind}.md").write_text(text)


def main() -> None:
    """The command line."""
    kinds = {"failures": measure_failures, "overhead": measure_overhead, "parallel": measure_parallel}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*kinds, "echo"])
    kind = parser.parse_args().kind
    if kind == "echo":
        serve_echo()
        return
    results = kinds[kind]()
    show(kind, results)
    if broken := judge(kind, results):
        sys.exit("too slow or too large: " + "; ".join(broken))


if __name__ == "__main__":
    main()
