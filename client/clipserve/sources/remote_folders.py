"""The videos of folders and patterns in object stores and archives."""

import fnmatch
import glob
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from clipserve.errors import VideoNotReadable
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.folders import VIDEO_SUFFIXES, Skipped, fail, lies_below
from clipserve.sources.lists import LISTS, ListFile, open_list_file
from clipserve.sources.remote_paths import RemotePath
from clipserve.sources.stores import Item, Store, store_errors


def read_remote(text: str, skipped: Skipped) -> Entries:
    """What an address stands for: a video, a list, a folder, or what a pattern matches.

    Nothing is asked of the store about a name that ends as a video's.

    Raises:
        InvalidRequest: the store cannot be used here, or the list not read.
        VideoNotReadable: the archive with the list does not open.
    """
    address = RemotePath.parse(text)
    try:
        store = Store(address)
    except VideoNotReadable as error:
        if address.suffix in LISTS:
            raise  # it stands for many videos
        return iter((Entry(address.shown, error),))
    if glob.has_magic(address.path) and not _ask(store.exists, address):
        return _read_pattern(address, skipped)
    if address.suffix in VIDEO_SUFFIXES:
        return iter((_make_entry(address),))
    return _read_found(address, skipped)


def _read_found(address: RemotePath, skipped: Skipped) -> Entries:
    if address.suffix in LISTS:
        store = Store(address)
        folder = address.parent
        return open_list_file(
            ListFile(address.shown, address.suffix, store.open_text, lambda name: str(folder.join(name)))
        )
    if address.path.endswith("/") or not address.path or _ask(Store(address).is_folder, address):
        return _read_folder(address, skipped)
    return iter((_make_entry(address),))


def _make_entry(address: RemotePath) -> Entry:
    return Entry(address.shown, str(address))


def _read_folder(address: RemotePath, skipped: Skipped) -> Entries:
    found = False
    try:
        with store_errors(f"cannot list {address.shown!r}", address.shown):
            for item in Store(address).walk():
                suffix = PurePosixPath(item.name).suffix.lower()
                if suffix not in VIDEO_SUFFIXES:
                    skipped.note_file(suffix)
                elif _is_hidden(item.address, address):
                    skipped.hidden += 1
                else:
                    found = True
                    yield _make_entry(item.address)
    except VideoNotReadable as error:
        yield Entry(address.shown, error)
        return
    if not found:
        yield fail(
            address.shown,
            f"there is no video in {address.shown!r}{f' (left out: {skipped})' if skipped else ''}; videos end in"
            f" {' '.join(sorted(VIDEO_SUFFIXES))}",
        )


def _is_hidden(address: RemotePath, folder: RemotePath) -> bool:
    below = address.path.removeprefix(folder.path)
    return any(part.startswith(".") and part != "." for part in below.split("/"))


def _read_pattern(pattern: RemotePath, skipped: Skipped) -> Entries:
    found = False
    try:
        with store_errors(f"cannot list {pattern.shown!r}", pattern.shown):
            folders: set[PurePosixPath] = set()
            for address, is_folder in _match(pattern):
                if "**" in pattern.path:
                    path = PurePosixPath(address.path)
                    if lies_below(path, folders):
                        continue
                    if is_folder:
                        folders.add(path)
                found = True
                yield from (
                    _read_found(address, skipped)
                    if is_folder or address.suffix in LISTS
                    else iter((_make_entry(address),))
                )
    except VideoNotReadable as error:
        yield Entry(pattern.shown, error)
        return
    if not found:
        yield fail(pattern.shown, f"no object matches the pattern {pattern.shown!r}")


def _match(pattern: RemotePath) -> Iterator[tuple[RemotePath, bool]]:
    """What matches, and whether it is a folder; level by level, so that only folders on the way are listed."""
    parts = pattern.path.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = RemotePath(pattern.caches, pattern.scheme, "/".join(parts[:first]), pattern.holder)
    if parts.count("**") < 2:
        yield from _match_below(base, parts[first:])
        return
    # Two ** match a path in several ways. Only such a pattern keeps what it has found in memory.
    seen: set[str] = set()
    for address, is_folder in _match_below(base, parts[first:]):
        if address.path not in seen:
            seen.add(address.path)
            yield address, is_folder


def _match_below(
    folder: RemotePath, parts: list[str], *, may_be_missing: bool = False
) -> Iterator[tuple[RemotePath, bool]]:
    part, *rest = parts
    if not glob.has_magic(part):
        below = folder.join(part)
        if rest:
            # Below a wildcard: not every folder that it matches has this one in it.
            yield from _match_below(below, rest, may_be_missing=True)
        elif Store(below).exists():
            yield below, Store(below).is_folder()
        return
    if part == "**":
        if rest in ([], ["*"]):
            for item in _read_items(Store(folder).walk(), may_be_missing):
                if not _is_hidden(item.address, folder):
                    yield item.address, False
            return
        yield from _match_below(folder, rest, may_be_missing=may_be_missing)
        for item in _read_items(Store(folder).list(), may_be_missing):
            if item.is_folder and not item.name.startswith("."):
                yield from _match_below(item.address, parts, may_be_missing=True)
        return
    for item in _read_items(Store(folder).list(), may_be_missing):
        if not fnmatch.fnmatchcase(item.name, part) or (item.name.startswith(".") and not part.startswith(".")):
            continue
        if not rest:
            yield item.address, item.is_folder
        elif item.is_folder:
            yield from _match_below(item.address, rest, may_be_missing=True)


def _read_items(items: Iterator[Item], may_be_missing: bool) -> Iterator[Item]:
    """The items of a folder; none if it is missing and may be."""
    try:
        first = next(items, None)
    except FileNotFoundError:
        if not may_be_missing:
            raise
        return
    if first is not None:
        yield first
        yield from items


def _ask(question: Callable[[], bool], address: RemotePath) -> bool:
    """The answer of a store; False where it gives none: reading the address will say why."""
    try:
        with store_errors(f"cannot read {address.shown!r}", address.shown):
            return question()
    except VideoNotReadable:
        return False
