"""NAL units of H.264 and HEVC: splitting packets and reading configuration records."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_START_CODE = b"\0\0\x01"


def read_length_size(extradata: bytes, *, header_bytes: int, offset: int) -> int:
    """Bytes of the length field before each NAL unit, from avcC or hvcC; 0 means start codes.

    Args:
        extradata: of the codec.
        header_bytes: least length of a configuration record.
        offset: of the byte whose low two bits hold the size less one.
    """
    if len(extradata) >= header_bytes and extradata[0] == 1:
        return (extradata[offset] & 3) + 1
    return 0


def split_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """NAL units of a packet, without length or start code.

    Raises:
        DependenciesUnknown: the lengths do not add up, so the packet is damaged.
    """
    if length_size == 0:
        yield from _split_start_codes(data)
        return
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + length_size], "big")
        offset += length_size
        if size == 0 or offset + size > len(data):
            raise DependenciesUnknown("a NAL unit is longer than its packet")
        yield data[offset : offset + size]
        offset += size


def _split_start_codes(data: bytes) -> Iterator[bytes]:
    start = data.find(_START_CODE)
    while start >= 0:
        start += 3
        end = data.find(_START_CODE, start)
        unit = data[start : end if end >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        start = end


def unescape(unit: bytes) -> bytes:
    """Remove the emulation prevention bytes of a NAL unit."""
    return unit.replace(b"\0\0\x03", b"\0\0")


def read_avcc_sets(extradata: bytes) -> Iterator[bytes]:
    """Parameter sets of an avcC record (H.264)."""
    offset = 5
    for mask in (31, 255):
        count = extradata[offset] & mask if offset < len(extradata) else 0
        offset = yield from _read_sets(extradata, offset + 1, count)


def read_hvcc_sets(extradata: bytes) -> Iterator[bytes]:
    """Parameter sets of an hvcC record (HEVC)."""
    offset = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[offset + 1 : offset + 3], "big")
        offset = yield from _read_sets(extradata, offset + 3, count)


def _read_sets(extradata: bytes, offset: int, count: int) -> Generator[bytes, None, int]:
    """Parameter sets behind their sizes. Returns where they end."""
    for _ in range(count):
        size = int.from_bytes(extradata[offset : offset + 2], "big")
        # FFmpeg stores the first zero of the start code behind it, too. The same set in a packet has none.
        yield extradata[offset + 2 : offset + 2 + size].rstrip(b"\0")
        offset += 2 + size
    return offset


def nearest(last: int, low_bits: int, count: int) -> int:
    """The order of a picture: the number nearest to the last one that has these low bits.

    H.264, 8.2.1.1; H.265, 8.3.1.
    """
    cycle = 1 << count
    distance = (low_bits - last) % cycle
    return last + distance - (cycle if distance > cycle // 2 else 0)
