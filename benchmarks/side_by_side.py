"""Measures clipserve beside other ways to serve the same model, on this machine: `python -m benchmarks.side_by_side`.

The same video files and the same weights for all: (a) clipserve, in its default precision and in fp32; (b) the
codelab's way (PyAV decodes all frames, torch runs the network, one video at a time), as it is and with frame threads;
(c) the same with five threads; (d) torchcodec and ONNX Runtime in a process pool; (e) a plain Triton ensemble with a
Python preprocessing model; (f) LitServe. Each first tries its settings and keeps the best; then all take turns.

Writes side_by_side.md, .csv and .png to benchmarks/results/ (with --model M: side_by_side_M.*; with --quick to
.cache/benchmarks/quick). Needs the extra `bench`; a contestant whose packages do not load is left out. Leave the
machine alone meanwhile: the page says how much of the processor other programs took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from benchmarks.alternatives.contestants import OURS, REFERENCE, Contestant, Setting, describe, list_contestants
from benchmarks.alternatives.shared_model import SharedModel, prepare_model
from benchmarks.footage import mixed_videos, motion_videos
from benchmarks.harness.ffmpeg import share_ffmpeg
from benchmarks.harness.machine import describe_machine, machine_seconds, own_seconds, tree_seconds
from benchmarks.harness.processes import ContestantFailed, ContestantProcess
from benchmarks.harness.results import CACHE, RESULTS
from benchmarks.harness.rounds import interleave
from benchmarks.side_by_side_report import Circumstances, Turn, draw, find_warnings, summarise, write_page, write_turns
from clipserve_export.specs import SPECS

DEFAULT_MODEL = "x3d_m"
MOTIONS, QUICK_MOTIONS = 24, 2
TIE = 1.03  # of two settings this close, the first counts: it has fewer videos in flight

Start = Callable[[Contestant, Setting], ContestantProcess]


def choose_contestants(only: Sequence[str], libraries: str) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants to measure, and the titles of those that do not load, with the reason."""
    everyone = list_contestants(len(os.sched_getaffinity(0)))
    unknown = set(only) - {one.key for one in everyone}
    if unknown:
        sys.exit(f"--only {sorted(unknown)[0]}: the contestants are {', '.join(one.key for one in everyone)}")

    @cache
    def find_problem(module: str) -> str:
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        command = [sys.executable, "-c", f"import {module}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return (done.stderr.strip().splitlines() or ["it does not load"])[-1] if done.returncode else ""

    # All ratios are against these two.
    wanted = [one for one in everyone if not only or one.key in {*only, OURS, REFERENCE}]
    left_out = {one.title: "; ".join(filter(None, map(find_problem, one.needs))) for one in wanted}
    left_out = {title: reason for title, reason in left_out.items() if reason}
    return [one for one in wanted if one.title not in left_out], left_out


def chosen_precision(model: SharedModel) -> str:
    """The precision that clipserve chooses on this processor."""
    import openvino

    from clipserve_server.options import choose_precision

    return choose_precision(
        "auto",
        processor_has_bf16="BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        record=Path(model.repository) / model.spec.net_name / "1" / "export.json",
    )


def take_turn(
    contestant: Contestant,
    process: ContestantProcess,
    videos: Sequence[Path],
    concurrency: int,
    *,
    number: int,
    idle: Sequence[ContestantProcess] = (),
) -> Turn:
    """Let one contestant classify the videos. In round 0, watch its memory, which takes processor time."""
    order = {"videos": list(map(str, videos)), "concurrency": concurrency}

    def read() -> tuple[float, float, float]:
        machine, tree = machine_seconds(), tree_seconds(process.pid)
        sleeping = sum(tree_seconds(other.pid) for other in idle)
        return tree, sleeping, machine - tree - sleeping - own_seconds()

    before, started = read(), time.perf_counter()
    reply, peak = process.ask(order, watch_memory=number == 0)
    capacity = (time.perf_counter() - started) * len(os.sched_getaffinity(0))
    used, idle_used, others_used = (now - then for now, then in zip(read(), before, strict=True))
    turn = Turn(
        key=contestant.key,
        round=number,
        seconds=reply["seconds"],
        processor_seconds=used,
        peak_bytes=peak,
        others_share=max(others_used, 0.0) / capacity,  # the clocks tick apart
        idle_share=idle_used / capacity,
        answers=tuple(reply["answers"]),
    )
    print(f"  {contestant.title}: {turn}", flush=True)
    return turn


def choose_setting(contestant: Contestant, videos: Sequence[Path], start: Start) -> Setting:
    """The setting with the most videos a second; each runs alone on the machine, after a warm-up."""
    if len(contestant.settings) == 1:
        return contestant.settings[0]
    best, highest = contestant.settings[0], 0.0
    for setting in contestant.settings:
        print(f"  {contestant.title} ({describe(setting)})", flush=True)
        with start(contestant, setting) as process:
            process.wait_until_ready()
            take_turn(contestant, process, videos[:2], setting["concurrency"], number=-1)
            turn = take_turn(contestant, process, videos, setting["concurrency"], number=-1)
        if turn.rate > highest * TIE:
            best, highest = setting, turn.rate
    return best


def measure(
    contestants: Sequence[Contestant],
    settings: Mapping[str, Setting],
    videos: Sequence[Path],
    start: Start,
    *,
    rounds: int,
    turn_seconds: float,
) -> list[Turn]:
    """All turns: round 0, which warms up and watches the memory, then the rounds that count.

    A turn is the whole list of videos, as often as fits into turn_seconds and at least once. Every round has its own
    order of videos, and begins with another contestant.
    """
    turns: list[Turn] = []
    with ExitStack() as stack:
        processes: dict[str, ContestantProcess] = {}
        print("starting all contestants", flush=True)
        for one in contestants:
            if not one.process:
                processes[one.key] = stack.enter_context(start(one, settings[one.key]))
        # All end side by side, not one after the other.
        for process in processes.values():
            stack.callback(process.ask_to_stop)
        for process in processes.values():
            process.wait_until_ready()
        times: dict[str, int] = {}
        for number, order in interleave(contestants, rounds):
            print(f"round {number} of {rounds}" if number else "warming up, watching memory", flush=True)
            for one in order:
                process = processes[one.process or one.key]
                batch = list(videos) * times.get(one.key, 1)
                random.Random(number).shuffle(batch)
                idle = [other for other in processes.values() if other is not process]
                concurrency = settings[one.key]["concurrency"]
                turn = take_turn(one, process, batch, concurrency, number=number, idle=idle)
                turns.append(turn)
                times.setdefault(one.key, max(1, round(turn_seconds / turn.seconds)))
    return turns


def run(arguments: argparse.Namespace, scratch: Path) -> None:
    """Prepare, try settings, measure, write."""
    spec, load = SPECS[arguments.model], os.getloadavg()[0]
    libraries = share_ffmpeg(scratch / "ffmpeg")
    contestants, left_out = choose_contestants(arguments.only, libraries)
    # By default torch keeps a cache of its exports among the temporary files of the machine.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "torchinductor"))
    model = prepare_model(spec, with_onnx=any(one.needs for one in contestants))
    is_motion = spec.family == "motion"
    videos = motion_videos(QUICK_MOTIONS if arguments.quick else MOTIONS) if is_motion else mixed_videos()

    def start(contestant: Contestant, setting: Setting) -> ContestantProcess:
        options = (contestant.key, model.to_json(), json.dumps(setting))
        command = [sys.executable, "-m", "benchmarks.alternatives", *options]
        variables = {"LD_LIBRARY_PATH": libraries, "TMPDIR": str(scratch)}
        log = scratch / f"{contestant.key}.log"
        return ContestantProcess(contestant.title, command, variables=variables, log=log)

    settings = {one.key: one.settings[0] for one in contestants}
    if not arguments.untuned:
        print("trying settings", flush=True)
        settings = {one.key: choose_setting(one, videos, start) for one in contestants}
    turns = measure(contestants, settings, videos, start, rounds=arguments.rounds, turn_seconds=arguments.turn_seconds)
    packages = ("torch", "onnxruntime", "openvino", "av", *(name for one in contestants for name in one.needs))
    circumstances = Circumstances(
        model=spec.name,
        weights="its own weights" if is_motion else "seeded random weights",
        machine=describe_machine(*dict.fromkeys(packages)),
        precision=chosen_precision(model),
        load=load,
        videos=tuple(path.name for path in videos),
        left_out=left_out,
        has_goals=spec.name == DEFAULT_MODEL,
    )
    summaries = [summarise(one, settings[one.key], turns) for one in contestants]
    name = "side_by_side" + ("" if spec.name == DEFAULT_MODEL else f"_{spec.name}")
    write_turns(turns, arguments.out / f"{name}.csv")
    draw(summaries, spec.name, arguments.out / f"{name}.png")
    write_page(summaries, turns, circumstances, arguments.out / f"{name}.md")
    for warning in find_warnings(turns, circumstances):
        print(f"WARNING: {warning}", file=sys.stderr)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    keys = "; ".join(f"{one.key}: {describe(one.settings[0])}" for one in list_contestants(2))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Contestants, with their untuned settings on two cores: {keys}.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, choices=list(SPECS), help="the network (x3d_m)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; one more warms up (5)")
    parser.add_argument("--turn-seconds", type=float, default=25.0, help="about; at least all videos once (25)")
    parser.add_argument("--untuned", action="store_true", help="take each contestant's first setting")
    parser.add_argument("--only", nargs="*", default=[], metavar="CONTESTANT", help="these, clipserve and codelab")
    parser.add_argument("--out", type=Path, help="where to write (benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="motion, two videos, one round: does it all work?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.rounds, arguments.turn_seconds, arguments.untuned = "motion", 1, 0.5, True
    if arguments.rounds < 1:
        parser.error(f"--rounds is at least 1, got {arguments.rounds}")
    arguments.out = arguments.out or (CACHE / "quick" if arguments.quick else RESULTS)
    return arguments


def main() -> None:
    """Run; ends everything that it started, whatever happens."""
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as scratch:
        try:
            run(arguments, Path(scratch))
        except ContestantFailed as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            sys.exit("stopped; nothing was written")


if __name__ == "__main__":
    main()
