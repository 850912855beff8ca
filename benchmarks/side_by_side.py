"""clipserve beside the other ways to do it, on this machine: `python benchmarks/side_by_side.py`, or `make bench`.

The same video files and the same weights for all: (a) clipserve, in its default precision and in fp32; (b) the
codelab's way (PyAV decodes all frames, torch runs the network, one video at a time), as it is and with frame threads;
(c) the same with five threads; (d) torchcodec and ONNX Runtime in a process pool; (e) a plain Triton ensemble with a
Python preprocessing model; (f) LitServe. Each first tries its settings and keeps the best; then all take turns, slice
by slice.

Writes side_by_side.md, .csv and .png to benchmarks/results/ (with --model M: side_by_side_M.*; with --quick to
.cache/side-by-side/quick). Needs the `bench` extra; who is not installed is left out. Leave the machine alone
meanwhile: the page says how much of the processor others took.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from machine import describe_machine
from rivals.footage import prepare_mix, prepare_motions
from rivals.lineup import OURS, REFERENCE, Contestant, Setting, describe, list_contestants
from rivals.networks import CACHE, Ground, prepare_ground
from rivals.pixels import lend_ffmpeg
from rivals.rounds import choose_setting, measure
from rivals.seats import ContestantFailed, Seat
from rivals.summaries import summarise
from rivals.tables import Circumstances, draw, find_warnings, write_page, write_slices

from clipserve_export.specs import SPECS

RESULTS = Path(__file__).parent / "results"
DEFAULT_MODEL = "x3d_m"
MOTIONS, QUICK_MOTIONS = 24, 2


def choose_contestants(only: Sequence[str]) -> tuple[list[Contestant], tuple[str, ...]]:
    """Those to measure, and what is to be said of those left out for want of a package."""
    everyone = list_contestants(len(os.sched_getaffinity(0)))
    unknown = set(only) - {one.key for one in everyone}
    if unknown:
        sys.exit(f"--only {sorted(unknown)[0]}: the contestants are {', '.join(one.key for one in everyone)}")
    # Everything is told relative to these two.
    wanted = [one for one in everyone if not only or one.key in {*only, OURS, REFERENCE}]
    left_out = tuple(
        f"{one.title}: pip install 'clipserve[bench]' brings {' and '.join(one.needs)}"
        for one in wanted
        if not one.is_installed
    )
    return [one for one in wanted if one.is_installed], left_out


def chosen_precision(ground: Ground) -> str:
    """What clipserve computes in on this processor if not told otherwise."""
    import openvino

    from clipserve_server.options import choose_precision

    return choose_precision(
        "auto",
        processor_has_bf16="BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        record=Path(ground.repository) / ground.spec.net_name / "1" / "export.json",
    )


def run(arguments: argparse.Namespace, scratch: Path) -> None:
    """Prepare, try out, measure, write."""
    spec = SPECS[arguments.model]
    load = os.getloadavg()[0]
    contestants, left_out = choose_contestants(arguments.only)
    # Where torch exports it keeps a cache among the temporary files of this machine, if it is told no other place.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch / "torchinductor"))
    ground: Ground = prepare_ground(spec)
    is_motion = spec.family == "motion"
    videos = prepare_motions(QUICK_MOTIONS if arguments.quick else MOTIONS) if is_motion else prepare_mix()
    (scratch / "ffmpeg").mkdir()
    libraries = lend_ffmpeg(scratch / "ffmpeg")

    def make_seat(contestant: Contestant, setting: Setting) -> Seat:
        log = scratch / f"{contestant.key}.log"
        return Seat(contestant, setting, ground, libraries=libraries, log=log, folder=scratch)

    settings = {one.key: one.settings[0] for one in contestants}
    if not arguments.untuned:
        print("trying out settings", flush=True)
        settings = {one.key: choose_setting(one, videos, make_seat) for one in contestants}
    slices = measure(
        contestants, settings, videos, make_seat, rounds=arguments.rounds, slice_seconds=arguments.slice_seconds
    )
    summaries = [summarise(one, settings[one.key], slices, OURS) for one in contestants]
    packages = ("torch", "onnxruntime", "openvino", "av", *(name for one in contestants for name in one.needs))
    circumstances = Circumstances(
        model=spec.name,
        weights="its own weights" if is_motion else "seeded random weights",
        machine=describe_machine(*dict.fromkeys(packages)),
        precision=chosen_precision(ground),
        load=load,
        videos=tuple(videos),
        left_out=left_out,
        is_claim=spec.name == DEFAULT_MODEL,
    )
    name = "side_by_side" + ("" if spec.name == DEFAULT_MODEL else f"_{spec.name}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    lines = write_page(summaries, slices, circumstances, arguments.results / f"{name}.md")
    write_slices(slices, arguments.results / f"{name}.csv")
    draw(summaries, spec.name, arguments.results / f"{name}.png")
    print("\n".join(lines))
    for warning in find_warnings(slices, circumstances):
        print(f"BEWARE: {warning}", file=sys.stderr)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    keys = "; ".join(f"{one.key}: {describe(one.settings[0])}" for one in list_contestants(2))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Contestants, with what they do on two cores if untuned: {keys}.",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, choices=list(SPECS), help="the network (x3d_m)")
    parser.add_argument("--rounds", type=int, default=5, help="that count; one more warms up (5)")
    parser.add_argument("--slice-seconds", type=float, default=25.0, help="a turn, roughly; one pass at least (25)")
    parser.add_argument("--untuned", action="store_true", help="take each contestant's first setting")
    parser.add_argument("--only", nargs="*", default=[], metavar="CONTESTANT", help="these, clipserve and codelab")
    parser.add_argument("--results", type=Path, help="where to write (benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="motion, two videos, one round: does it all work?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.rounds, arguments.slice_seconds, arguments.untuned = "motion", 1, 0.5, True
    if arguments.rounds < 1:
        parser.error(f"--rounds is at least 1, got {arguments.rounds}")
    arguments.results = arguments.results or (CACHE / "quick" if arguments.quick else RESULTS)
    return arguments


def main() -> None:
    """The command; ends everything that it started, whatever happens."""
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
