"""Whether a file ends before its own container says that it does.

FFmpeg returns the packets that are left of such a file, often without an error.
"""

from __future__ import annotations

from collections.abc import Callable

_TS_PACKET_BYTES = (188, 192, 204)  # As broadcast; with a timestamp before it (m2ts); with a checksum after it.
_TS_SYNC = 0x47

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def is_truncated(data: bytes | memoryview, container: str) -> bool:
    """Whether bytes are missing at the end.

    Args:
        data: the bytes of a video file.
        container: FFmpeg's name of its container.
    """
    for name, check in _CHECKS.items():
        if name in container.split(","):
            return check(data)
    return False


def _is_truncated_avi(data: bytes | memoryview) -> bool:
    # A file of more than 1 GiB has further RIFF chunks; the first must be complete all the same. A recorder that was
    # stopped leaves 0.
    return data[:4] == b"RIFF" and 8 + int.from_bytes(data[4:8], "little") > len(data)


def _is_truncated_matroska(data: bytes | memoryview) -> bool:
    if data[:4] != _EBML:
        return False
    header = _read_ebml_size(data, 4)
    if header is None:
        return False
    offset = sum(header)
    if data[offset : offset + 4] != _SEGMENT:
        return False
    segment = _read_ebml_size(data, offset + 4)
    return segment is not None and sum(segment) > len(data)


def _read_ebml_size(data: bytes | memoryview, offset: int) -> tuple[int, int] | None:
    """Offset after the size field at `offset`, and its value; None for an unknown size, as in a live stream."""
    first = data[offset] if offset < len(data) else 0
    length = 9 - first.bit_length()
    if not first or offset + length > len(data):
        return None
    value = int.from_bytes(data[offset : offset + length], "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (offset + length, value)


def _is_truncated_mpegts(data: bytes | memoryview) -> bool:
    for size in _TS_PACKET_BYTES:
        # Bytes before the first packet are the rest of a packet that begins before the file does.
        start = next((offset for offset in range(size) if _is_aligned(data, offset, size)), None)
        if start is not None:
            timestamp_bytes = size - 188 if size == 192 else 0
            return (len(data) - start + timestamp_bytes) % size != 0
    return False


def _is_aligned(data: bytes | memoryview, start: int, size: int) -> bool:
    offsets = range(start, min(len(data), start + 8 * size), size)
    return len(offsets) > 1 and all(data[offset] == _TS_SYNC for offset in offsets)


_CHECKS: dict[str, Callable[[bytes | memoryview], bool]] = {
    "avi": _is_truncated_avi,
    "matroska": _is_truncated_matroska,
    "mpegts": _is_truncated_mpegts,
}
