"""Measures a timeline of a long video: `python -m benchmarks.timeline`, or `--minutes 5` for a short run.

`--minutes 180 --memory` measures the memory alone.

One film of H.264, 640 x 360, on one server with one network, in one run:

* the timeline, against its own work without a service: decoding the needed frames once, and then the network on as
  many clips (both in this process, one after the other);
* against one call for each window, and against cutting each window with ffmpeg and classifying the files (where ffmpeg
  is on the path): both on a sample of windows, and counted for all;
* the memory of Triton, of the timeline's process and of its decoder while the film passes;
* single requests alone, and beside two timelines.

Writes timeline.md, timeline.csv (the memory) and timeline.png to benchmarks/results/, or with `--memory` the same files
named timeline_memory.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from tests.decode.synthesis import repeat
from tests.end_to_end.timeline_caller import TimelineCaller
from tests.watching import stubs, window_workers

from benchmarks.footage import X264, Footage, encode, kinetics_like
from benchmarks.harness.load import Calls, classify_request, closed_loop, one_by_one
from benchmarks.harness.models import export_for_benchmark, serve
from benchmarks.harness.results import new_parser, table
from benchmarks.harness.rounds import seconds_of
from benchmarks.timeline_report import MIB, Film, Memory, table_of_latencies, write_report
from clip_decode import Geometry
from clip_decode.window_engine import decode_windows
from clip_decode.windows import Windows
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.triton import Triton

MINUTE = Footage("h264-360p-60s.mp4", "libx264", 640, 360, 60, 250, X264)
MEMORY_SECONDS = 0.5  # between two looks
FAIRNESS_SECONDS = 20.0


def make_film(minutes: int) -> Path:
    """A film of the same minute again and again, without encoding it again."""
    source = encode(MINUTE)
    path = source.with_name(f"h264-360p-{minutes}min.mp4")
    if path.exists():
        return path
    partial_path = path.with_stem(f"partial-{path.stem}")
    partial_path.write_bytes(repeat(source.read_bytes(), minutes))
    partial_path.rename(path)
    return path


def run_timeline(url: str, spec: ModelSpec, film: Film) -> int:
    """The number of windows that came."""
    with TimelineCaller(url) as caller:
        windows = caller.ask(film.video, model=spec.name, window_seconds=film.window, step_seconds=film.step)
        return sum(1 for _ in windows)


def run_alone(spec: ModelSpec, repository: Path, film: Film) -> tuple[float, float]:
    """Seconds for decoding all windows, and for the network on their clips, in this process."""
    from clipserve_server.backends.openvino_runtime import OpenVinoRuntime

    geometry = Geometry(**vars(spec.geometry))
    runtime = OpenVinoRuntime(
        repository / spec.net_name / "1" / "model.onnx", ("SCORES",), threads=psutil.cpu_count() or 1, precision="auto"
    )
    decoding = network = 0.0
    windows = decode_windows(film.video, geometry, Windows(film.window, film.step))
    while True:
        started = time.perf_counter()
        decoded = next(windows, None)
        between = time.perf_counter()
        decoding += between - started
        if decoded is None:
            return decoding, network
        runtime.run({"CLIP": decoded.clips[None]})
        network += time.perf_counter() - between


def call_windows(url: str, spec: ModelSpec, film: Film) -> float:
    """Seconds for a call a window, counted for all windows."""
    from tritonclient.grpc import InferenceServerClient

    video, started = film.video, time.perf_counter()
    with InferenceServerClient(url) as client:
        for start in film.sample:
            span = {"start_seconds": start, "end_seconds": start + film.window}
            calls = one_by_one(client, classify_request(url, spec.name, [video], span))
            calls.check_all_answered("a call a window")
    return (time.perf_counter() - started) * len(film.starts) / len(film.sample)


def cut_windows(url: str, spec: ModelSpec, film: Film) -> float:
    """Seconds for cutting windows with ffmpeg and classifying the files, counted for all windows."""
    from tritonclient.grpc import InferenceServerClient

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, InferenceServerClient(url) as client:
        for number, start in enumerate(film.sample):
            cut = Path(folder, f"{number}.mp4")
            command = ["ffmpeg", "-v", "error", "-ss", f"{start:g}", "-i", str(film.path), "-t", f"{film.window:g}"]
            subprocess.run([*command, "-an", "-c:v", "libx264", "-preset", "veryfast", str(cut)], check=True)
            calls = one_by_one(client, classify_request(url, spec.name, [cut.read_bytes()]))
            calls.check_all_answered("cut windows")
    return (time.perf_counter() - started) * len(film.starts) / len(film.sample)


@contextmanager
def watch_memory(triton: Triton, memory: Memory) -> Iterator[None]:
    """Note the memory of the processes of a server while the block runs."""
    (model,) = stubs(triton, "timeline")
    server = psutil.Process(model).parent()
    assert server is not None
    done, started = threading.Event(), time.monotonic()

    def look() -> None:
        while not done.wait(MEMORY_SECONDS):
            row = {"seconds": time.monotonic() - started}
            row["tritonserver"] = server.memory_info().rss / MIB
            row["timeline process"] = psutil.Process(model).memory_info().rss / MIB
            row["decoder, without the video"] = sum(map(private_megabytes, window_workers(triton)))
            memory.rows.append(row)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def private_megabytes(pid: int) -> float:
    """Memory that a process shares with no other; 0 where it is gone."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return (memory.rss - memory.shared) / MIB


def measure_fairness(url: str, spec: ModelSpec, film: Film) -> dict[str, Calls]:
    """Single requests, one at a time: alone, and beside two timelines."""
    request = classify_request(url, spec.name, [kinetics_like().read_bytes()])
    closed_loop([request], 2)
    alone = closed_loop([request], FAIRNESS_SECONDS)
    callers = [TimelineCaller(url) for _ in range(2)]
    threads = [threading.Thread(target=partial(_read_until_cancelled, caller, spec, film)) for caller in callers]
    for thread in threads:
        thread.start()
    time.sleep(3)
    beside = closed_loop([request], FAIRNESS_SECONDS)
    for caller in callers:
        caller.__exit__(None, None, None)
    for thread in threads:
        thread.join()
    return {"alone": alone, "beside two timelines": beside}


def _read_until_cancelled(caller: TimelineCaller, spec: ModelSpec, film: Film) -> None:
    try:
        for _ in caller.ask(film.video, model=spec.name, window_seconds=film.window, step_seconds=film.step):
            pass
    except Exception:
        return


def run_watched(triton: Triton, spec: ModelSpec, film: Film, memory: Memory) -> float:
    """Seconds of the timeline. Notes the memory meanwhile."""
    # A short one first: the first calls of a network are slower.
    run_timeline(triton.grpc_url, spec, Film(encode(MINUTE), 1, film.window, 10))
    with watch_memory(triton, memory):
        return seconds_of(lambda: run_timeline(triton.grpc_url, spec, film))


def measure(spec: ModelSpec, film: Film, out: Path) -> None:
    """Measure, and write the results."""
    repository = export_for_benchmark(spec)
    memory, rows = Memory(), []
    with serve(repository, spec.name) as triton:
        url = triton.grpc_url
        timeline = run_watched(triton, spec, film, memory)
        decoding, network = run_alone(spec, repository, film)
        ways: dict[str, Callable[[], float]] = {
            "the timeline": lambda: timeline,
            "decoding alone + network alone": lambda: decoding + network,
            f"a call a window ({len(film.sample)} measured)": lambda: call_windows(url, spec, film),
        }
        if shutil.which("ffmpeg"):
            ways[f"ffmpeg and files ({len(film.sample)} measured)"] = lambda: cut_windows(url, spec, film)
        for name, way in ways.items():
            seconds = way()
            rows.append((name, f"{seconds:.1f}", f"{seconds / timeline:.2f}"))
        fairness = measure_fairness(url, spec, film)
    write_report(
        out / "timeline.md",
        film,
        f"--minutes {film.minutes} --model {spec.name}",
        [
            *table(["", "seconds", "times the timeline"], rows),
            "",
            f"Decoding alone takes {decoding:.1f} s in one thread, the network alone {network:.1f} s on all cores.",
            "",
            "## Single requests beside timelines",
            "",
            *table_of_latencies(fairness),
        ],
        memory,
    )


def measure_memory(spec: ModelSpec, film: Film, out: Path) -> None:
    """Measure the memory alone, and write it."""
    memory = Memory()
    with serve(export_for_benchmark(spec), spec.name) as triton:
        seconds = run_watched(triton, spec, film, memory)
    options = f"--minutes {film.minutes} --model {spec.name} --memory"
    write_report(out / "timeline_memory.md", film, options, [f"The timeline takes {seconds:.1f} s."], memory)


def main() -> None:
    """Run the command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="length of the film")
    parser.add_argument("--window", type=float, default=2, help="seconds of a window")
    parser.add_argument("--step", type=float, default=1, help="seconds from window to window")
    parser.add_argument("--model", choices=SPECS, default="x3d_s")
    parser.add_argument("--memory", action="store_true", help="measure the memory alone")
    given: Any = parser.parse_args()
    film = Film(make_film(given.minutes), given.minutes, given.window, given.step)
    (measure_memory if given.memory else measure)(SPECS[given.model], film, given.out)


if __name__ == "__main__":
    main()
