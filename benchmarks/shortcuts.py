"""Measures the shortcuts against exact frames: `python -m benchmarks.shortcuts`.

Policy `keyframes` and quality `draft` of the decode step take frames that are near the exact ones and cost less. The
first table has the processor time of a decode, and how far the frames move, for 16 uniform frames; the second one the
labels that `motion` gives to its own kind of videos. Writes benchmarks/results/shortcuts.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from time import process_time

import numpy as np

from benchmarks.footage import FOOTAGE, HD, LONG_PHONE, X264, Footage, encode, foreign_videos
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import export_for_benchmark
from benchmarks.harness.results import new_parser, table, write_page
from benchmarks.harness.rounds import Samples, take_turns
from clip_decode import Geometry, Limits, Report, Sampling, decode_clips
from clip_decode.demux.container import open_video
from clip_decode.demux.packets import read_packets
from clip_decode.dependencies.analysis import analyze_dependencies
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clipserve_export.formats import FORMATS
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS

GEOMETRY = Geometry(16, 5, 256, 256)
EXACT, KEYFRAMES, DRAFT = "exact", "keyframes", "draft"
SAMPLINGS = {EXACT: Sampling(), KEYFRAMES: Sampling(policy="keyframes"), DRAFT: Sampling(quality="draft")}
# Longer than what other benchmarks decode: only these have sixteen key frames.
LONG = (
    LONG_PHONE,
    Footage("h264-360p-300s.mp4", "libx264", 640, 360, 300, 250, X264),
    Footage("h264-1080p-60s-short-groups.mp4", "libx264", 1920, 1080, 60, 48, X264, source=HD),
)
LIMIT_SECONDS = 12  # for the rounds of one file; the first is always measured
FIRST_SEED, SEEDS = 7_200_000, 4
# Name -> seconds, frames between key frames; `motion` sees 8 frames.
MOTIONS = {"10 s, a key frame a second": (10.0, 30), "2 s, one key frame": (2.0, 250)}
INTRODUCTION = """\
Processor milliseconds a video, median; one thread, 16 uniform frames of 256 x 256, and in brackets the frames decoded.
Packets: what of it finds the key frames, that is opening, reading all packets and analysing their headers. Moved: mean
and largest distance in seconds from the exact frame. "exact": the shortcut was not possible, and the frames are exact.
"""
LABELS_INTRODUCTION = """\

The best label of `motion` for generated videos of all its classes, from seeds that it was not trained on. Agreement is
with exact frames, accuracy with the truth. Networks with trained weights for real footage are not at hand here: for it,
only the distances above are known.
"""


@dataclass(frozen=True)
class Decode:
    """One decode: its processor seconds and its report."""

    seconds: float
    report: Report

    @property
    def moments(self) -> tuple[float, ...]:
        """Seconds into the video of each frame used."""
        return self.report.timestamps_seconds["clip"][0]

    @property
    def is_exact(self) -> bool:
        """Whether no shortcut was taken."""
        return (self.report.policy, self.report.quality) == ("uniform", "fast")


def decode(data: bytes, sampling: Sampling) -> Decode:
    """Decode once."""
    started = process_time()
    _, report = decode_clips(data, GEOMETRY, sampling)
    return Decode(process_time() - started, report)


def read_alone(data: bytes) -> float:
    """Processor seconds to open a file, read its packets and analyse their headers."""
    started = process_time()
    limits = Limits()
    with open_video(data, limits) as video:
        index = read_packets(video, limits)
        with suppress(DependenciesUnknown):
            analyze_dependencies(index, video.stream.codec_context, video.container_name)
    return process_time() - started


def compare(path: Path, rounds: int) -> list[str]:
    """The row of a file."""
    data = path.read_bytes()
    turns = {name: partial(decode, data, sampling) for name, sampling in SAMPLINGS.items()}
    found = take_turns(turns, rounds=rounds, limit_seconds=LIMIT_SECONDS)
    packets = Samples(tuple(read_alone(data) for _ in range(rounds)))
    medians = {name: Samples(tuple(one.seconds for one in found[name])).median for name in SAMPLINGS}
    exact = found[EXACT][0]
    row = [path.name, f"{medians[EXACT] * 1000:.0f} ({exact.report.decoded_frames})", f"{packets.median * 1000:.0f}"]
    for name in (KEYFRAMES, DRAFT):
        one = found[name][0]
        if one.is_exact:
            row += ["exact", "", ""]
            continue
        moved = np.abs(np.subtract(one.moments, exact.moments))
        row += [
            f"{medians[name] * 1000:.0f} ({one.report.decoded_frames})",
            f"{medians[EXACT] / medians[name]:.2f}",
            f"{moved.mean():.2f}, {moved.max():.2f}",
        ]
    print(row, flush=True)
    return row


def generated_videos(seconds: float, group: int) -> Iterator[tuple[str, bytes]]:
    """Yield label and bytes."""
    for label in LABELS:
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            file = BytesIO()
            write_motion_video(
                file, label, seed, seconds=seconds, container="mp4", options={"g": str(group), "preset": "veryfast"}
            )
            yield label, file.getvalue()


def compare_labels() -> Iterator[list[str]]:
    """Yield a row for each kind of videos and shortcut."""
    spec = SPECS["motion"]
    run = FORMATS["onnx"].load(export_for_benchmark(spec) / spec.net_name / "1" / "model.onnx")
    geometry = Geometry(**vars(spec.geometry))
    for title, form in MOTIONS.items():
        truths: list[str] = []
        answers: dict[str, list[str]] = {name: [] for name in SAMPLINGS}
        scores: dict[str, list[float]] = {name: [] for name in SAMPLINGS}
        shortened = dict.fromkeys(SAMPLINGS, 0)
        for label, data in generated_videos(*form):
            truths.append(label)
            for name, sampling in SAMPLINGS.items():
                clips, report = decode_clips(data, geometry, sampling)
                found, _ = run(clips[None])
                answers[name].append(LABELS[int(found[0].argmax())])
                scores[name].append(float(found[0][LABELS.index(label)]))
                shortened[name] += (report.policy, report.quality) != ("uniform", "fast")
        count = len(truths)
        for name in SAMPLINGS:
            agree = sum(one == other for one, other in zip(answers[name], answers[EXACT], strict=True))
            right = sum(one == truth for one, truth in zip(answers[name], truths, strict=True))
            difference = np.abs(np.subtract(scores[name], scores[EXACT]))
            yield [
                title,
                name,
                f"{shortened[name]} of {count}",
                f"{agree} of {count}",
                f"{right} of {count}",
                f"{difference.mean():.3f}, {difference.max():.3f}",
            ]


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the file names to measure")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        sys.exit("this process has real-time scheduling")
    own = [encode(footage) for footage in (*FOOTAGE, *LONG) if arguments.only in footage.name]
    files = [*own, *(path for path in foreign_videos() if arguments.only in path.name)]
    columns = ["file", "exact", "packets", "keyframes", "times as fast", "moved", "draft", "times as fast", "moved"]
    rows = [compare(path, arguments.rounds) for path in files]
    label_columns = ["videos", "frames", "shortcut taken", "agreement", "accuracy", "score of the truth, differs by"]
    lines = [
        describe_machine("av", "numpy") + (f". {arguments.note}" if arguments.note else ""),
        "",
        INTRODUCTION,
        *table(columns, rows),
        LABELS_INTRODUCTION,
        *table(label_columns, compare_labels(), texts=2),
    ]
    write_page(arguments.out / "shortcuts.md", lines)


if __name__ == "__main__":
    main()
