"""Measures what the client itself costs: `python -m benchmarks.client failures`, `... overhead`, `... parallel`.

failures: rows a second, and memory, for 100,000 paths that do not exist. overhead: the share of a core that the client
takes at 100 requests a second beyond what gRPC takes for the same messages, against a server in another process that
answers at once. parallel: five workers against one, on the embedded Triton with the motion model and videos that take
long to decode. Each ends with an error if the measurement misses the project's goal.
"""

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
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)

from benchmarks.harness.results import ROOT, new_parser, table, write_page
from benchmarks.harness.rounds import take_turns
from clipserve import VideoClassifier
from clipserve.connection import choose_channel_options

FAILING_ROWS = 100_000
MIN_ROWS_PER_SECOND = 2_000
# Room for allocators to settle; memory must not grow with the rows.
MAX_GROWTH_MEGABYTES = 8

RATE = 100.0  # requests a second
ROUND_SECONDS = 5.0
ROUNDS = 4
VIDEO_BYTES = 200_000
MAX_CORE_SHARE = 0.05

WORKERS = 5
MIN_SPEED_UP = 1.8
DECODED_VIDEOS = 40
# Much work for the decoder, little for the network.
DECODED_SIZE: dict[str, Any] = {"width": 1280, "height": 720, "seconds": 6.0}

Row = dict[str, Any]


class Echo(GRPCInferenceServiceServicer):
    """Answers every request with the same labels, at once."""

    def ModelInfer(self, request: Any, context: Any) -> Any:
        """The same answer for all."""
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


def measure_failures() -> list[Row]:
    """Rows a second and growth of memory, in source order and as they finish."""
    results = []
    with VideoClassifier("motion", "localhost:1") as classifier:
        for ordered in (True, False):
            paths = (f"/nowhere/{number}.mp4" for number in range(FAILING_ROWS))
            started, before = time.perf_counter(), 0.0
            for number, row in enumerate(classifier.classify_many(paths, ordered=ordered)):
                assert row.error is not None
                if number == FAILING_ROWS // 10:
                    before = resident_megabytes()
            seconds = time.perf_counter() - started
            results.append(
                {
                    "order": "of the source" if ordered else "as they finish",
                    "rows": number + 1,
                    "rows/s": round((number + 1) / seconds),
                    "growth over the last 90 %, MiB": round(resident_megabytes() - before, 1),
                }
            )
    return results


def repeat_at_rate(path: Path) -> Iterator[Path]:
    """The same path, RATE times a second, for ROUND_SECONDS."""
    started = time.perf_counter()
    for number in range(round(ROUND_SECONDS * RATE)):
        time.sleep(max(started + number / RATE - time.perf_counter(), 0))
        yield path


def measure_overhead() -> list[Row]:
    """Processor time of all threads of this process, gRPC's included, over wall time: medians of rounds in turns."""
    echo = [sys.executable, "-m", "benchmarks.client", "echo"]
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as video,
        subprocess.Popen(echo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server,
    ):
        video.write(os.urandom(VIDEO_BYTES))
        video.flush()
        assert server.stdout is not None
        url = f"localhost:{int(server.stdout.readline())}"
        with (
            VideoClassifier("motion", url) as classifier,
            grpc.insecure_channel(url, options=choose_channel_options(url)) as channel,
        ):

            def share_of_core(call: Callable[[Iterator[Path]], Iterable[object]]) -> float:
                started, used = time.perf_counter(), time.process_time()
                for answer in call(repeat_at_rate(Path(video.name))):
                    assert getattr(answer, "error", None) is None, answer
                return (time.process_time() - used) / (time.perf_counter() - started)

            calls: dict[str, Callable[[Iterator[Path]], Iterable[object]]] = {
                "bare gRPC": partial(map, partial(send_bare, GRPCInferenceServiceStub(channel))),
                "classify": partial(map, classifier.classify),
                "classify_many": classifier.classify_many,
            }
            turns = take_turns({name: partial(share_of_core, call) for name, call in calls.items()}, rounds=ROUNDS)
        server.communicate("")
    shares = {name: median(found) for name, found in turns.items()}
    return [
        {
            "call": name,
            "requests/s": RATE,
            "bytes each": VIDEO_BYTES,
            "share of a core": round(share, 4),
            "beyond gRPC": round(share - shares["bare gRPC"], 4),
        }
        for name, share in shares.items()
    ]


def send_bare(stub: GRPCInferenceServiceStub, path: Path) -> Any:
    """Read the file and send it, with gRPC and protobuf alone."""
    request = service_pb2.ModelInferRequest(model_name="motion")
    request.inputs.add(name="VIDEO", datatype="BYTES", shape=[1, 1])
    content = path.read_bytes()
    request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    return stub.ModelInfer(request, timeout=10)


def measure_parallel() -> list[Row]:
    """Videos a second with one worker and with five, in turns; the best of two rounds each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.harness.models import export_for_benchmark, serve
    from clipserve_export.motion.scenes import LABELS
    from clipserve_export.motion.videos import write_motion_video
    from clipserve_export.specs import SPECS

    with tempfile.TemporaryDirectory() as folder:
        videos = [Path(folder, f"{number}.mp4") for number in range(4)]
        for number, path in enumerate(videos):
            write_motion_video(path, LABELS[number], number, **DECODED_SIZE)
        source = [videos[number % len(videos)] for number in range(DECODED_VIDEOS)]
        with (
            serve(export_for_benchmark(SPECS["motion"]), "motion") as triton,
            VideoClassifier("motion", triton.grpc_url) as classifier,
        ):

            def rate(parallel: int) -> float:
                started = time.perf_counter()
                answers = classifier.classify_many(source, parallel=parallel).table()
                assert not answers.failures, answers.failures[0].error
                return len(answers) / (time.perf_counter() - started)

            alone = classifier.classify_many(videos, parallel=1, report=True)
            reports = [row.prediction.report for row in alone if row.prediction]
            decode = [float(report["decode_milliseconds"]) for report in reports if report]
            turns = take_turns({count: partial(rate, count) for count in (1, WORKERS)}, rounds=2, warm_up=0)
    return [
        {
            "workers": count,
            "videos/s": round(max(found), 2),
            "against one": round(max(found) / max(turns[1]), 2),
            "decoding alone, ms": round(median(decode), 1),
        }
        for count, found in turns.items()
    ]


def misses_goal(kind: str, row: Row) -> bool:
    """Whether a result misses the project's goal."""
    if kind == "failures":
        growth = row["growth over the last 90 %, MiB"]
        return bool(row["rows/s"] < MIN_ROWS_PER_SECOND or growth > MAX_GROWTH_MEGABYTES)
    if kind == "overhead":
        return bool(row["beyond gRPC"] > MAX_CORE_SHARE)
    return bool(row["workers"] > 1 and row["against one"] < MIN_SPEED_UP)


def main() -> None:
    """Measure, print, write."""
    kinds = {"failures": measure_failures, "overhead": measure_overhead, "parallel": measure_parallel}
    parser = new_parser(__doc__)
    parser.add_argument("kind", choices=[*kinds, "echo"], help="echo is the server of the second")
    arguments = parser.parse_args()
    kind = arguments.kind
    if kind == "echo":
        serve_echo()
        return
    rows = kinds[kind]()
    write_page(arguments.out / f"client_{kind}.md", table(list(rows[0]), [list(row.values()) for row in rows]))
    if missed := [str(row) for row in rows if misses_goal(kind, row)]:
        sys.exit("misses the goal: " + "; ".join(missed))


if __name__ == "__main__":
    main()
