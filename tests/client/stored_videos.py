"""What the client reads from object stores and archives."""

import pytest

from clipserve import VideoNotReadable, read_entries
from clipserve.sources.videos import read_video

pytest.importorskip("fsspec")


def names(source, skipped=None):
    return [entry.id for entry in read_entries(source, skipped)]


def read(source, **options):
    return read_video(source, **options).content


def read_failure(video):
    with pytest.raises(VideoNotReadable) as caught:
        read(video)
    return caught.value


def fill(store):
    for name in ("v/10.mp4", "v/2.mp4", "v/deep/3.MOV", "v/.hidden.mp4", "v/.cache/4.mp4", "v/notes.txt", "w/5.mp4"):
        store.pipe(f"/{name}", name.encode())
