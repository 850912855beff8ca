"""Roles of AV1 packets, from their OBU and frame headers (AV1 bitstream, 5.3 to 5.9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .bits import BitReader
from .roles import PLAIN, RESTART, Role, Structure, Unproven

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOSEN_BY_FRAME = 2
_HEADER_BYTES = 24  # Enough for every field of a frame header that is read here.


@dataclass(frozen=True)
class _Sequence:
    screen_tools: int
    integer_motion: int
    frame_id_bits: int
    order_bits: int


@dataclass(frozen=True)
class _Frame:
    shown: bool
    is_key: bool
    refreshes: bool


def read_av1(packets: Iterable[bytes], extradata: bytes) -> Structure:
    """Prove that each packet shows one frame, and say what it is to the others.

    A frame that refreshes no reference slot leaves nothing behind: probabilities and motion are
    kept in the slots.

    Raises:
        Unproven: spatial layers, a decoder model, a sequence that changes, damage.
        EOFError, IndexError: a header is cut off.
    """
    header: bytes | None = None
    if len(extradata) > 4 and extradata[0] == 0x81:  # av1C: four bytes, then OBUs.
        header = next((body for kind, body in _split(extradata[4:]) if kind == _SEQUENCE), None)
    roles: list[Role] = []
    for data in packets:
        frames = []
        has_sequence = False
        for kind, body in _split(data):
            if kind == _SEQUENCE:
                # The first packet may differ from av1C in what it says of levels.
                if roles and body != header:
                    raise Unproven("the sequence header changes")
                header, has_sequence = body, True
            elif kind in (_FRAME, _FRAME_HEADER):
                if header is None:
                    raise Unproven("no sequence header")
                frames.append(_read_frame(body, _read_sequence(header)))
        roles.append(_read_role(frames, has_sequence=has_sequence))
    return Structure(roles, reorders=False)


def _read_role(frames: list[_Frame], *, has_sequence: bool) -> Role:
    if sum(frame.shown for frame in frames) != 1:
        raise Unproven("a packet does not show exactly one frame")
    if frames[0].is_key and frames[0].shown and has_sequence:
        return RESTART
    return Role(droppable=True) if not any(frame.refreshes for frame in frames) else PLAIN


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each OBU."""
    offset = 0
    while offset < len(data):
        head = data[offset]
        offset += 1
        if head & 4:
            if data[offset] >> 3 & 3:
                raise Unproven("spatial layers")
            offset += 1
        size = len(data) - offset
        if head & 2:
            size, shift = 0, 0
            while True:
                byte = data[offset]
                offset += 1
                size |= (byte & 127) << shift
                shift += 7
                if not byte & 128 or shift > 56:
                    break
        if offset + size > len(data):
            raise Unproven("an OBU is longer than its packet")
        yield head >> 3 & 15, data[offset : offset + size]
        offset += size


def _read_frame(body: bytes, sequence: _Sequence) -> _Frame:
    bits = BitReader(body[:_HEADER_BYTES])
    if bits.flag():
        # Shows a frame decoded before; if that is a keyframe it refreshes every slot.
        return _Frame(shown=True, is_key=False, refreshes=True)
    kind, shown = bits.read(2), bits.flag()
    if not shown:
        bits.skip(1)
    starts_over = kind == _SWITCH or (kind == _KEY and shown)
    resilient = starts_over or bits.flag()
    bits.skip(1)
    screen_tools = sequence.screen_tools
    if screen_tools == _CHOSEN_BY_FRAME:
        screen_tools = bits.read(1)
    if screen_tools and sequence.integer_motion == _CHOSEN_BY_FRAME:
        bits.skip(1)
    bits.skip(sequence.frame_id_bits)
    if kind != _SWITCH:
        bits.skip(1)
    bits.skip(sequence.order_bits)
    if not (kind in (_KEY, _INTRA_ONLY) or resilient):
        bits.skip(3)
    return _Frame(shown, kind == _KEY, starts_over or bits.read(8) != 0)


def _read_sequence(body: bytes) -> _Sequence:
    bits = BitReader(body)
    bits.skip(4)
    if bits.flag():
        raise Unproven("a still picture header")
    if bits.flag():
        raise Unproven("timing and decoder model")
    has_delay = bits.flag()
    for _ in range(bits.read(5) + 1):
        bits.skip(12)
        if bits.read(5) > 7:
            bits.skip(1)
        if has_delay and bits.flag():
            bits.skip(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.skip(width_bits + height_bits)
    frame_id_bits = bits.read(4) + 2 + bits.read(3) + 1 if bits.flag() else 0
    bits.skip(3 + 4)
    has_order = bits.flag()
    bits.skip(2 if has_order else 0)
    screen_tools = _CHOSEN_BY_FRAME if bits.flag() else bits.read(1)
    integer_motion = _CHOSEN_BY_FRAME
    if screen_tools and not bits.flag():
        integer_motion = bits.read(1)
    return _Sequence(screen_tools, integer_motion, frame_id_bits, bits.read(3) + 1 if has_order else 0)
