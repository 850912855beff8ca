"""Seconds that decoders work, from the server's metrics: Triton's statistics do not see them.

The decode step hands each video to a pool of processes and answers later, so that Triton counts only the handing over.
"""

import re
import urllib.request
from dataclasses import dataclass

from clipserve.proxies import Proxies

SECONDS = 5.0
_LINE = re.compile(r"^clipserve_decode_seconds_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class DecodingTime:
    """Totals since the server started."""

    seconds: float
    videos: float

    def mean_milliseconds_since(self, earlier: "DecodingTime") -> float | None:
        """Of a video decoded in between; None if there was none."""
        videos = self.videos - earlier.videos
        return 1000 * (self.seconds - earlier.seconds) / videos if videos > 0 else None


def read_decoding_time(metrics_url: str | None) -> DecodingTime | None:
    """None where the metrics cannot be read, or have no such numbers."""
    text = _read(metrics_url) if metrics_url else None
    return None if text is None else parse_decoding_time(text)


def can_read(metrics_url: str) -> bool:
    """Whether anybody answers there."""
    return _read(metrics_url) is not None


def _read(metrics_url: str) -> str | None:
    try:
        with urllib.request.build_opener(Proxies).open(metrics_url, timeout=SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, ValueError):
        return None


def parse_decoding_time(text: str) -> DecodingTime | None:
    """From Prometheus' text form."""
    found = {name: float(value) for name, value in _LINE.findall(text)}
    return DecodingTime(found["sum"], found["count"]) if found.keys() == {"sum", "count"} else None
