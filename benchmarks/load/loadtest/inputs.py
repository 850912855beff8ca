"""What perf_analyzer sends: files of its JSON form, made of real videos and of the clips decoded from them."""

import base64
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.errors import ClipserveError
from clipserve.sources.source import read_entries
from loadtest.errors import LoadTestError

# perf_analyzer keeps all of its input in memory, more than once.
MOST_MEGABYTES = 256


def list_videos(source: Path, *, count: int) -> list[Path]:
    """The first `count` videos of a folder or pattern. Raises LoadTestError."""
    videos: list[Path] = []
    for entry in read_entries(source):
        if isinstance(entry.video, ClipserveError):
            raise LoadTestError(f"{entry.video}; --videos names a folder with videos")
        videos.append(Path(str(entry.video)))
        if len(videos) == count:
            break
    missing = [path for path in videos if not path.is_file()]
    if missing or not videos:
        raise LoadTestError(
            f"there is no file {missing[0] if missing else source}; --videos names a folder with videos"
        )
    return videos


def prefix_length(content: bytes) -> bytes:
    """An element of a BYTES tensor as Triton has it: four bytes of length, little-endian, then the content."""
    return struct.pack("<I", len(content)) + content


def write_videos(path: Path, videos: Iterable[Path]) -> int:
    """Requests with one video each, for the input VIDEO; gives their number."""
    return _write(path, "VIDEO", (([1], prefix_length(video.read_bytes())) for video in videos))


def write_clips(path: Path, name: str, clips: Iterable[npt.NDArray[np.uint8]]) -> int:
    """Requests with one clip tensor each, uint8 [V,T,S,S,3], for the input `name`; gives their number."""
    return _write(path, name, ((list(clip.shape), clip.tobytes()) for clip in clips))


def _write(path: Path, name: str, contents: Iterable[tuple[list[int], bytes]]) -> int:
    requests: list[dict[str, Any]] = []
    size = 0
    for shape, content in contents:
        size += len(content)
        if requests and size > MOST_MEGABYTES * 2**20:
            break
        requests.append({name: {"content": {"b64": base64.b64encode(content).decode()}, "shape": shape}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": requests}))
    return len(requests)
