"""Dependencies of AV1 frames, from OBU and frame headers (AV1 bitstream, 5.3 to 5.9)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import (
    DISPOSABLE,
    RANDOM_ACCESS,
    REFERENCE,
    ByteRange,
    CodedFrame,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)

SEQUENCE_HEADER, FRAME_HEADER, FRAME, TILE_LIST = 1, 3, 6, 8
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOSEN_BY_FRAME = 2
_ALL_SLOTS = 0xFF
FRAME_HEADER_BYTES = 32  # Enough for every field of a frame header that is read here.


@dataclass(frozen=True)
class SequenceHeader:
    """A sequence header, up to the bits of order hints.

    Attributes:
        profile: 0 is Main.
        level: its number in the stream, of the first operating point.
        operating_points: how many; more than one for layers.
        width, height: the largest frame, in pixels.
    """

    profile: int
    level: int
    operating_points: int
    width: int
    height: int
    screen_tools: int
    integer_motion: int
    frame_id_bits: int
    frame_id_delta_bits: int
    order_bits: int


@dataclass(frozen=True)
class FrameHeader:
    """A frame header.

    Attributes:
        shown, is_key: whether the frame is shown, and whether it is a key frame.
        refreshes: the reference slots that it is stored in.
        references: the slots that it may be predicted from; None where that depends on the state of all eight.
        repeats: the slot whose frame it shows again.
        overrides_size: whether it states a size of its own.
    """

    shown: bool
    is_key: bool
    refreshes: Collection[int]
    references: Collection[int] | None
    repeats: int | None = None
    overrides_size: bool = False


def analyze_av1(packets: Iterable[bytes], extradata: bytes) -> Dependencies:
    """Check that each packet shows one frame, and read which frames each frame depends on.

    A frame takes pixels, motion, probabilities and grain only from the slots that its header names, so a frame that is
    in none of these slots can be left out.

    Raises:
        DependenciesUnknown: spatial layers, a decoder model, a sequence that changes, damage.
        EOFError, IndexError: a header is truncated.
    """
    header: bytes | None = None
    if len(extradata) > 4 and extradata[0] == 0x81:  # av1C: four bytes, then OBUs.
        units = extradata[4:]
        header = next((units[body:stop] for kind, _, body, stop in split_obus(units) if kind == SEQUENCE_HEADER), None)
    sequence = None if header is None else read_sequence_header(BitReader(header))
    flags: list[PacketFlags] = []
    slots = _ReferenceSlots()
    for data in packets:
        headers: list[FrameHeader] = []
        starts: list[int] = []
        has_sequence = False
        for kind, start, body, stop in split_obus(data):
            if kind == SEQUENCE_HEADER:
                # The levels in the first packet may differ from those in av1C.
                if flags and data[body:stop] != header:
                    raise DependenciesUnknown("the sequence header changes")
                header, has_sequence = data[body:stop], True
                sequence = read_sequence_header(BitReader(header))
            elif kind in (FRAME, FRAME_HEADER):
                if sequence is None:
                    raise DependenciesUnknown("no sequence header")
                headers.append(read_frame_header(data[body : body + FRAME_HEADER_BYTES], sequence))
                starts.append(start)
        packet_flags = _read_flags(headers, has_sequence=has_sequence)
        # The bytes before the first frame are needed with whichever frames of the packet are decoded.
        prefix = (0, starts[0])
        for frame, start, stop in zip(headers, starts, [*starts[1:], len(data)], strict=True):
            slots.add(frame, packet=len(flags), byte_ranges=(prefix, (start, stop)))
        flags.append(packet_flags)
    return Dependencies(flags, reorders=False, frames=slots.frames)


class _ReferenceSlots:
    """The eight reference slots, updated as a decoder updates them."""

    def __init__(self) -> None:
        self._slots: list[int | None] = [None] * 8
        self._key_frames: set[int] = set()
        self._frames: list[CodedFrame] = []
        self._is_certain = True

    @property
    def frames(self) -> list[CodedFrame] | None:
        """Every frame, or None where the references of one are unknown."""
        return self._frames if self._is_certain else None

    def add(self, frame: FrameHeader, *, packet: int, byte_ranges: tuple[ByteRange, ...]) -> None:
        """Add the next frame in decoding order."""
        slots = frame.references if frame.repeats is None else (frame.repeats,)
        references = {self._slots[slot] for slot in slots or ()}
        number = len(self._frames)
        # A key frame that is shown again refreshes every slot, as a random access point does.
        if slots is None or None in references or (frame.repeats is not None and references & self._key_frames):
            self._is_certain = False
        if frame.is_key:
            self._key_frames.add(number)
        known = tuple(reference for reference in references if reference is not None)
        self._frames.append(CodedFrame(packet, byte_ranges, frame.shown, known, frame.repeats is not None))
        for slot in frame.refreshes:
            self._slots[slot] = number


def _read_flags(frames: list[FrameHeader], *, has_sequence: bool) -> PacketFlags:
    if sum(frame.shown for frame in frames) != 1:
        raise DependenciesUnknown("a packet does not show exactly one frame")
    if frames[0].is_key and frames[0].shown and has_sequence:
        return RANDOM_ACCESS
    is_stored = any(frame.refreshes or frame.repeats is not None for frame in frames)
    return REFERENCE if is_stored else DISPOSABLE


def split_obus(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type of each OBU, and where the OBU, its body and the next OBU begin.

    Raises:
        DependenciesUnknown: spatial layers, damage.
        IndexError: a header is truncated.
    """
    offset = 0
    while offset < len(data):
        start, head = offset, data[offset]
        offset += 1
        if head & 4:
            if data[offset] >> 3 & 3:
                raise DependenciesUnknown("spatial layers")
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
            raise DependenciesUnknown("an OBU is longer than its packet")
        yield head >> 3 & 15, start, offset, offset + size
        offset += size


def read_frame_header(body: bytes, sequence: SequenceHeader) -> FrameHeader:
    """Read the beginning of a frame header, of which `body` has FRAME_HEADER_BYTES. Raises EOFError."""
    bits = BitReader(body)
    if bits.flag():
        return FrameHeader(shown=True, is_key=False, refreshes=(), references=None, repeats=bits.read(3))
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
    overrides_size = kind == _SWITCH or bits.flag()
    bits.skip(sequence.order_bits)
    is_intra = kind in (_KEY, _INTRA_ONLY)
    if not (is_intra or resilient):
        bits.skip(3)
    flags = _ALL_SLOTS if starts_over else bits.read(8)
    references: Collection[int] | None = ()
    if resilient and sequence.order_bits and not (kind == _KEY and shown):
        references = None  # The header states what every slot should hold.
    elif not is_intra:
        references = _read_references(bits, sequence)
    return FrameHeader(
        shown,
        kind == _KEY,
        [slot for slot in range(8) if flags >> slot & 1],
        references,
        overrides_size=overrides_size,
    )


def _read_references(bits: BitReader, sequence: SequenceHeader) -> Collection[int] | None:
    if sequence.order_bits and bits.flag():
        return None  # frame_refs_short_signaling: derived from the order of the frames in all slots.
    references = set()
    for _ in range(7):
        references.add(bits.read(3))
        bits.skip(sequence.frame_id_delta_bits)
    return references


def read_sequence_header(bits: BitReader) -> SequenceHeader:
    """Read a sequence header up to the bits of order hints.

    Raises:
        DependenciesUnknown: a still picture header, a decoder model.
        EOFError: it is truncated.
    """
    profile = bits.read(3)
    bits.skip(1)
    if bits.flag():
        raise DependenciesUnknown("a still picture header")
    if bits.flag():
        raise DependenciesUnknown("timing and decoder model")
    has_delay = bits.flag()
    levels: list[int] = []
    for _ in range(bits.read(5) + 1):
        bits.skip(12)
        levels.append(bits.read(5))
        if levels[-1] > 7:
            bits.skip(1)
        if has_delay and bits.flag():
            bits.skip(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
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
    return SequenceHeader(
        profile=profile,
        level=levels[0],
        operating_points=len(levels),
        width=width,
        height=height,
        screen_tools=screen_tools,
        integer_motion=integer_motion,
        frame_id_bits=frame_id_bits,
        frame_id_delta_bits=delta_bits,
        order_bits=bits.read(3) + 1 if has_order else 0,
    )
