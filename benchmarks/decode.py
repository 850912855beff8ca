"""Measures decoding against torchcodec, decord, OpenCV and plain PyAV: `python benchmarks/decode.py`.

Every decoder turns the same bytes into the same 256 x 256 frames, on one thread, in one process, turn
by turn; the median of the turns counts. The seconds are those of the processor, all threads together:
what throughput is made of, and the same on a busy machine. Writes decode.csv, decode.md and decode.png to
benchmarks/results/. Needs the `bench` extra; a decoder that is not installed is left out.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from decode_contestants import CONTESTANTS, Task, lend_ffmpeg, scaled_size, time_packets_alone
from decode_footage import footage_folder, prepare

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORKLOADS = {"uniform 16": ("uniform", 16, 1), "uniform 32": ("uniform", 32, 1), "5 clips": ("clip", 16, 5)}
MODULES = {"torchcodec": "torchcodec", "decord": "decord", "opencv": "cv2", "pyav": "av"}
FLOOR = "packets alone"  # libavcodec on the packets needed, without anything around it
# A frame this far off on average, in levels of 255, is another frame and not another filter.
OTHER_FRAME_LEVELS = 12
# Where one turn of all takes this long, one is enough.
LONG_SECONDS = 18


@dataclass(frozen=True)
class Measurement:
    """One decoder on one file and workload; CPU seconds, None for a failure."""

    file: str
    workload: str
    contestant: str
    seconds: float | None
    wrong_frames: int


def plan_tasks(path: Path) -> Iterator[tuple[str, Task]]:
    """What to fetch from a file, as frame numbers all decoders understand."""
    from clip_decode import Geometry, Limits, Sampling, decode_clips

    data = path.read_bytes()
    for name, (policy, frames, views) in WORKLOADS.items():
        geometry = {"clip": Geometry(frames, 5, 256, 256)}
        sampling = Sampling(policy=policy, views=views)  # type: ignore[arg-type]
        _, report = decode_clips(data, geometry, sampling, Limits())
        seconds = [moment for view in report.timestamps_seconds["clip"] for moment in view]
        width, height = scaled_size(report.width, report.height)
        indices = [round(second * report.fps) for second in seconds]
        yield name, Task(path, data, indices, width, height, policy, frames, views)


def measure(workload: str, task: Task, contestants: list[str], turns: int) -> list[Measurement]:
    """Let the decoders take turns at one task."""
    seconds: dict[str, list[float]] = {name: [] for name in [*contestants, FLOOR]}
    wrong = dict.fromkeys(seconds, 0)
    expected = CONTESTANTS["clipserve"](task).reshape(-1, 256, 256, 3)
    for turn in range(turns):
        for name in contestants:
            started = time.process_time()
            try:
                pixels = CONTESTANTS[name](task)
            except Exception as error:
                print(f"  {name} failed: {str(error)[:100]}", flush=True)
                continue
            seconds[name].append(time.process_time() - started)
            if turn == 0:
                off = np.abs(pixels.reshape(expected.shape).astype(np.int16) - expected).mean(axis=(1, 2, 3))
                wrong[name] = int((off > OTHER_FRAME_LEVELS).sum())
        seconds[FLOOR].append(time_packets_alone(task))
        if sum(map(sum, seconds.values())) > LONG_SECONDS:
            break
    return [
        Measurement(task.path.name, workload, name, statistics.median(taken) if taken else None, wrong[name])
        for name, taken in seconds.items()
    ]


def geometric_mean(ratios: list[float]) -> float:
    """The mean of ratios."""
    return float(np.exp(np.mean(np.log(ratios))))


def find_ratios(measurements: list[Measurement], rival: str) -> dict[tuple[str, str], float]:
    """Seconds of a rival over ours, by file and workload."""
    taken = {(m.file, m.workload, m.contestant): m.seconds for m in measurements}
    ratios = {}
    for file, workload, name in taken:
        ours, theirs = taken.get((file, workload, "clipserve")), taken[file, workload, name]
        if name == rival and ours and theirs:
            ratios[file, workload] = theirs / ours
    return ratios


def measure_memory(path: Path, contestants: list[str]) -> dict[str, tuple[float, float]]:
    """Peak resident MiB of a fresh process for 16 frames of a file, and before it began."""
    peaks = {}
    for name in contestants:
        command = [sys.executable, __file__, "--memory", str(path), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            before, peak = done.stdout.split()[-2:]
            peaks[name] = (float(before), float(peak))
    return peaks


def print_memory(path: Path, name: str) -> None:
    """Decode once and print resident MiB before and at the peak."""
    for module in ("av", "numpy", *([MODULES[name]] if name in MODULES else [])):
        importlib.import_module(module)
    before = _peak_mebibytes()
    with __import__("av").open(str(path)) as container:
        stream = container.streams.video[0]
        width, height, count = stream.width, stream.height, stream.frames
    indices = [int(number) for number in np.linspace(0, count - 1, 16)]
    task = Task(path, path.read_bytes(), indices, *scaled_size(width, height), "uniform", 16, 1)
    CONTESTANTS[name](task)
    print(before, _peak_mebibytes())


def _peak_mebibytes() -> float:
    # Not ru_maxrss: a child process inherits that from its parent.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def write_results(measurements: list[Measurement], memory: dict[str, tuple[float, float]], names: list[str]) -> None:
    """Write the table as CSV and Markdown."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "decode.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "workload", "decoder", "milliseconds", "wrong_frames"])
        for m in measurements:
            milliseconds = "" if m.seconds is None else f"{m.seconds * 1000:.1f}"
            writer.writerow([m.file, m.workload, m.contestant, milliseconds, m.wrong_frames])
    found = {(m.file, m.workload, m.contestant): m for m in measurements}
    columns = [*names, FLOOR]
    lines = [
        "CPU milliseconds a video, median; one thread. In brackets: frames that are not the ones asked for.",
        f"{FLOOR}: libavcodec on the packets that the wanted frames depend on, no demuxing, no scaling.",
        "",
    ]
    lines += [f"| file | frames | {' | '.join(columns)} |", f"|---|---|{'---:|' * len(columns)}"]
    for file, workload in dict.fromkeys((m.file, m.workload) for m in measurements):
        cells = []
        for name in columns:
            m = found[file, workload, name]
            cell = "failed" if m.seconds is None else f"{m.seconds * 1000:.0f}"
            cells.append(cell + (f" ({m.wrong_frames})" if m.wrong_frames else ""))
        lines.append(f"| {file} | {workload} | {' | '.join(cells)} |")
    lines += ["", "| against | geometric mean | slowest case | fastest case |", "|---|---:|---:|---:|"]
    for name in [*names[1:], FLOOR]:
        ratios = list(find_ratios(measurements, name).values())
        if ratios:
            lines.append(f"| {name} | {geometric_mean(ratios):.2f} x | {min(ratios):.2f} x | {max(ratios):.2f} x |")
    lines += ["", "| peak memory, 60 s of 1080p | before | peak |", "|---|---:|---:|"]
    lines += [f"| {name} | {before:.0f} MiB | {peak:.0f} MiB |" for name, (before, peak) in memory.items()]
    (RESULTS / "decode.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def plot(measurements: list[Measurement], names: list[str]) -> None:
    """How many times faster, by file, for 16 uniform frames."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    files = list(dict.fromkeys(m.file for m in measurements))
    figure, axes = pyplot.subplots(figsize=(10, 0.45 * len(files) + 1.5), layout="constrained")
    height = 0.8 / max(len(names) - 1, 1)
    for row, name in enumerate(names[1:]):
        ratios = find_ratios(measurements, name)
        values = [ratios.get((file, "uniform 16"), 0) for file in files]
        axes.barh([place + row * height for place in range(len(files))], values, height, label=name)
    axes.set_yticks([place + 0.4 for place in range(len(files))], files)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of the other decoder / seconds of clipserve, 16 uniform frames")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(RESULTS / "decode.png", dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=footage_folder(), help="where the encoded files are kept")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the file names to measure")
    parser.add_argument("--memory", nargs=2, metavar=("FILE", "DECODER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    lend_ffmpeg()
    if arguments.memory:
        print_memory(Path(arguments.memory[0]), arguments.memory[1])
        return
    names = [n for n in CONTESTANTS if n == "clipserve" or importlib.util.find_spec(MODULES[n.split()[0]])]
    measurements: list[Measurement] = []
    memory: dict[str, tuple[float, float]] = {}
    for path in prepare(arguments.videos):
        if arguments.only not in path.name:
            continue
        for workload, task in plan_tasks(path):
            measurements += measure(workload, task, names, arguments.turns)
            row = [f"{m.contestant} {(m.seconds or 0) * 1000:.0f}" for m in measurements[-len(names) - 1 :]]
            print(f"{path.name}, {workload}: {', '.join(row)}", flush=True)
        if path.name == "h264-1080p-60s.mp4":
            memory = measure_memory(path, names)
    write_results(measurements, memory, names)
    if importlib.util.find_spec("matplotlib"):
        plot(measurements, names)


if __name__ == "__main__":
    main()
