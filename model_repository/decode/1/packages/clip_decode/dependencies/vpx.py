"""Dependencies of VP8 and VP9 packets, from frame headers (RFC 6386, 9.1; VP9 bitstream, 6.2).

No frame is disposable: the next one may use its motion vectors or probabilities, even if it is no reference. A key
frame resets everything, so decoding may begin at any key frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import (
    HIDDEN,
    RANDOM_ACCESS,
    REFERENCE,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)


def analyze_vp8(packets: Iterable[bytes]) -> Dependencies:
    """Find the packets that are key frames and those that are not shown.

    Raises:
        DependenciesUnknown: a hidden key frame.
        IndexError: a packet is truncated.
    """
    flags = []
    for data in packets:
        is_key, is_shown = not data[0] & 1, bool(data[0] & 0x10)
        if is_key and not is_shown:
            raise DependenciesUnknown("a hidden key frame")
        flags.append(RANDOM_ACCESS if is_key else REFERENCE if is_shown else HIDDEN)
    return Dependencies(flags, reorders=False)


def analyze_vp9(packets: Iterable[bytes]) -> Dependencies:
    """Find the packets that begin with a key frame and those that show nothing.

    Raises:
        DependenciesUnknown: a packet shows more than one frame, or is damaged.
        EOFError, IndexError: a packet is truncated.
    """
    return Dependencies([_read_vp9_flags(data) for data in packets], reorders=False)


def _read_vp9_flags(data: bytes) -> PacketFlags:
    shown = 0
    begins_with_key = False
    for number, frame in enumerate(_split_superframe(data)):
        bits = BitReader(frame[:2])
        if bits.read(2) != 2:
            raise DependenciesUnknown("not a VP9 frame")
        profile = bits.read(1) + 2 * bits.read(1)
        bits.skip(1 if profile == 3 else 0)
        if bits.flag():
            shown += 1  # Shows a frame that was decoded before.
            continue
        is_key = not bits.flag()
        shown += bits.flag()
        begins_with_key = begins_with_key or (is_key and number == 0)
    if shown > 1 or (begins_with_key and not shown):
        raise DependenciesUnknown("a packet shows more than one frame, or hides a key frame")
    return RANDOM_ACCESS if begins_with_key else REFERENCE if shown else HIDDEN


def _split_superframe(data: bytes) -> Iterator[bytes]:
    marker = data[-1]
    if marker & 0xE0 != 0xC0:
        yield data
        return
    count, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index_bytes = 2 + count * size_bytes
    if len(data) < index_bytes or data[-index_bytes] != marker:
        yield data
        return
    offset = 0
    for number in range(count):
        place = len(data) - index_bytes + 1 + number * size_bytes
        size = int.from_bytes(data[place : place + size_bytes], "little")
        if size == 0 or offset + size > len(data) - index_bytes:
            raise DependenciesUnknown("a superframe index does not add up")
        yield data[offset : offset + size]
        offset += size
