"""Compares swscale's filters with PyTorchVideo's scaling on real videos: `python -m benchmarks.scaling`.

The reference converts a whole frame to RGB, as PyAV does by default, and scales it with
`torch.nn.functional.interpolate` (bilinear, no antialias). Each filter scales every twelfth frame of the real videos to
short side 256 in one pass. A second table shows what the filter in use does to scores and features: the decode step's
quality `fast` against `reference`. Writes benchmarks/results/scaling.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from math import floor
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from benchmarks.footage import real_videos
from benchmarks.harness.models import export_for_benchmark
from benchmarks.harness.results import new_parser, table, write_page
from benchmarks.harness.rounds import seconds_of
from clip_decode import Geometry, Limits, Sampling, decode_clips
from clipserve_export.formats import FORMATS
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS, ModelSpec

SHORT_SIDE = 256
EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
FILTERS = {
    "area, exact (used)": Interpolation.AREA | EXACT,
    "area": Interpolation.AREA,
    "bilinear, exact": Interpolation.BILINEAR | EXACT,
    "bilinear": Interpolation.BILINEAR,
    "bicubic, exact": Interpolation.BICUBIC | EXACT,
    "fast bilinear": Interpolation.FAST_BILINEAR,
    "nearest": Interpolation.POINT,
}
MODELS = ("motion", "x3d_m", "mvit_base_16x4")
FIRST_SEED, SEEDS = 7_100_000, 5
INTRODUCTION = """\
Levels of 255: mean difference, bias, 99 % within; against the reference, then against the same scaling of an exactly
rounded conversion.
"""
SCORES_INTRODUCTION = """
The effect on answers: quality `fast` of the decode step against `reference`, the same frames, the exported networks in
ONNX Runtime. Of each real video the whole, either half, and a `clip` from its first third.

**Only `motion` has trained weights**, and it was not trained on real videos; the last row is its own kind. The other
rows have random weights: their features are a random projection of the picture, and their scores are almost equal for
every clip. They show how much of a difference in pixels gets through such a network, and nothing about accuracy on
Kinetics. For comparison, the last column has the difference of the features of two different clips.
"""
Levels = npt.NDArray[np.float32]
Answers = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def scale_reference(frame: VideoFrame, width: int, height: int, flags: Interpolation) -> Levels:
    """Convert with these flags at full size, then scale in floats."""
    rgb = frame.to_ndarray(format="rgb24", interpolation=flags)
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    scaled = torch.nn.functional.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
    return scaled[0].permute(1, 2, 0).numpy()


def describe(pixels: list[Levels], reference: list[Levels]) -> list[str]:
    """Mean difference, bias and 99th percentile in levels of 255, as cells."""
    difference = np.stack(pixels) - np.stack(reference)
    size = np.abs(difference)
    return [f"{size.mean():.2f}", f"{difference.mean():+.2f}", f"{np.percentile(size, 99):.0f}"]


def compare_filters(path: Path) -> Iterator[list[str]]:
    """Yield a row for each filter."""
    with av.open(str(path)) as container:
        frames = [frame for number, frame in enumerate(container.decode(video=0)) if number % 12 == 0]
    width, height = frames[0].width, frames[0].height
    short = min(width, height)
    target = (floor(width / short * SHORT_SIDE), floor(height / short * SHORT_SIDE))
    plain = [scale_reference(frame, *target, Interpolation.BILINEAR) for frame in frames]
    exact = [scale_reference(frame, *target, Interpolation.BILINEAR | EXACT) for frame in frames]
    for name, flags in FILTERS.items():
        reformatter, scaled = VideoReformatter(), list[VideoFrame]()

        def scale(
            flags: Interpolation = flags, run: VideoReformatter = reformatter, to: list[VideoFrame] = scaled
        ) -> None:
            to += [run.reformat(frame, *target, format="rgb24", interpolation=flags, threads=1) for frame in frames]

        milliseconds = seconds_of(scale) / len(frames) * 1000
        pixels = [frame.to_ndarray().astype(np.float32) for frame in scaled]
        cells = [f"{milliseconds:.2f}", *describe(pixels, plain), *describe(pixels, exact)]
        yield [f"{path.stem} {width} x {height}", name, *cells]


@dataclass(frozen=True)
class Pair:
    """The scores [K] and features [D] of one clip, by both qualities."""

    fast: Answers
    reference: Answers

    @property
    def score_differences(self) -> npt.NDArray[np.float32]:
        """[K], absolute."""
        return np.abs(self.fast[0] - self.reference[0])

    @property
    def agrees(self) -> bool:
        """Whether both have the same best label."""
        return bool(self.fast[0].argmax() == self.reference[0].argmax())


def relative(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Length of the difference over the length of `other`."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def answer_pairs(spec: ModelSpec, videos: Iterable[bytes], *, whole: bool = False) -> Iterator[Pair]:
    """Yield the answers to every clip, by both qualities. whole: of each video only the whole, no parts."""
    run = FORMATS["onnx"].load(export_for_benchmark(spec) / spec.net_name / "1" / "model.onnx")
    geometries = {"clip": Geometry(**vars(spec.geometry))}
    for data in videos:
        _, report = decode_clips(data, geometries, Sampling(), Limits())
        end = report.duration_seconds
        halves = [{"end_seconds": end / 2}, {"start_seconds": end / 2}, {"policy": "clip", "start_seconds": end / 3}]
        for window in [{}] if whole else [{}, *halves]:
            answers = {}
            for quality in ("fast", "reference"):
                clips, _ = decode_clips(data, geometries, Sampling(quality=quality, **window), Limits())  # type: ignore[arg-type]
                scores, features = run(clips["clip"][None])
                answers[quality] = (scores[0], features[0])
            yield Pair(**answers)


def generated_videos() -> Iterator[bytes]:
    """Yield what `motion` was made for: every class, of seeds that it was not trained on."""
    for label in LABELS:
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            file = BytesIO()
            write_motion_video(file, label, seed, width=640, height=360, container="mp4")
            yield file.getvalue()


def summarise(name: str, weights: str, pairs: list[Pair]) -> list[str]:
    """A row of the table of scores."""
    differences = np.stack([pair.score_differences for pair in pairs])
    features = [relative(pair.fast[1], pair.reference[1]) for pair in pairs]
    between = [
        relative(one.reference[1], other.reference[1]) for n, one in enumerate(pairs) for other in pairs[n + 1 :]
    ]
    return [
        name,
        weights,
        f"{differences.mean():.1e}",
        f"{differences.max():.1e}",
        f"{np.mean([pair.reference[0].max() for pair in pairs]):.4f}",
        f"{sum(pair.agrees for pair in pairs)} of {len(pairs)}",
        f"{np.mean(features):.1%}",
        f"{np.max(features):.1%}",
        f"{np.median(between):.0%}",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    out = parser.parse_args().out
    columns = ["video", "filter", "ms a frame", "mean", "bias", "99 %", "mean, exact", "bias", "99 %"]
    rows = [row for path in real_videos() for row in compare_filters(path)]
    footage = [path.read_bytes() for path in real_videos()]
    scores = [
        summarise(name, "trained" if name == "motion" else "random", list(answer_pairs(SPECS[name], footage)))
        for name in MODELS
    ]
    own = list(answer_pairs(SPECS["motion"], generated_videos(), whole=True))
    scores.append(summarise("motion, its own kind of clips", "trained", own))
    score_columns = ["model", "weights", "score difference, mean", "largest", "mean best score", "top-1 agrees"]
    score_columns += ["feature difference, mean", "largest", "between clips"]
    lines = [INTRODUCTION, *table(columns, rows, texts=2), SCORES_INTRODUCTION, *table(score_columns, scores, texts=2)]
    write_page(out / "scaling.md", lines)


if __name__ == "__main__":
    main()
