"""Sample videos for the page: those of a folder, or generated motions for the model `motion`."""

import base64
import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from clipserve.errors import InvalidRequest
from clipserve.frames.extraction import extract_thumbnail
from clipserve.names import spell_name
from clipserve.sources.folders import VIDEO_SUFFIXES, Skipped, read_folder

# Visitors can look through that many. The thumbnail of each delays the start.
MOST_SAMPLES = 16
MOTIONS = ("moving right", "rotating clockwise", "growing", "bouncing", "crossing", "blinking")
# Training uses other seeds.
MOTION_SEED = 20_000


@dataclass(frozen=True)
class Sample:
    """A video on disk, its title, and a JPEG of one frame, or None if none can be extracted."""

    path: Path
    title: str
    thumbnail: bytes | None

    @classmethod
    def from_file(cls, path: Path) -> "Sample":
        """Raises InvalidRequest: it cannot be read, or the page, which is UTF-8, cannot name it."""
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise InvalidRequest(
                f"the name of the sample {spell_name(str(path))!r} is not UTF-8: rename it, or remove it"
            ) from None
        try:
            thumbnail = extract_thumbnail(path.read_bytes())
        except OSError as error:
            raise InvalidRequest(
                f"cannot read the sample {str(path)!r}: {error.strerror}. Let this user read it, or remove it"
            ) from error
        title = path.stem.replace("_", " ").replace("-", " ")
        return cls(path, title, base64.b64decode(thumbnail) if thumbnail else None)


@contextmanager
def open_samples(folder: Path | None) -> Iterator[list[Sample]]:
    """The samples. Generated ones are in a temporary folder, which exists until the `with` block ends.

    Raises:
        InvalidRequest: `folder` is not a folder, has no video, or one that cannot be read or shown.
    """
    with nullcontext(folder) if folder else TemporaryDirectory(prefix="clipserve-samples-") as place:
        files = list_videos(Path(place)) if folder else write_motions(Path(place))
        yield [Sample.from_file(path) for path in files[:MOST_SAMPLES]]


def list_videos(folder: Path) -> list[Path]:
    """The video files of a folder and its subfolders, as `classify` finds them.

    Raises:
        InvalidRequest: there is none.
    """
    if not folder.is_dir():
        raise InvalidRequest(
            f"{str(folder)!r} is not a folder: give a folder with video files, or none for generated videos"
        )
    entries = read_folder(str(folder), Skipped())
    files = [Path(entry.video) for entry in entries if isinstance(entry.video, str)]
    if not files:
        raise InvalidRequest(
            f"{str(folder)!r} has no video: names of video files end in {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return files


def write_motions(folder: Path) -> list[Path]:
    """Generate videos, if `clipserve_export` is installed; else return none."""
    try:
        # Imported by name, because the client must work without clipserve_export.
        videos = importlib.import_module("clipserve_export.motion.videos")
    except ModuleNotFoundError:
        return []
    files = []
    for number, motion in enumerate(MOTIONS):
        path = folder / f"{motion.replace(' ', '_')}.mp4"
        videos.write_motion_video(path, motion, MOTION_SEED + number)
        files.append(path)
    return files
