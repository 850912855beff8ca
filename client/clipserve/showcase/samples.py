"""Sample videos to pick from: those of a folder, or motions generated for the model `motion`."""

import base64
import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from clipserve.errors import InvalidRequest
from clipserve.showcase.filmstrip import draw_poster
from clipserve.sources.folders import VIDEO_SUFFIXES, Skipped, read_folder

# What one looks through at a glance; each costs a moment at the start.
MOST_SAMPLES = 16
MOTIONS = ("moving right", "rotating clockwise", "growing", "bouncing", "crossing", "blinking")
# Training draws its scenes from another stream of numbers.
MOTION_SEED = 20_000


@dataclass(frozen=True)
class Sample:
    """A video on disk, what it is called, and a small picture of it (JPEG, None where none can be drawn)."""

    path: Path
    title: str
    poster: bytes | None

    @classmethod
    def from_file(cls, path: Path) -> "Sample":
        poster = draw_poster(path.read_bytes())
        title = path.stem.replace("_", " ").replace("-", " ")
        return cls(path, title, base64.b64decode(poster) if poster else None)


@contextmanager
def open_samples(folder: Path | None) -> Iterator[list[Sample]]:
    """The samples, for as long as the block lasts: generated ones are in a temporary folder.

    Raises:
        InvalidRequest: `folder` is none, or holds no video.
    """
    with nullcontext(folder) if folder else TemporaryDirectory(prefix="clipserve-samples-") as place:
        files = list_videos(Path(place)) if folder else write_motions(Path(place))
        yield [Sample.from_file(path) for path in files[:MOST_SAMPLES]]


def list_videos(folder: Path) -> list[Path]:
    """The video files of a folder and of those in it, as `classify` takes them.

    Raises:
        InvalidRequest: there is none.
    """
    if not folder.is_dir():
        raise InvalidRequest(
            f"{str(folder)!r} is no folder: give one with video files in it, or none for generated ones"
        )
    entries = read_folder(str(folder), Skipped())
    files = [Path(entry.video) for entry in entries if isinstance(entry.video, str)]
    if not files:
        raise InvalidRequest(
            f"{str(folder)!r} holds no video: files that end in {', '.join(sorted(VIDEO_SUFFIXES))} are taken"
        )
    return files


def write_motions(folder: Path) -> list[Path]:
    """Generate videos where the part of clipserve that can is installed; none otherwise."""
    try:
        # By name: the client works without the package that exports models.
        videos = importlib.import_module("clipserve_export.motion.videos")
    except ModuleNotFoundError:
        return []
    files = []
    for number, motion in enumerate(MOTIONS):
        path = folder / f"{motion.replace(' ', '_')}.mp4"
        videos.write_motion_video(path, motion, MOTION_SEED + number)
        files.append(path)
    return files
