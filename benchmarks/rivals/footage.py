"""The videos: a fixed list, weighted to what people have. Chosen before anything was measured."""

from __future__ import annotations

from pathlib import Path

from decode_footage import FOOTAGE, HD, Footage, encode, footage_folder, real_videos

from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from rivals.networks import CACHE

PHONE = {"preset": "ultrafast", "bf": "0", "crf": "26"}
KINETICS = Footage("h264-256p-10s.mp4", "libx264", 340, 256, 10, 250)
# Half a minute of it would be 5.6 GB as RGB, which is how the codelab's way holds a video.
LONG_PHONE = Footage("h264-1080p-20s-phone.mp4", "libx264", 1920, 1080, 20, 30, PHONE, source=HD)
# name of the file -> how often it is in the list. Fourteen of seventeen are H.264 in MP4, most of them ten seconds
# long: data sets of actions are, and so is most of the web.
MIX = {
    KINETICS.name: 2,
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
# (width, height, seconds, fps, codec, ending) of videos for `motion`, whose classes are motions filmed here.
MOTION_FORMS = (
    (320, 240, 2.0, 30, "libx264", "mp4"),
    (640, 360, 3.0, 30, "libx264", "mp4"),
    (480, 270, 2.5, 25, "libx264", "mkv"),
    (1280, 720, 2.0, 30, "libx264", "mp4"),
    (640, 360, 2.0, 30, "libvpx-vp9", "webm"),
    (320, 240, 3.0, 24, "mpeg4", "avi"),
)
MOTION_SEED = 7_000_300  # none that training saw


def prepare_mix() -> list[str]:
    """Paths of the list above, encoded where they are not there yet."""
    wanted = [KINETICS, LONG_PHONE, *(footage for footage in FOOTAGE if footage.name in MIX)]
    paths = {path.name: path for path in real_videos()}
    paths |= {footage.name: encode(footage, footage_folder()) for footage in wanted}
    return [str(paths[name]) for name, times in MIX.items() for _ in range(times)]


def prepare_motions(count: int) -> list[str]:
    """Paths of generated videos: labels and forms in turn, so that `motion` can be right or wrong about each."""
    folder = CACHE / "motions"
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number in range(count):
        width, height, seconds, fps, codec, ending = MOTION_FORMS[number % len(MOTION_FORMS)]
        label = LABELS[(number * 5) % len(LABELS)]
        path = folder / f"{number}-{label.replace(' ', '-')}-{height}p.{ending}"
        if not path.exists():
            partial = path.with_name(f"partial-{path.name}")
            write_motion_video(
                partial,
                label,
                MOTION_SEED + number,
                width=width,
                height=height,
                seconds=seconds,
                fps=fps,
                codec=codec,
            )
            partial.rename(path)
        paths.append(path)
    return [str(path) for path in paths]
