"""Roles of AV1 packets, from their OBU and frame headers (AV1 bitstream, 5.3 to 5.9)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import (
    DROPPABLE,
    PLAIN,
    RESTART,
    CodedFrame,
    Role,
    Span,
    Structure,
    Unproven,
)

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOSEN_BY_FRAME = 2
_ALL_SLOTS = 0xFF
_HEADER_BYTES = 32  # Enough for every field of a frame header that is read here.


@dataclass(frozen=True)
class _Sequence:
    screen_tools: int
    integer_motion: int
    frame_id_bits: int
    frame_id_delta_bits: int
    order_bits: int


@dataclass(frozen=True)
class _Frame:
    """What a frame header says.

    Attributes:
        shown, is_key: as named there.
        refreshes: the reference slots that it is kept in.
        sources: the slots that it may be predicted from; None where the header leaves that to the
            state of all eight.
        repeats: the slot whose frame it shows once more.
    """

    shown: bool
    is_key: bool
    refreshes: Collection[int]
    sources: Collection[int] | None
    repeats: int | None = None


def read_av1(packets: Iterable[bytes], extradata: bytes) -> Structure:
    """Prove that each packet shows one frame, and say what each frame leans on.

    All that a frame takes from others (pixels, motion, probabilities, grain) it takes from the
    slots that its header names; so a frame in no such slot can be left out.

    Raises:
        Unproven: spatial layers, a decoder model, a sequence that changes, damage.
        EOFError, IndexError: a header is cut off.
    """
    header: bytes | None = None
    if len(extradata) > 4 and extradata[0] == 0x81:  # av1C: four bytes, then OBUs.
        units = extradata[4:]
        header = next((units[body:stop] for kind, _, body, stop in _split(units) if kind == _SEQUENCE), None)
    sequence = None if header is None else _read_sequence(header)
    roles: list[Role] = []
    slots = _Slots()
    for data in packets:
        headers: list[_Frame] = []
        starts: list[int] = []
        has_sequence = False
        for kind, start, body, stop in _split(data):
            if kind == _SEQUENCE:
                # The first packet may differ from av1C in what it says of levels.
                if roles and data[body:stop] != header:
                    raise Unproven("the sequence header changes")
                header, has_sequence = data[body:stop], True
                sequence = _read_sequence(header)
            elif kind in (_FRAME, _FRAME_HEADER):
                if sequence is None:
                    raise Unproven("no sequence header")
                headers.append(_read_frame(data[body : body + _HEADER_BYTES], sequence))
                starts.append(start)
        role = _read_role(headers, has_sequence=has_sequence)
        # What is ahead of the first frame goes with whichever frames of the packet are decoded.
        prefix = (0, starts[0])
        for frame, start, stop in zip(headers, starts, [*starts[1:], len(data)], strict=True):
            slots.take(frame, packet=len(roles), spans=(prefix, (start, stop)))
        roles.append(role)
    return Structure(roles, reorders=False, frames=slots.frames)


class _Slots:
    """The eight reference slots, as decoding fills them."""

    def __init__(self) -> None:
        self._held: list[int | None] = [None] * 8
        self._keys: set[int] = set()
        self._coded: list[CodedFrame] = []
        self._certain = True

    @property
    def frames(self) -> list[CodedFrame] | None:
        """Every frame, if the sources of each are known."""
        return self._coded if self._certain else None

    def take(self, frame: _Frame, *, packet: int, spans: tuple[Span, ...]) -> None:
        """Decode the next frame, so to speak."""
        sources = frame.sources if frame.repeats is None else (frame.repeats,)
        held = {self._held[slot] for slot in sources or ()}
        number = len(self._coded)
        # A keyframe shown once more fills every slot: a beginning in the middle.
        if sources is None or None in held or (frame.repeats is not None and held & self._keys):
            self._certain = False
        if frame.is_key:
            self._keys.add(number)
        self._coded.append(CodedFrame(packet, spans, frame.shown, frozenset(n for n in held if n is not None)))
        for slot in frame.refreshes:
            self._held[slot] = number


def _read_role(frames: list[_Frame], *, has_sequence: bool) -> Role:
    if sum(frame.shown for frame in frames) != 1:
        raise Unproven("a packet does not show exactly one frame")
    if frames[0].is_key and frames[0].shown and has_sequence:
        return RESTART
    kept = any(frame.refreshes or frame.repeats is not None for frame in frames)
    return PLAIN if kept else DROPPABLE


def _split(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type of each OBU, and where it, its body and its successor begin."""
    offset = 0
    while offset < len(data):
        start, head = offset, data[offset]
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
        yield head >> 3 & 15, start, offset, offset + size
        offset += size


def _read_frame(body: bytes, sequence: _Sequence) -> _Frame:
    bits = BitReader(body)
    if bits.flag():
        return _Frame(shown=True, is_key=False, refreshes=(), sources=None, repeats=bits.read(3))
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
    is_intra = kind in (_KEY, _INTRA_ONLY)
    if not (is_intra or resilient):
        bits.skip(3)
    flags = _ALL_SLOTS if starts_over else bits.read(8)
    sources: Collection[int] | None = ()
    if resilient and sequence.order_bits and not (kind == _KEY and shown):
        sources = None  # States what every slot should hold.
    elif not is_intra:
        sources = _read_sources(bits, sequence)
    return _Frame(shown, kind == _KEY, [slot for slot in range(8) if flags >> slot & 1], sources)


def _read_sources(bits: BitReader, sequence: _Sequence) -> Collection[int] | None:
    if sequence.order_bits and bits.flag():
        return None  # Found by the order of the frames in all slots.
    sources = set()
    for _ in range(7):
        sources.add(bits.read(3))
        bits.skip(sequence.frame_id_delta_bits)
    return sources


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
    frame_id_bits = delta_bits = 0
    if bits.flag():
        delta_bits = bits.read(4) + 2
        frame_id_bits = delta_bits + bits.read(3) + 1
    bits.skip(3 + 4)
    has_order = bits.flag()
    bits.skip(2 if has_order else 0)
    screen_tools = _CHOSEN_BY_FRAME if bits.flag() else bits.read(1)
    integer_motion = _CHOSEN_BY_FRAME
    if screen_tools and not bits.flag():
        integer_motion = bits.read(1)
    return _Sequence(screen_tools, integer_motion, frame_id_bits, delta_bits, bits.read(3) + 1 if has_order else 0)
