"""What the scaling of `fast` quality does to a network's answers, beside `reference`, on real footage.

Both qualities of the decode step make the same clips, frame for frame; the exported network answers both in ONNX
Runtime. Kinetics weights are not at hand, so only `motion` is trained; see the words above the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from decode_footage import real_videos

from clipserve_export.exporting import export_model
from clipserve_export.formats import FORMATS
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS, ModelSpec

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("motion", "x3d_m", "mvit_base_16x4")
# Exports survive here between runs; the tests keep theirs in the same place.
REPOSITORY = ROOT / ".cache" / "test-repositories" / "onnx"
WORDS = """\
What that does to answers: `fast` against `reference` quality of the decode step, the same frames, the exported networks
in ONNX Runtime. Of each real video the whole, either half, and a `clip` from its first third.

**Only `motion` has trained weights**, and real footage is not what it was trained on; the last row is. The other rows
have random weights: their features are a random projection of the picture, their scores all but equal for every clip,
so they show how much of a difference in pixels gets through such a network, and nothing about accuracy on Kinetics.
The last column is the yardstick: how far the features of two different clips are from each other.
"""
FIRST_SEED, SEEDS = 7_100_000, 5
Answers = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Pair:
    """One clip's scores [K] and features [D], by both qualities."""

    fast: Answers
    reference: Answers

    @property
    def score_differences(self) -> npt.NDArray[np.float32]:
        """[K], absolute."""
        return np.abs(self.fast[0] - self.reference[0])

    @property
    def feature_difference(self) -> float:
        """Relative to the length of the reference's."""
        return relative(self.fast[1], self.reference[1])

    @property
    def agrees(self) -> bool:
        """On the best label."""
        return bool(self.fast[0].argmax() == self.reference[0].argmax())


def relative(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Length of the difference by the length of `other`."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def windows(duration: float) -> list[dict[str, object]]:
    """What to look at of a video that long, as arguments of Sampling."""
    return [
        {},
        {"end_seconds": duration / 2},
        {"start_seconds": duration / 2},
        {"policy": "clip", "start_seconds": duration / 3},
    ]


def pairs(spec: ModelSpec, videos: Iterable[bytes], *, whole: bool = False) -> Iterator[Pair]:
    """Every clip through the network, twice; of each video all windows, or the whole alone."""
    from clip_decode import Geometry, Limits, Sampling, decode_clips

    write_configs(REPOSITORY)
    source = "pretrained" if spec.family == "motion" else "random"
    export_model(spec, format_name="onnx", weights_source=source, labels_file=None, repository=REPOSITORY, reuse=True)
    run = FORMATS["onnx"].load(REPOSITORY / spec.net_name / "1" / "model.onnx")
    geometries = {"clip": Geometry(**vars(spec.geometry))}
    for data in videos:
        _, report = decode_clips(data, geometries, Sampling(), Limits())
        for window in windows(report.duration_seconds)[: 1 if whole else None]:
            answers = {}
            for quality in ("fast", "reference"):
                clips, _ = decode_clips(data, geometries, Sampling(quality=quality, **window), Limits())  # type: ignore[arg-type]
                scores, features = run(clips["clip"][None])
                answers[quality] = (scores[0], features[0])
            yield Pair(**answers)


def generated_videos() -> Iterator[bytes]:
    """What `motion` was made for: every class, of seeds it was not trained on."""
    for label in LABELS:
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            file = BytesIO()
            write_motion_video(file, label, seed, width=640, height=360, container="mp4")
            yield file.getvalue()


def row(name: str, weights: str, found: list[Pair]) -> str:
    """Of the table."""
    differences = np.stack([pair.score_differences for pair in found])
    features = [pair.feature_difference for pair in found]
    apart = [
        relative(one.reference[1], other.reference[1])
        for number, one in enumerate(found)
        for other in found[number + 1 :]
    ]
    best = np.mean([pair.reference[0].max() for pair in found])
    return (
        f"| {name} | {weights} | {differences.mean():.1e} | {differences.max():.1e} | {best:.4f} |"
        f" {sum(pair.agrees for pair in found)} of {len(found)} | {np.mean(features):.1%} | {np.max(features):.1%} |"
        f" {np.median(apart):.0%} |"
    )


def score_table() -> list[str]:
    """Lines of Markdown."""
    footage = [path.read_bytes() for path in real_videos()]
    rows = [
        row(name, "trained" if name == "motion" else "random", list(pairs(SPECS[name], footage))) for name in MODELS
    ]
    own = row("motion, its own kind of clips", "trained", list(pairs(SPECS["motion"], generated_videos(), whole=True)))
    return [
        WORDS,
        "| model | weights | score difference, mean | largest | mean best score | top-1 agrees |"
        " feature difference, mean | largest | between clips |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
        own,
    ]
