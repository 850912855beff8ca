"""Roles of VP8 and VP9 packets, from their frame headers (RFC 6386, 9.1; VP9 bitstream, 6.2).

No frame of these is left out: the next one may go on from its motion vectors or probabilities, even
if it is no reference. Whole groups are, since a keyframe begins everything anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import HIDDEN, PLAIN, RESTART, Role, Structure, Unproven


def read_vp8(packets: Iterable[bytes]) -> Structure:
    """Say which packets are keyframes and which are never shown."""
    roles = []
    for data in packets:
        is_key, is_shown = not data[0] & 1, bool(data[0] & 0x10)
        if is_key and not is_shown:
            raise Unproven("a hidden keyframe")
        roles.append(RESTART if is_key else PLAIN if is_shown else HIDDEN)
    return Structure(roles, reorders=False)


def read_vp9(packets: Iterable[bytes]) -> Structure:
    """Say which packets begin with a keyframe and which are never shown.

    Raises:
        Unproven: a packet shows more than one frame, or is damaged.
    """
    return Structure([_read_vp9_role(data) for data in packets], reorders=False)


def _read_vp9_role(data: bytes) -> Role:
    shown = 0
    begins_with_key = False
    for number, frame in enumerate(_split_superframe(data)):
        bits = BitReader(frame[:2])
        if bits.read(2) != 2:
            raise Unproven("not a VP9 frame")
        profile = bits.read(1) + 2 * bits.read(1)
        bits.skip(1 if profile == 3 else 0)
        if bits.flag():
            shown += 1  # Shows a frame decoded before.
            continue
        is_key = not bits.flag()
        shown += bits.flag()
        begins_with_key = begins_with_key or (is_key and number == 0)
    if shown > 1 or (begins_with_key and not shown):
        raise Unproven("a packet shows more than one frame, or hides a keyframe")
    return RESTART if begins_with_key else PLAIN if shown else HIDDEN


def _split_superframe(data: bytes) -> Iterator[bytes]:
    marker = data[-1]
    if marker & 0xE0 != 0xC0:
        yield data
        return
    count, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = 2 + count * size_bytes
    if len(data) < index or data[-index] != marker:
        yield data
        return
    offset = 0
    for number in range(count):
        place = len(data) - index + 1 + number * size_bytes
        size = int.from_bytes(data[place : place + size_bytes], "little")
        if size == 0 or offset + size > len(data) - index:
            raise Unproven("a superframe index does not add up")
        yield data[offset : offset + size]
        offset += size
