"""What to measure on a GPU server, and in which order: the most telling first, because the time may run out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.footage import FOOTAGE, HD, X265, Footage, encode

Part = Literal["network", "decode", "service"]
PARTS: tuple[Part, ...] = ("network", "decode", "service")
NETWORK_IN_FLIGHT = (32, 1, 8)
# Videos a second of the whole service, and clips a second of the network, that one H100 with 16 cores should reach.
WANTED = {
    "h264-1080p-10s-short-groups.mp4": 25,
    "h264-720p-10s.mp4": 45,
    "h264-256p-10s.mp4": 110,
    "hevc-1080p-10s.mp4": 30,
    "x3d_m_net": 500,
}
_NAMES = (
    *("h264-1080p-10s-short-groups.mp4", "h264-256p-10s.mp4", "hevc-1080p-10s.mp4", "h264-720p-10s.mp4"),
    *("hevc10-720p-10s.mp4", "av1-480p-10s.mp4", "h264-480p-10s-short-groups.mp4", "hevc-480p-10s-short-groups.mp4"),
)
_OWN = (
    Footage("h264-256p-10s.mp4", "libx264", 340, 256, 10, 250),
    Footage("hevc10-720p-10s.mp4", "libx265", 1280, 720, 10, 250, X265, source=HD, pixels="yuv420p10le"),
)
QUICK_FOOTAGE = (
    Footage("h264-256p-1s.mp4", "libx264", 340, 256, 1, 250),
    Footage("hevc10-256p-1s.mp4", "libx265", 340, 256, 1, 250, X265, pixels="yuv420p10le"),
)


def all_footage() -> list[Footage]:
    """256p to 1080p, H.264, HEVC of 8 and 10 bits, AV1; the most telling first."""
    known = {footage.name: footage for footage in (*FOOTAGE, *_OWN)}
    return [known[name] for name in _NAMES]


def encode_side_by_side(footage: Sequence[Footage]) -> list[Path]:
    """The files, encoded where they are not there yet, each by a process of its own."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(encode, footage))


@dataclass(frozen=True)
class Cell:
    """One measurement: a network, or a video by a decoder, with so many requests in flight."""

    part: Part
    name: str
    decoder: str  # of the server: auto or cpu
    in_flight: int

    def __str__(self) -> str:
        return f"{self.part} {self.name}, decoder {self.decoder}, {self.in_flight} in flight"


def plan_cells(network: str, videos: Sequence[str], decoder: str, parts: Sequence[str], in_flight: int) -> list[Cell]:
    """The measurements of one server. The networks do not depend on the decoder, so one server measures them."""
    cells: list[Cell] = []
    if decoder == "auto":
        cells += [Cell("network", network, decoder, count) for count in NETWORK_IN_FLIGHT]
    for video in videos:
        cells += [Cell("service", video, decoder, in_flight), Cell("decode", video, decoder, in_flight)]
    return [cell for cell in cells if cell.part in parts]


@dataclass(frozen=True)
class Pace:
    """Seconds of a measurement: its warm-up, and the least and the most after it."""

    # As long as a request waits with `in_flight` of 1080p: before that, the first ones are answered all at once.
    warm_up: float = 2.0
    least: float = 1.0
    most: float = 4.0


@dataclass
class Shares:
    """The time, shared equally among the measurements that are left.

    Args:
        left: returns the seconds that are left for all of them.
        cells: how many there are.
        pace: bounds of a measurement.
    """

    left: Callable[[], float]
    cells: int
    pace: Pace

    def take(self) -> float:
        """Seconds for the next measurement, without its warm-up; 0 where the time is over."""
        # A loop ends with the requests in flight, which take about as long as the warm-up.
        around, left = 2 * self.pace.warm_up, self.left()
        share = left / max(self.cells, 1) - around
        self.cells -= 1
        if left < self.pace.least + around:
            return 0.0
        return min(max(share, self.pace.least), self.pace.most)
