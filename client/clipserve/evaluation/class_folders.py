"""A folder with a folder for each class: videos/archery/1.mp4 has the label archery."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.evaluation.ground_truth import write_label
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.folders import VIDEO_SUFFIXES
from clipserve.sources.source import read_entries


def read_labelled(source: Any) -> Entries:
    """The entries of any source. The label of a video in a folder is the name of the folder's own folder.

    Raises:
        InvalidRequest: it is no source; or, as it is iterated, a video lies in no class, or a class has no video.
    """
    if _is_folder(source):
        return _label(Path(source))
    if isinstance(source, list | tuple):
        parts = (_label(Path(item)) if _is_folder(item) else (item,) for item in source)
        return read_entries(itertools.chain.from_iterable(parts))
    return read_entries(source)


def _is_folder(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and Path(source).is_dir()


def _label(folder: Path) -> Iterator[Entry]:
    empty: set[str] = set()
    with suppress(OSError):  # the entries say why the folder cannot be read
        empty = {item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")}
    for entry in read_entries(folder):
        if isinstance(entry.video, ClipserveError):  # a folder that cannot be read, or without a video
            yield entry
            continue
        parts = Path(entry.id).relative_to(folder).parts
        if len(parts) < 2:
            raise InvalidRequest(
                f"{entry.spelt_id!r} lies in no class: put each video into a folder that is named after its class, such"
                f" as {str(folder / 'archery' / parts[-1])!r}, or give a list with the columns path and label"
            )
        empty.discard(parts[0])
        yield replace(entry, label=write_label(parts[0]))
    if empty:
        raise InvalidRequest(
            f"the folder {str(folder / min(empty))!r} has no video, and each folder is a class: put videos into it, or"
            f" remove it; videos end in {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
