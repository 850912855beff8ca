"""Labelled videos as visitors upload them: zip archives with a folder for each class.

Whoever uploads an archive may lie in it. So names in it are looked at and not opened, bytes are counted as they are
unpacked, and archives with too many entries are not read at all.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from clipserve.errors import InvalidRequest
from clipserve.names import UNPRINTABLE
from clipserve.sources.folders import VIDEO_SUFFIXES

MOST_VIDEOS = 1000
MOST_BYTES = 1 << 30  # of all unpacked videos
MOST_NAME_BYTES = 200
# zipfile reads the whole list of entries, which a small file can make long.
MOST_DIRECTORY_BYTES = 2 << 20
CHUNK_BYTES = 1 << 20
UTF_8_FLAG = 1 << 11  # of an entry whose name is UTF-8


def unpack(archives: Sequence[Path], folder: Path) -> int:
    """Unpack the videos of all archives into folder/CLASS/NAME. Returns how many there are.

    The class is the name of the folder that a video lies in, and the archive's own name for a video in none.

    Raises:
        InvalidRequest: an archive cannot be read, or there are too many videos, too large ones, or none.
    """
    videos = unpacked = 0
    for archive in archives:
        try:
            with ArchiveFile(archive) as file, zipfile.ZipFile(file) as opened:
                for entry in opened.infolist():
                    place = place_of(name_of(entry), archive.stem)
                    if entry.is_dir() or place is None:
                        continue
                    videos += 1
                    if videos > MOST_VIDEOS:
                        raise InvalidRequest(f"there are more than {MOST_VIDEOS} videos: upload fewer")
                    unpacked = copy(opened, entry, free_path(folder / place), unpacked)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).replace(f"{archive.parent}/", "")
            message = f"{archive.name!r} cannot be read as a zip archive without a password: {reason}"
            raise InvalidRequest(message) from error
    if not videos:
        raise InvalidRequest("there is no video in what was uploaded: give a zip archive with a folder for each class")
    return videos


def name_of(entry: zipfile.ZipInfo) -> str:
    """The name of a file. Macs write UTF-8 and do not say so, which zipfile reads as code page 437."""
    with suppress(UnicodeError):
        if not entry.flag_bits & UTF_8_FLAG:
            return entry.filename.encode("cp437").decode()
    return entry.filename


def place_of(name: str, archive: str) -> PurePosixPath | None:
    """CLASS/NAME for a video; None for what is no video by its name, or hidden.

    Raises:
        InvalidRequest: a name cannot be that of a file.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if not parts or hidden or Path(parts[-1]).suffix.lower() not in VIDEO_SUFFIXES:
        return None
    label = parts[-2] if len(parts) > 1 else archive
    for part in (label, parts[-1]):
        if len(part.encode("utf-8", "replace")) > MOST_NAME_BYTES or UNPRINTABLE.search(part):
            raise InvalidRequest(f"a name in the archive is too long or has invisible characters: {part[:60]!r}")
    return PurePosixPath(label, parts[-1])


def free_path(path: Path) -> Path:
    """The path, or one with a number where there is such a file."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{number}-{path.name}")
    free.parent.mkdir(parents=True, exist_ok=True)
    return free


def copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, unpacked: int) -> int:
    """Unpack one file. Returns the bytes that are unpacked so far. Raises InvalidRequest beyond MOST_BYTES."""
    with archive.open(entry) as source, path.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            unpacked += len(chunk)
            if unpacked > MOST_BYTES:
                raise InvalidRequest(f"the videos take more than {MOST_BYTES >> 20} MiB unpacked: upload fewer")
            target.write(chunk)
    return unpacked


class ArchiveFile(io.FileIO):
    """The file of an archive, which refuses to read a list of entries that is too long.

    zipfile reads the list at once, and a video in small parts. So the length counts that zipfile believes: an archive
    can state several, in records that look like its last one and in those of ZIP64.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """As that of every file. Raises InvalidRequest for more than MOST_DIRECTORY_BYTES."""
        if size is not None and size > MOST_DIRECTORY_BYTES:
            name = Path(str(self.name)).name
            raise InvalidRequest(f"{name!r} has too many files: upload at most {MOST_VIDEOS} videos")
        return super().read(size)
