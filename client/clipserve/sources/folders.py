"""The videos of a folder, and what a scan of it leaves out."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeAlias

from clipserve.errors import ClipserveError, VideoNotReadable
from clipserve.names import make_printable, spell_name
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.natural_order import order_naturally

# Suffixes that FFmpeg and cameras give to files of the containers that the decode step opens, except those of pictures
# and of sound alone.
VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".3gpp", ".asf", ".avi", ".avc", ".divx", ".f4v", ".flv", ".h264", ".h265", ".h26l"),
        *(".264", ".265", ".hevc", ".ism", ".ismv", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v"),
        *(".mj2", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".ogg", ".ogm", ".ogv"),
        *(".apng", ".gif", ".psp", ".qt", ".ts", ".vob", ".webm", ".wm", ".wmv"),
    )
)

# Suffixes that are counted apart; a folder of frames may number them in the suffix.
MOST_SUFFIXES = 50
SHOWN_SUFFIXES = 3


@dataclass
class Skipped:
    """What scans of folders leave out.

    Attributes:
        files: how many are no videos by their names, by suffix.
        hidden: how many videos have a name that begins with a dot.
        unusable: how many have a video's name and are no file: links that lead nowhere, pipes.
        circles: how many links lead to a folder that they are in.
    """

    files: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    unusable: int = 0
    circles: int = 0

    def note_file(self, suffix: str) -> None:
        """Count a file that is no video by its name."""
        if suffix not in self.files and len(self.files) >= MOST_SUFFIXES:
            suffix = "others"
        self.files[suffix or "without a suffix"] += 1

    def __bool__(self) -> bool:
        return bool(self.files or self.hidden or self.unusable or self.circles)

    def __str__(self) -> str:
        kinds = [f"{count} {make_printable(suffix)}" for suffix, count in self.files.most_common(SHOWN_SUFFIXES)]
        kinds += ["..."] if len(self.files) > SHOWN_SUFFIXES else []
        counts = {
            f"no video by name ({', '.join(kinds)})": self.files.total(),
            "hidden": self.hidden,
            "broken link or no file": self.unusable,
            "link in a circle": self.circles,
        }
        return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)


def read_folder(folder: str, skipped: Skipped) -> Entries:
    """The videos in a folder and below it, by their suffixes, in natural order (2 before 10).

    Links to folders are followed, but not to a folder that they are in. Hidden files and folders are left out.
    `skipped` counts what is left out.
    """
    found = False
    for entry in _find_videos(folder, skipped):
        found = True
        yield entry
    if not found:
        yield fail(
            folder,
            f"there is no video in the folder {folder!r}{f' (left out: {skipped})' if skipped else ''}; videos end in"
            f" {' '.join(sorted(VIDEO_SUFFIXES))}",
        )


def fail(name: str, message: str) -> Entry:
    """An entry for a source without a video."""
    error: ClipserveError = VideoNotReadable(message, video=spell_name(name))
    return Entry(name, error)


def lies_below(path: PurePath, folders: Set[PurePath]) -> bool:
    """Whether the path is in one of the folders, or below it."""
    return bool(folders) and not folders.isdisjoint(path.parents)


def walk_folders(top: str, skipped: Skipped) -> Iterator[tuple[str, list[os.DirEntry[str]] | OSError]]:
    """A folder ("" for the working folder) and the folders below it, in natural order.

    Each comes with the items in it that are no folders, or with the error if it cannot be read. Hidden folders are left
    out, and a folder that leads back to itself is not entered again.
    """
    Folder: TypeAlias = tuple[str, tuple[tuple[int, int], ...]]  # its path, and which folders it is in
    left: list[Folder] = [(top, ())]
    while left:
        folder, above = left.pop()
        try:
            facts = os.stat(folder or ".")  # noqa: PTH116 - names are not normalised
            identity = (facts.st_dev, facts.st_ino)
            if identity in above:
                skipped.circles += 1
                continue
            with os.scandir(folder or ".") as scan:
                items = sorted(scan, key=lambda item: order_naturally(item.name))
        except OSError as error:
            yield folder, error
            continue
        files: list[os.DirEntry[str]] = []
        folders: list[os.DirEntry[str]] = []
        for item in items:
            (folders if _is(item.is_dir) else files).append(item)
        yield folder, files
        inner = [os.path.join(folder, item.name) for item in folders if not item.name.startswith(".")]  # noqa: PTH118
        left += [(path, (*above, identity)) for path in reversed(inner)]


def _find_videos(top: str, skipped: Skipped) -> Entries:
    for folder, items in walk_folders(top, skipped):
        if isinstance(items, OSError):
            yield fail(folder, f"cannot read the folder {folder!r}: {items.strerror}")
            continue
        for item in items:
            suffix = Path(item.name).suffix.lower()
            if suffix not in VIDEO_SUFFIXES:
                skipped.note_file(suffix)
            elif item.name.startswith("."):
                skipped.hidden += 1
            elif _is(item.is_file):
                yield Entry(item.path, item.path)
            else:
                skipped.unusable += 1


def _is(kind: Callable[[], bool]) -> bool:
    """`kind()` of a name that may be a link to itself."""
    try:
        return kind()
    except OSError:
        return False
