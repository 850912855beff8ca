"""From how many pixels on NVDEC takes a video: a process of NVDEC can compare both decoders when it starts.

What counts is the time that a video takes of one core, because on a GPU server cores are short before NVDEC is
(benchmarks/results/nvdec.md). Elapsed time would depend on what else the machine does, and models load meanwhile.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass

import av
import numpy as np
from av.video.frame import VideoFrame

from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.engine import decode_clips, decode_clips_with_nvdec
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling

# Larger pictures always go to NVDEC: at 720p it took a fifth of the processor time (benchmarks/results/nvdec.md).
SIZES = ((256, 144), (640, 360))
EVERYTHING = 1  # Pixels from which on NVDEC takes a video where nothing could be measured.
# Five seconds. In a shorter video, what both take for each video would hide what they take for each frame.
FRAMES = 150
_GEOMETRIES = {"clip": Geometry(frames=4, stride=1, short_side=128, crop=128)}
_ROUNDS = 3
# After these no further round begins.
_ENOUGH_SECONDS = 1.5
# On a busy machine all may take longer; the start does not wait for it.
MAX_SECONDS = 8.0


@dataclass(frozen=True)
class Comparison:
    """What videos of SIZES take of one core.

    Attributes:
        cpu, nvdec: seconds for each size.
    """

    cpu: tuple[float, float]
    nvdec: tuple[float, float]

    @property
    def least_pixels(self) -> int:
        """From how many pixels on NVDEC takes less of a core than FFmpeg: between SIZES, a straight line."""
        small, large = (width * height for width, height in SIZES)
        excess, gain = self.nvdec[0] - self.cpu[0], self.cpu[1] - self.nvdec[1]
        if excess <= 0:
            return EVERYTHING
        if gain <= 0:
            return large
        return round(small + (large - small) * excess / (excess + gain))

    def __str__(self) -> str:
        sizes = " and ".join(f"{width} x {height}" for width, height in SIZES)
        cpu, nvdec = (" and ".join(f"{each * 1000:.1f}" for each in seconds) for seconds in (self.cpu, self.nvdec))
        return (
            f"{FRAMES} frames of {sizes} take {cpu} ms of a core with FFmpeg, {nvdec} with NVDEC,"
            f" which takes pictures from {self.least_pixels} pixels on"
        )


def choose_least_pixels(nvdec: Nvdec) -> tuple[int, str]:
    """From how many pixels on NVDEC takes a video, and the figures behind it, for the log."""
    try:
        comparison = compare_decoders(nvdec)
    except Exception as error:  # No figure is worth a start that fails.
        return (
            EVERYTHING,
            f"the decoders could not be compared ({type(error).__name__}: {error}); NVDEC takes all sizes",
        )
    return comparison.least_pixels, str(comparison)


def compare_decoders(nvdec: Nvdec) -> Comparison:
    """Decode a short video of each size with both, and take the best of a few rounds, as many as there is time for.

    Raises:
        Declined, DecodeError: NVDEC does not decode them.
        ValueError: this FFmpeg has no encoder for H.264.
        TimeoutError: it takes longer than MAX_SECONDS.
    """
    started = time.monotonic()
    deadline = started + MAX_SECONDS
    sampling, limits = Sampling(), Limits()
    best: list[tuple[float, float]] = []
    for width, height in SIZES:
        video = _make_video(width, height, deadline)
        rounds: list[tuple[float, float]] = []
        # The first round sets the decoder up for the size, and does not count.
        for number in range(1 + _ROUNDS):
            _check_time(deadline)
            before = time.thread_time()
            decode_clips(video, _GEOMETRIES, sampling, limits)
            between = time.thread_time()
            _check_time(deadline)
            decode_clips_with_nvdec(nvdec, video, _GEOMETRIES, sampling, limits)
            rounds.append((between - before, time.thread_time() - between))
            if number and time.monotonic() > started + _ENOUGH_SECONDS:
                break
        best.append((min(cpu for cpu, _ in rounds[1:]), min(gpu for _, gpu in rounds[1:])))
    (small_cpu, small_gpu), (large_cpu, large_gpu) = best
    return Comparison(cpu=(small_cpu, large_cpu), nvdec=(small_gpu, large_gpu))


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"it takes longer than {MAX_SECONDS:g} s")


def _make_video(width: int, height: int, deadline: float) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 64, (height, width, 3), dtype=np.uint8)
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(FRAMES):
            _check_time(deadline)
            moved = np.roll(noise, 3 * number, axis=1)
            output.mux(stream.encode(VideoFrame.from_ndarray(moved, format="rgb24").reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    return file.getvalue()
