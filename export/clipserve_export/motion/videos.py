"""Video files from frames, and from scenes: the files that tests and demonstrations send to the server."""

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from clipserve_export.motion.scenes import LABELS, Scene

Frame = npt.NDArray[np.uint8]
# Container, width, height, frames a second, encoder: phones, the web, old cameras.
FORMS = (
    ("mp4", 320, 240, 30, "libx264"),
    ("mp4", 270, 480, 25, "libx264"),
    ("webm", 480, 270, 24, "libvpx-vp9"),
    ("mkv", 256, 256, 15, "libx264"),
    ("avi", 320, 240, 12, "mpeg4"),
)


def write_video(
    file: str | os.PathLike[str] | BinaryIO,
    frames: Iterable[Frame],
    *,
    fps: float | Fraction = 30,
    codec: str = "libx264",
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> int:
    """Encodes RGB frames, uint8 [H, W, 3] with even H and W; returns how many there were.

    `container` is FFmpeg's name ("mp4", "matroska"), taken from the file's name if not given; a file object needs it.
    `options` go to the encoder, for example {"crf": "30"}.
    """
    target: Any = file if hasattr(file, "write") else os.fspath(file)
    count = 0
    with av.open(target, "w", format=container) as output:
        stream: VideoStream | None = None
        for pixels in frames:
            height, width, _ = pixels.shape
            if width % 2 or height % 2:
                raise ValueError(f"4:2:0 video needs even sizes, not {width}x{height}")
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                added = output.add_stream(codec, rate=rate, options=options or {})
                if not isinstance(added, VideoStream):
                    raise ValueError(f"{codec} is no video codec")
                stream = added
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                # Written into the file, so that every reader inverts the conversion made below.
                stream.codec_context.colorspace = Colorspace.ITU709
                stream.codec_context.color_range = ColorRange.MPEG
                stream.codec_context.color_primaries = ColorPrimaries.BT709
                stream.codec_context.color_trc = ColorTrc.BT709
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,  # swscale starts its threads anew for each frame
            )
            frame.pts = count
            output.mux(stream.encode(frame))
            count += 1
        if stream is None:
            raise ValueError("a video needs at least one frame")
        output.mux(stream.encode(None))
    return count


def held_scene(label: str, seed: int) -> Scene:
    """The scene that `write_motion_video` renders for this seed; training uses other seeds."""
    return Scene.draw(label, np.random.default_rng((seed, LABELS.index(label))))


def write_motion_video(
    file: str | os.PathLike[str] | BinaryIO,
    labels: str | Sequence[str],
    seed: int,
    *,
    width: int = 320,
    height: int = 240,
    fps: float | Fraction = 30,
    seconds: float = 2.0,
    codec: str = "libx264",
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> int:
    """Writes a video of a motion, or of several, one after the other; returns its number of frames.

    The same labels and seed give the same frames to encode. Each motion takes `seconds`.
    """
    count = max(1, round(float(fps) * seconds))
    moments = np.linspace(0.0, 1.0, count)
    scenes = (held_scene(label, seed) for label in ([labels] if isinstance(labels, str) else labels))
    frames = (scene.render(moments[i : i + 1], width, height)[0] for scene in scenes for i in range(count))
    return write_video(file, frames, fps=fps, codec=codec, container=container, options=options)


def write_sample_videos(folder: Path, first_seed: int) -> dict[Path, str]:
    """Writes a video of each motion into `folder`, in varying forms; returns the motion by path."""
    written = {}
    for number, label in enumerate(LABELS):
        suffix, width, height, fps, codec = FORMS[number % len(FORMS)]
        path = folder / f"{label.replace(' ', '_')}.{suffix}"
        write_motion_video(path, label, first_seed + number, width=width, height=height, fps=fps, codec=codec)
        written[path] = label
    return written
