"""Whether a file ends before its own container says that it does.

FFmpeg gives the packets that are left of such a file, often without a complaint.
"""

from __future__ import annotations

from collections.abc import Callable

TS_PACKETS = (188, 192, 204)  # bytes: as broadcast; with a time ahead (m2ts); with a checksum behind
TS_SYNC = 0x47

EBML = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"


def is_cut_off(data: bytes | memoryview, container: str) -> bool:
    """Whether bytes are missing at the end.

    Args:
        data: the bytes of a video file.
        container: name of its container, as FFmpeg spells it.
    """
    for name, judge in _JUDGES.items():
        if name in container.split(","):
            return judge(data)
    return False


def _misses_riff(data: bytes | memoryview) -> bool:
    # A file of more than 1 GiB goes on in further chunks; the first must be whole all the same. A recorder that was
    # stopped leaves 0.
    return data[:4] == b"RIFF" and 8 + int.from_bytes(data[4:8], "little") > len(data)


def _misses_segment(data: bytes | memoryview) -> bool:
    if data[:4] != EBML:
        return False
    header = _read_size(data, 4)
    if header is None:
        return False
    place = header[0] + header[1]
    if data[place : place + 4] != SEGMENT:
        return False
    segment = _read_size(data, place + 4)
    return segment is not None and sum(segment) > len(data)


def _read_size(data: bytes | memoryview, place: int) -> tuple[int, int] | None:
    """(place behind it, value) of EBML's size at `place`; None where it is not known, as in a live stream."""
    first = data[place] if place < len(data) else 0
    length = 9 - first.bit_length()
    if not first or place + length > len(data):
        return None
    value = int.from_bytes(data[place : place + length], "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (place + length, value)


def _misses_packet_end(data: bytes | memoryview) -> bool:
    for size in TS_PACKETS:
        # Whatever lies ahead of the first packet belongs to the one before the file begins.
        start = next((at for at in range(size) if _is_aligned(data, at, size)), None)
        if start is not None:
            lead = size - 188 if size == 192 else 0
            return (len(data) - start + lead) % size != 0
    return False


def _is_aligned(data: bytes | memoryview, start: int, size: int) -> bool:
    places = range(start, min(len(data), start + 8 * size), size)
    return len(places) > 1 and all(data[place] == TS_SYNC for place in places)


_JUDGES: dict[str, Callable[[bytes | memoryview], bool]] = {
    "avi": _misses_riff,
    "matroska": _misses_segment,
    "mpegts": _misses_packet_end,
}
