"""From whatever names videos to a stream of entries, read as it is needed.

A source is a path, a glob pattern, a folder, an http(s) address, a CSV or JSON lines file, a data frame, bytes, an open
file, a mapping with the key `path`, or any iterable of these. Nothing is held but the names of one folder at a time.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from clipserve.errors import ClipserveError, InvalidRequest, VideoNotReadable
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.records import LISTS, Origin, open_list, read_frame, read_record
from clipserve.sources.videos import VideoSource, is_address

Source: TypeAlias = VideoSource | Entry | Mapping[str, Any] | Iterable[Any]

# What a folder is searched for: the containers that the decode step opens.
VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpe", ".mpeg", ".mpg", ".mts", ".ogg", ".ogv", ".ts", ".webm", ".wmv"),
    )
)

_DIGITS = re.compile(r"(\d+)")


def read_entries(source: Source) -> Entries:
    """Read a source as far as it is iterated.

    A path is taken as it is; one that is not there becomes a failure of its own. A folder stands for the videos in it
    and below it, by their suffixes, in natural order (2 before 10), hidden ones left out. A pattern (`*`, `?`, `[...]`,
    `**`) stands for what it matches.

    Raises:
        InvalidRequest: this is no source, or a list without a column `path`; at once, not at the first entry.
    """
    return _name_by_position(_read_any(source))


def read_entries_later(source: Source) -> Entries:
    """The same, but what a path stands for is looked up no earlier than the first entry, and so are its errors.

    For callers whose thread must not wait for a disk.
    """
    if isinstance(source, str | os.PathLike):
        return _read_at_last(source)
    return read_entries(source)


def _read_at_last(source: Source) -> Entries:
    yield from read_entries(source)


def count_entries(source: Source) -> int | None:
    """How many entries there will be, if that is known without reading: of a list of files, say, or a data frame."""
    if isinstance(source, str | os.PathLike):
        return 1 if is_address(source) else None
    if isinstance(source, bytes | bytearray | memoryview | Mapping | Entry) or hasattr(source, "read"):
        return 1
    return len(source) if isinstance(source, Sized) else None


def _name_by_position(entries: Entries) -> Entries:
    for number, entry in enumerate(entries):
        yield entry if entry.id else replace(entry, id=str(number))


def _read_any(source: Any) -> Entries:
    if isinstance(source, Entry):
        return iter((source,))
    if isinstance(source, str | os.PathLike):
        return _read_path(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        return iter((Entry("", source),))
    if isinstance(source, Mapping):
        return iter((read_record(source, Origin("this record", None), "here"),))
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        return read_frame(source)
    if isinstance(source, Iterable):
        return _read_each(source)
    raise InvalidRequest(
        "videos are a path, a pattern, a folder, an http(s) address, a CSV or JSON lines file, a data frame, bytes, an"
        f" open file, or an iterable of these; got {type(source).__name__}"
    )


def _read_each(sources: Iterable[Any]) -> Entries:
    for position, source in enumerate(sources):
        try:
            entries = _read_any(source)
        except InvalidRequest as error:
            if isinstance(source, str | os.PathLike):
                raise  # a list that cannot be used stands for many videos
            entries = iter((Entry(str(position), error),))
        yield from entries


def _read_path(path: str) -> Entries:
    if is_address(path):
        return iter((Entry(path, path),))
    if path.lower().endswith(LISTS):
        return open_list(Path(path))()
    # A file may have brackets in its name.
    if glob.has_magic(path) and not os.path.lexists(path):
        return _read_pattern(path)
    return _read_found(path)


def _read_found(path: str) -> Entries:
    return _read_folder(path) if os.path.isdir(path) else iter((Entry(path, path),))  # noqa: PTH112 - a million times


def _read_pattern(pattern: str) -> Entries:
    found = False
    for path in sorted(glob.iglob(pattern, recursive=True), key=_natural):  # noqa: PTH207 - absolute patterns, too
        found = True
        # `**` also matches the folders on the way, whose files it matches by themselves.
        if not ("**" in pattern and Path(path).is_dir()):
            yield from open_list(Path(path))() if path.lower().endswith(LISTS) else _read_found(path)
    if not found:
        yield _fail(pattern, f"no file matches the pattern {pattern!r}")


def _read_folder(folder: str) -> Entries:
    found = False
    for entry in _walk(folder):
        found = True
        yield entry
    if not found:
        yield _fail(
            folder, f"there is no video in the folder {folder!r}; videos end in {' '.join(sorted(VIDEO_SUFFIXES))}"
        )


def _walk(folder: str) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as scan:
            items = sorted(
                (item for item in scan if not item.name.startswith(".")), key=lambda item: _natural(item.name)
            )
            # Links to folders could lead in circles.
            folders = [item.path for item in items if item.is_dir(follow_symlinks=False)]
            files = [item.path for item in items if Path(item.name).suffix.lower() in VIDEO_SUFFIXES and item.is_file()]
    except OSError as exc:
        yield _fail(folder, f"cannot read the folder {folder!r}: {exc.strerror}")
        return
    for path in files:
        yield Entry(path, path)
    for path in folders:
        yield from _walk(path)


def _fail(name: str, message: str) -> Entry:
    error: ClipserveError = VideoNotReadable(message, video=name)
    return Entry(name, error)


def _natural(name: str) -> list[str | int]:
    """A sort key by which 2 comes before 10."""
    return [int(part) if number % 2 else part.casefold() for number, part in enumerate(_DIGITS.split(name))]
