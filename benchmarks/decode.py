"""Measures decoding against torchcodec, decord, OpenCV and plain PyAV: `python -m benchmarks.decode`.

Every decoder turns the same bytes into the same 256 x 256 frames, on one thread, in a fresh process of its own, in
turns; the median counts. The seconds are processor time of all threads: what throughput is made of, and the same on a
busy machine. Two sets of files count apart: our own footage, and foreign files, most of them small. Writes decode.csv,
decode.md and decode.png to benchmarks/results/. A decoder that does not load is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decode_contestants import CONTESTANTS, PACKETS_ALONE, Task, scaled_size
from benchmarks.footage import FOOTAGE, encode, foreign_videos
from benchmarks.harness.ffmpeg import share_ffmpeg
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.processes import ContestantFailed, ContestantProcess
from benchmarks.harness.results import new_figure, new_parser, save_figure, table, write_csv, write_page
from benchmarks.harness.rounds import Samples, geometric_mean, take_turns
from clip_decode import DecodeError, Geometry, Limits, Sampling, decode_clips

OURS = "clipserve"
WORKLOADS = {"uniform 16": ("uniform", 16, 1), "uniform 32": ("uniform", 32, 1), "5 clips": ("clip", 16, 5)}
PACKAGES = {
    "clipserve": ("av",),
    "torchcodec": ("torchcodec", "torch"),
    "decord": ("eva-decord",),
    "opencv": ("opencv-python-headless",),
}
OWN, FOREIGN = "own footage", "foreign files"
MEMORY_FILE = "h264-1080p-60s.mp4"
# A frame this far off on average, in levels of 255, is another frame and not another filter.
OTHER_FRAME_LEVELS = 12
LIMIT_SECONDS = 30  # for the rounds of one task; the first is always measured


@dataclass(frozen=True)
class Measurement:
    """One decoder on one file and workload; processor seconds, None for a failure."""

    footage: str
    file: str
    workload: str
    decoder: str
    seconds: float | None
    wrong_frames: int = 0


class Contestants:
    """The processes of all decoders that load."""

    def __init__(self, stack: ExitStack, folder: Path, torchcodec_python: str) -> None:
        self._stack, self._folder, self._python = stack, folder, {"torchcodec": torchcodec_python}
        self._libraries = share_ffmpeg(folder / "ffmpeg")
        self.left_out: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._processes: dict[str, ContestantProcess] = {}
        for name in (*CONTESTANTS, PACKETS_ALONE):
            try:
                self._processes[name] = self.start(name)
                self.versions |= self._processes[name].ask({"packages": PACKAGES.get(name, ())})[0]
            except ContestantFailed as error:
                self.left_out[name] = str(error).splitlines()[-1]
                print(f"{name} is left out: {self.left_out[name]}", flush=True)

    @property
    def names(self) -> list[str]:
        """Of the decoders, ours first."""
        return [name for name in self._processes if name != PACKETS_ALONE]

    def start(self, name: str) -> ContestantProcess:
        """A fresh process. Raises ContestantFailed."""
        command = [self._python.get(name, sys.executable), "-m", "benchmarks.decode_contestants", name]
        variables = {"LD_LIBRARY_PATH": self._libraries, "OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}
        log = self._folder / f"{name}.log"
        process = self._stack.enter_context(ContestantProcess(name, command, variables=variables, log=log))
        process.wait_until_ready()
        return process

    def measure(self, footage: str, workload: str, task: Task, rounds: int) -> list[Measurement]:
        """Measure all decoders at one task, in turns."""
        task_order = {"task": asdict(task)}
        wrong = self._count_wrong_frames(task_order)
        turns = {name: partial(self._seconds, name, task_order) for name in self._processes}
        taken = take_turns(turns, rounds=rounds, warm_up=0, limit_seconds=LIMIT_SECONDS)
        file = Path(task.path).name
        found = []
        for name, values in taken.items():
            seconds = Samples(tuple(value for value in values if value is not None))
            median = seconds.median if seconds.values else None
            found.append(Measurement(footage, file, workload, name, median, wrong.get(name, 0)))
        return found

    def _seconds(self, name: str, order: dict[str, Any]) -> float | None:
        seconds: float | None = self._processes[name].ask(order)[0]["seconds"]
        return seconds

    def _count_wrong_frames(self, order: dict[str, Any]) -> dict[str, int]:
        """By decoder, against our frames. Warms all of them up."""
        pixels = {}
        for name in self.names:
            path = self._folder / f"{name}.npy"
            answer, _ = self._processes[name].ask({**order, "pixels": str(path)})
            if answer["seconds"] is None:
                print(f"  {name} failed: {answer['error']}", flush=True)
            else:
                pixels[name] = np.load(path).astype(np.int16)
        expected = pixels[OURS].reshape(-1, *pixels[OURS].shape[-3:])
        off = {name: np.abs(found.reshape(expected.shape) - expected).mean((1, 2, 3)) for name, found in pixels.items()}
        return {name: int((levels > OTHER_FRAME_LEVELS).sum()) for name, levels in off.items()}

    def measure_memory(self, task: Task) -> Iterator[tuple[str, float, float]]:
        """Name, MiB before and at the peak, of a fresh process of each decoder."""
        for name in self.names:
            answer, _ = self.start(name).ask({"task": asdict(task)})
            if answer["seconds"] is not None:
                yield name, *answer["mebibytes"]


def plan_tasks(path: Path) -> Iterator[tuple[str, Task]]:
    """The workloads for a file, as frame numbers, which all decoders take."""
    data = path.read_bytes()
    for name, (policy, frames, views) in WORKLOADS.items():
        geometry = {"clip": Geometry(frames, 5, 256, 256)}
        sampling = Sampling(policy=policy, views=views)  # type: ignore[arg-type]
        _, report = decode_clips(data, geometry, sampling, Limits())
        seconds = [moment for view in report.timestamps_seconds["clip"] for moment in view]
        width, height = scaled_size(report.width, report.height)
        indices = [round(second * report.fps) for second in seconds]
        yield name, Task(str(path), indices, width, height, policy, frames, views)


def find_ratios(measurements: list[Measurement], footage: str, decoder: str) -> dict[tuple[str, str], float]:
    """Seconds of a decoder over ours, by file and workload."""
    taken = {(m.file, m.workload, m.decoder): m.seconds for m in measurements if m.footage == footage}
    return {
        (file, workload): theirs / ours
        for (file, workload, name), theirs in taken.items()
        if name == decoder and theirs and (ours := taken.get((file, workload, OURS)))
    }


def write_results(
    measurements: list[Measurement], memory: list[tuple[str, float, float]], contestants: Contestants, folder: Path
) -> None:
    """Write page, CSV and plot."""
    rows = []
    for m in measurements:
        row = asdict(m)
        seconds = row.pop("seconds")
        rows.append({**row, "milliseconds": "" if seconds is None else f"{seconds * 1000:.1f}"})
    write_csv(folder / "decode.csv", rows)
    columns = [*contestants.names, PACKETS_ALONE]
    lines = [
        ", ".join([describe_machine(), *(f"{name} {number}" for name, number in contestants.versions.items())]),
        "",
        "Processor milliseconds a video, median; one thread, a fresh process each. In brackets: frames that are not",
        f"the ones asked for. {PACKETS_ALONE}: libavcodec on the packets that the wanted frames depend on, without",
        "demuxing and scaling.",
        *(f"\n{name} is left out: {reason}" for name, reason in contestants.left_out.items()),
    ]
    for footage in dict.fromkeys(m.footage for m in measurements):
        found = {(m.file, m.workload, m.decoder): m for m in measurements if m.footage == footage}
        tasks = dict.fromkeys((file, workload) for file, workload, _ in found)
        cells = ([*task, *(_cell(found[(*task, name)]) for name in columns)] for task in tasks)
        lines += ["", f"## {footage.capitalize()}", "", *table(["file", "frames", *columns], cells, texts=2), ""]
        ratios = {name: list(find_ratios(measurements, footage, name).values()) for name in columns[1:]}
        lines += table(
            ["times as fast as", "geometric mean", "slowest", "fastest", "tasks"],
            (
                [name, f"{geometric_mean(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}", len(values)]
                for name, values in ratios.items()
                if values
            ),
        )
    if memory:
        rows_of_memory = ([name, f"{before:.0f}", f"{peak:.0f}"] for name, before, peak in memory)
        lines += ["", *table([f"memory for {MEMORY_FILE}, MiB", "before", "peak"], rows_of_memory)]
    write_page(folder / "decode.md", lines)
    plot(measurements, contestants.names[1:], folder / "decode.png")


def _cell(m: Measurement) -> str:
    time = "failed" if m.seconds is None else f"{m.seconds * 1000:.0f}"
    return time + (f" ({m.wrong_frames})" if m.wrong_frames else "")


def plot(measurements: list[Measurement], names: list[str], path: Path) -> None:
    """How many times as fast, by file, for 16 uniform frames."""
    files = list(dict.fromkeys((m.footage, m.file) for m in measurements))
    figure, (axes,) = new_figure(1, figsize=(10, 0.45 * len(files) + 1.5))
    height = 0.8 / max(len(names), 1)
    for row, name in enumerate(names):
        ratios = {footage: find_ratios(measurements, footage, name) for footage in (OWN, FOREIGN)}
        values = [ratios[footage].get((file, "uniform 16"), 0) for footage, file in files]
        axes.barh([place + row * height for place in range(len(files))], values, height, label=name)
    axes.set_yticks([place + 0.4 for place in range(len(files))], [file for _, file in files])
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="seconds of the other decoder / seconds of clipserve, 16 uniform frames")
    axes.invert_yaxis()
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--footage", type=Path, help="where our own encoded files are kept")
    parser.add_argument("--foreign", type=Path, nargs="*", help="foreign files, in place of those found here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the file names to measure")
    parser.add_argument("--torchcodec-python", default=sys.executable, help="Python of an environment with torchcodec")
    arguments = parser.parse_args()
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        sys.exit("this process has real-time scheduling, which would count for the decoders that it starts")
    foreign = foreign_videos() if arguments.foreign is None else arguments.foreign
    files = [(OWN, encode(one, arguments.footage)) for one in FOOTAGE if arguments.only in one.name]
    files += [(FOREIGN, path) for path in foreign if arguments.only in path.name]
    measurements: list[Measurement] = []
    memory: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contestants = Contestants(stack, Path(folder), arguments.torchcodec_python)
        for footage, path in files:
            try:
                tasks = list(plan_tasks(path))
            except DecodeError as error:
                print(f"{path.name} is left out: {error}", flush=True)
                continue
            for workload, task in tasks:
                found = contestants.measure(footage, workload, task, arguments.rounds)
                measurements += found
                row = ", ".join(f"{m.decoder} {_cell(m)}" for m in found)
                print(f"{path.name}, {workload}: {row}", flush=True)
                if path.name == MEMORY_FILE and not memory:
                    memory = list(contestants.measure_memory(task))
        write_results(measurements, memory, contestants, arguments.out)


if __name__ == "__main__":
    main()
