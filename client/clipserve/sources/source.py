"""A source of videos, read into a stream of entries only as far as it is needed.

A source is a path, a glob pattern, a folder, an http(s) address, a CSV or JSON lines file, a data frame, bytes, an open
file, a mapping with the key `path`, or any iterable of these. Paths, patterns, folders and lists may be in a store that
fsspec opens, such as s3://bucket/videos. Memory holds the names of one folder at a time.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from clipserve.errors import InvalidRequest
from clipserve.sources.addresses import hide_credentials, is_address
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.folders import Skipped, fail, lies_below, read_folder, walk_folders
from clipserve.sources.lists import LISTS, Origin, open_list, read_frame, read_record
from clipserve.sources.natural_order import order_naturally
from clipserve.sources.remote_folders import read_remote
from clipserve.sources.remote_paths import is_remote
from clipserve.sources.videos import VideoSource

Source: TypeAlias = VideoSource | Entry | Mapping[str, Any] | Iterable[Any]

# `**` between slashes: the folder and all below it.
_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*(?:/+|$)")
# A pattern that ends in `**` matches each file by itself, so no folder needs to be read.
_ALL_BELOW = re.compile(r"(?:^|/)\*\*(?:/+\*)?/*$")


def read_entries(source: Source, skipped: Skipped | None = None) -> Entries:
    """Read a source lazily, as it is iterated.

    A path that does not exist becomes an entry with an error. A folder stands for the videos in it and below it, found
    by their suffixes, in natural order (2 before 10), without hidden files; links to folders are followed, except in
    circles. A pattern (`*`, `?`, `[...]`, `**`) stands for the files that match it.

    Args:
        skipped: counts the files that scans of folders leave out.

    Raises:
        InvalidRequest: this is not a source, or is a list without a column `path`. Raised at once, not at the first
            entry.
    """
    return _name_by_position(_read_any(source, Skipped() if skipped is None else skipped))


def read_entries_later(source: Source, skipped: Skipped | None = None) -> Entries:
    """As `read_entries`, but a path is looked up, and its errors are raised, no earlier than the first entry.

    For callers whose thread must not wait for a disk.
    """
    if isinstance(source, str | os.PathLike):
        return _read_at_last(source, skipped)
    return read_entries(source, skipped)


def _read_at_last(source: Source, skipped: Skipped | None) -> Entries:
    yield from read_entries(source, skipped)


def count_entries(source: Source) -> int | None:
    """How many entries there will be, if that is known without reading, as of a list of files or a data frame."""
    if isinstance(source, str | os.PathLike):
        return 1 if is_address(source) else None
    if isinstance(source, bytes | bytearray | memoryview | Mapping | Entry) or hasattr(source, "read"):
        return 1
    return len(source) if isinstance(source, Sized) else None


def _name_by_position(entries: Entries) -> Entries:
    for number, entry in enumerate(entries):
        yield entry if entry.id else replace(entry, id=str(number))


def _read_any(source: Any, skipped: Skipped) -> Entries:
    if isinstance(source, Entry):
        return iter((source,))
    if isinstance(source, str | os.PathLike):
        return _read_path(os.fspath(source), skipped)
    if isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        return iter((Entry("", source),))
    if isinstance(source, Mapping):
        return iter((read_record(source, Origin("this record", None), "here"),))
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        return read_frame(source)
    if isinstance(source, Iterable):
        return _read_each(source, skipped)
    raise InvalidRequest(
        "a source must be a path, a pattern, a folder, an http(s) address, a CSV or JSON lines file, a data frame,"
        f" bytes, an open file, or an iterable of these; got {type(source).__name__}"
    )


def _read_each(sources: Iterable[Any], skipped: Skipped) -> Entries:
    for position, source in enumerate(sources):
        try:
            entries = _read_any(source, skipped)
        except InvalidRequest as error:
            if isinstance(source, str | os.PathLike):
                raise  # a list that cannot be used stands for many videos
            entries = iter((Entry(str(position), error),))
        yield from entries


def _read_path(path: str, skipped: Skipped) -> Entries:
    if is_address(path):
        return iter((Entry(hide_credentials(path), path),))
    if is_remote(path):
        return read_remote(path, skipped)
    # A file may have brackets in its name.
    if glob.has_magic(path) and not os.path.lexists(path):
        return _read_pattern(path, skipped)
    return _read_found(path, skipped)


def _read_found(path: str, skipped: Skipped) -> Entries:
    if path.lower().endswith(LISTS):
        return open_list(Path(path))
    folder = os.path.isdir(path)  # noqa: PTH112 - a million times
    return read_folder(path, skipped) if folder else iter((Entry(path, path),))


def _read_pattern(pattern: str, skipped: Skipped) -> Entries:
    found, is_deep = False, "**" in pattern
    matches_each_file = _ALL_BELOW.search(pattern) is not None
    folders: set[Path] = set()
    for path in sorted(set(_match(pattern, skipped)), key=order_naturally):  # a folder comes before what is in it
        if is_deep:
            place = Path(path)
            if lies_below(place, folders):
                continue
            if place.is_dir():
                if matches_each_file:
                    continue
                folders.add(place)
        found = True
        yield from _read_found(path, skipped)
    if not found:
        yield fail(pattern, f"no file matches the pattern {pattern!r}")


def _match(pattern: str, skipped: Skipped) -> Iterator[str]:
    """As glob, whose `**` follows links in circles until paths are too long."""
    found = _ANY_FOLDERS.search(pattern)
    if found is None:
        yield from glob.iglob(pattern)  # noqa: PTH207 - absolute patterns, too
        return
    above, below = pattern[: found.start()], pattern[found.end() :] or "*"
    for top in glob.iglob(above) if above else ("",):  # noqa: PTH207
        for folder, _ in walk_folders(top, skipped):
            yield from _match(os.path.join(glob.escape(folder), below), skipped)  # noqa: PTH118
