"""The input files of perf_analyzer: requests as JSON, made of videos and decoded clips, and request intervals."""

import base64
import json
import math
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.errors import ClipserveError
from clipserve.loadtest.load_levels import LoadTestError
from clipserve.sources.source import read_entries

MAX_MEGABYTES = 256  # perf_analyzer keeps more than one copy of its input in memory
SEED = 20
MIN_INTERVALS = 50  # perf_analyzer starts again at the end of the file


def list_videos(source: Path, *, count: int) -> list[Path]:
    """Return the first `count` videos of a folder or pattern. Raises LoadTestError."""
    videos: list[Path] = []
    for entry in read_entries(source):
        if isinstance(entry.video, ClipserveError):
            raise LoadTestError(f"{entry.video}: give a folder with videos as --videos")
        videos.append(Path(str(entry.video)))
        if len(videos) == count:
            break
    missing = [path for path in videos if not path.is_file()]
    if missing or not videos:
        raise LoadTestError(
            f"there is no file {missing[0] if missing else source}: give a folder with videos as --videos"
        )
    return videos


def prefix_length(content: bytes) -> bytes:
    """Encode an element of a BYTES tensor as Triton does: 4 bytes of length (little-endian), then the content."""
    return struct.pack("<I", len(content)) + content


def write_videos(path: Path, videos: Iterable[Path]) -> int:
    """Write one request per video, for the input VIDEO. Returns the number of requests."""
    return _write(path, "VIDEO", (([1], prefix_length(video.read_bytes())) for video in videos))


def write_clips(path: Path, name: str, clips: Iterable[npt.NDArray[np.uint8]]) -> int:
    """Write one request per clip, uint8 [V,T,S,S,3], for the input `name`. Returns the number of requests."""
    return _write(path, name, ((list(clip.shape), clip.tobytes()) for clip in clips))


def _write(path: Path, name: str, contents: Iterable[tuple[list[int], bytes]]) -> int:
    requests: list[dict[str, Any]] = []
    size = 0
    for shape, content in contents:
        size += len(content)
        if requests and size > MAX_MEGABYTES * 2**20:
            break
        requests.append({name: {"content": {"b64": base64.b64encode(content).decode()}, "shape": shape}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": requests}))
    return len(requests)


def draw_intervals(rate: float, seconds: float) -> list[float]:
    """Draw the seconds between requests of a Poisson process: mean exactly 1 / `rate`, about `seconds` in all.

    perf_analyzer can draw its own (--request-distribution poisson), with the same seed each time: the mean of its first
    hundreds of intervals is a fifth too long (24.09, measured: 20.4 answers a second where 26.5 were asked for, twice).
    """
    count = max(MIN_INTERVALS, math.ceil(rate * seconds))
    # Quantiles instead of draws, in random order: even a short list follows the exponential distribution.
    intervals = [-math.log(1 - (number + 0.5) / count) for number in range(count)]
    random.Random(SEED).shuffle(intervals)
    scale = count / rate / sum(intervals)
    return [interval * scale for interval in intervals]


def write_intervals(path: Path, rate: float, seconds: float) -> None:
    """Write the file for --request-intervals: microseconds, one a line."""
    path.write_text("".join(f"{interval * 1e6:.0f}\n" for interval in draw_intervals(rate, seconds)))
