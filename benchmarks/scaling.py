"""Compares swscale's filters with PyTorchVideo's scaling on real footage: `python benchmarks/scaling.py`.

The reference converts a whole frame to RGB, as PyAV does by default, and scales it with
`torch.nn.functional.interpolate` (bilinear, no antialias). Each filter scales every twelfth frame of the
real videos to short side 256 in one pass. A second table shows what the filter used does to scores and features
(scaling_scores.py). Writes scaling.md to benchmarks/results/.
"""

from __future__ import annotations

import time
from math import floor
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from decode_footage import real_videos
from scaling_scores import score_table

SHORT_SIDE = 256
RESULTS = Path(__file__).resolve().parent / "results"
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
Levels = npt.NDArray[np.float32]


def scale_reference(frame: VideoFrame, width: int, height: int, flags: Interpolation) -> Levels:
    """Convert without scaling by these flags, then scale in floats."""
    rgb = frame.to_ndarray(format="rgb24", interpolation=flags)
    planes = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    scaled = torch.nn.functional.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
    return scaled[0].permute(1, 2, 0).numpy()


def describe(pixels: list[Levels], reference: list[Levels]) -> str:
    """Mean difference, bias and 99th percentile in levels of 255, as table cells."""
    difference = np.stack(pixels) - np.stack(reference)
    size = np.abs(difference)
    return f"{size.mean():.2f} | {difference.mean():+.2f} | {np.percentile(size, 99):.0f}"


def main() -> None:
    """Measure, print, write."""
    lines = [
        "Levels of 255: mean difference, bias, 99 % within; against the reference, then against the same scaling of an "
        "exactly rounded conversion.",
        "",
        "| video | filter | ms a frame | mean | bias | 99 % | mean, exact | bias | 99 % |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for path in real_videos():
        with av.open(str(path)) as container:
            frames = [frame for number, frame in enumerate(container.decode(video=0)) if number % 12 == 0]
        width, height = frames[0].width, frames[0].height
        short = min(width, height)
        target = (floor(width / short * SHORT_SIDE), floor(height / short * SHORT_SIDE))
        plain = [scale_reference(frame, *target, Interpolation.BILINEAR) for frame in frames]
        exact = [scale_reference(frame, *target, Interpolation.BILINEAR | EXACT) for frame in frames]
        for name, flags in FILTERS.items():
            reformatter = VideoReformatter()
            started = time.perf_counter()
            scaled = [
                reformatter.reformat(frame, *target, format="rgb24", interpolation=flags, threads=1) for frame in frames
            ]
            milliseconds = (time.perf_counter() - started) / len(frames) * 1000
            pixels = [frame.to_ndarray().astype(np.float32) for frame in scaled]
            cells = f"{milliseconds:.2f} | {describe(pixels, plain)} | {describe(pixels, exact)}"
            lines.append(f"| {path.stem} {width} x {height} | {name} | {cells} |")
    lines += ["", *score_table()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
