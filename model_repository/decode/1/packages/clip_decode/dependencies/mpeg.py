"""Dependencies of MPEG-1, MPEG-2, MPEG-4 part 2 and Motion JPEG packets, from picture headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import (
    DISPOSABLE,
    RANDOM_ACCESS,
    REFERENCE,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)

_PICTURE = b"\0\0\x01\0"
_SEQUENCE = b"\0\0\x01\xb3"
_EXTENSION = b"\0\0\x01\xb5"
_GROUP = b"\0\0\x01\xb3"
_VIDEO_OBJECT_PLANE = b"\0\0\x01\xb6"
_VIDEO_OBJECT_LAYER = re.compile(rb"\0\0\x01[\x20-\x2f].*?(?=\0\0\x01|\Z)", re.DOTALL)
_MAX_HEADER_BYTES = 32  # Enough for every field of a layer or a plane that is read here.


def analyze_mpeg2(packets: Iterable[bytes]) -> Dependencies:
    """Check that each packet is one frame picture: ISO 13818-2, 6.2.3 (and 11172-2).

    Raises:
        DependenciesUnknown: field pictures, several pictures in a packet, D pictures, a format that changes, B pictures
            that the header denies.
        IndexError: a header is truncated.
    """
    flags: list[PacketFlags] = []
    formats: set[bytes] = set()
    has_low_delay = False
    for data in packets:
        start = data.find(_PICTURE)
        if start < 0 or data.find(_PICTURE, start + 4) >= 0:
            raise DependenciesUnknown("a packet is not one picture")
        if _is_field(data, start):
            raise DependenciesUnknown("field pictures")
        # temporal_reference 10 bits, picture_coding_type 3 bits: 1 I, 2 P, 3 B.
        kind = data[start + 5] >> 3 & 7
        if kind not in (1, 2, 3):
            raise DependenciesUnknown(f"picture type {kind}")
        sequence = data.find(_SEQUENCE, 0, start)
        if sequence >= 0:
            extension = _read_sequence_extension(data, sequence, start)
            formats.add(data[sequence + 4 : sequence + 7] + extension[:3])  # The size, and up to the chroma format.
            has_low_delay = has_low_delay or extension[5:] >= b"\x80"
        # A sequence header resets the quantisation matrices.
        is_random_access = kind == 1 and sequence >= 0
        flags.append(RANDOM_ACCESS if is_random_access else DISPOSABLE if kind == 3 else REFERENCE)
    if len(formats) > 1:
        # FFmpeg starts anew, and drops the frame that it holds back.
        raise DependenciesUnknown("the size or the chroma format changes within the stream")
    if has_low_delay and DISPOSABLE in flags:
        # FFmpeg returns frames in decoding order.
        raise DependenciesUnknown("B pictures, but low_delay is set")
    return Dependencies(flags, DISPOSABLE in flags, _display_order(flags))


def _read_sequence_extension(data: bytes, sequence: int, picture: int) -> bytes:
    """The extension of a sequence header: six bytes, of which the last begins with low_delay. MPEG-1 has none."""
    extension = data.find(_EXTENSION, sequence, picture)
    return data[extension + 4 : extension + 10] if extension >= 0 else b""


def _is_field(data: bytes, picture: int) -> bool:
    start = data.find(_EXTENSION, picture, picture + 64)
    # picture_coding_extension: id 8 in four bits, f_codes 16 bits, precision 2, structure 2.
    return start >= 0 and data[start + 4] >> 4 == 8 and data[start + 6] & 3 != 3


def analyze_mpeg4(packets: Iterable[bytes], extradata: bytes) -> Dependencies:
    """Check that each packet is one video object plane: ISO 14496-2, 6.2.5.

    Raises:
        DependenciesUnknown: packed planes, as in DivX files, planes that are not coded, sprites, layers that change or
            are missing, B planes that are interlaced, come unannounced or have a wrong time.
        EOFError: a header is truncated.
    """
    kinds: list[int] = []
    layer: _Layer | None = None
    clock = _PlaneClock()
    # The one that counts for a key frame need not be in its packet.
    layers = set(_VIDEO_OBJECT_LAYER.findall(extradata))
    for data in packets:
        start = data.find(_VIDEO_OBJECT_PLANE)
        if start < 0 or data.find(_VIDEO_OBJECT_PLANE, start + 4) >= 0:
            raise DependenciesUnknown("a packet is not one plane")
        layers.update(_VIDEO_OBJECT_LAYER.findall(data, 0, start))
        if len(layers) != 1:
            raise DependenciesUnknown("the video object layer is missing, or changes within the stream")
        layer = layer or _read_layer(min(layers))
        group = data.rfind(_GROUP, 0, start)
        if group >= 0:
            clock.begin_group(data[group + 4 : group + 8])
        kind, seconds, ticks = _read_plane(data[start + 4 : start + 4 + _MAX_HEADER_BYTES], layer)
        clock.add_plane(kind, seconds, ticks, layer.ticks_a_second)
        kinds.append(kind)
    flags = [(RANDOM_ACCESS, REFERENCE, DISPOSABLE)[kind] for kind in kinds]
    return Dependencies(flags, DISPOSABLE in flags, _display_order(flags))


@dataclass(frozen=True)
class _Layer:
    """A video object layer (6.2.3).

    Attributes:
        has_low_delay: whether low_delay is set or missing.
        ticks_a_second: of the time in the header of a plane.
        time_bits: its length there.
        may_be_interlaced: whether planes may be interlaced.
    """

    has_low_delay: bool
    ticks_a_second: int
    time_bits: int
    may_be_interlaced: bool


def _read_layer(layer: bytes) -> _Layer:
    """layer: begins with its start code."""
    bits = BitReader(layer[4 : 4 + _MAX_HEADER_BYTES])
    bits.skip(9)
    bits.skip(7 if bits.flag() else 0)
    bits.skip(16 if bits.read(4) == 15 else 0)  # The shape of a pixel.
    has_control = bits.flag()
    bits.skip(2 if has_control else 0)
    has_low_delay = not has_control or bits.flag()
    bits.skip(79 if has_control and bits.flag() else 0)  # The buffer.
    if bits.read(2):
        raise DependenciesUnknown("a layer that is not rectangular")
    bits.skip(1)
    ticks_a_second = bits.read(16)
    bits.skip(1)
    time_bits = max((ticks_a_second - 1).bit_length(), 1)
    bits.skip(time_bits if bits.flag() else 0)  # The time between two planes.
    bits.skip(29)
    return _Layer(has_low_delay, ticks_a_second, time_bits, may_be_interlaced=bits.flag())


class _PlaneClock:
    """The times of planes, as FFmpeg counts them: it drops a B plane whose time is not between those of its references.

    Times are ticks, their distances have 16 bits.
    """

    def __init__(self) -> None:
        self._seconds = self._seconds_before = 0
        self._time = self._distance = 0

    def begin_group(self, header: bytes) -> None:
        """header: of a group of planes, from behind its start code (6.2.4)."""
        bits = BitReader(header)
        if any(header[:3]):
            hours, minutes = bits.read(5), bits.read(6)
            bits.skip(1)
            self._seconds = bits.read(6) + 60 * (minutes + 60 * hours)

    def add_plane(self, kind: int, seconds: int, ticks: int, ticks_a_second: int) -> None:
        """Raise DependenciesUnknown for a B plane that FFmpeg drops."""
        if kind == 2:
            time = (self._seconds_before + seconds) * ticks_a_second + ticks
            if not 0 < (self._distance - self._time + time) & 0xFFFF < self._distance:
                raise DependenciesUnknown("the time of a B plane is not between those of its references")
            return
        self._seconds_before = self._seconds
        self._seconds += seconds
        time = self._seconds * ticks_a_second + ticks
        self._distance, self._time = (time - self._time) & 0xFFFF, time


def _read_plane(header: bytes, layer: _Layer) -> tuple[int, int, int]:
    """vop_coding_type of a plane that is coded, and its time: seconds, and ticks of the layer (6.2.5).

    header: from behind its start code.
    """
    bits = BitReader(header)
    kind = bits.read(2)
    if kind == 3:
        raise DependenciesUnknown("sprites")
    if kind == 2 and layer.may_be_interlaced:
        # FFmpeg takes the distance of fields from the first B plane that it decodes, whichever that is.
        raise DependenciesUnknown("B planes may be interlaced")
    if kind == 2 and layer.has_low_delay:
        # FFmpeg returns each frame at once until the first B plane comes, and then one of them again.
        raise DependenciesUnknown("B planes, but low_delay is set or missing")
    seconds = 0
    while bits.flag():
        seconds += 1
    bits.skip(1)
    ticks = bits.read(layer.time_bits)
    if not bits.flag():
        # FFmpeg then takes another length for the time.
        raise DependenciesUnknown("a plane whose time has another length than its layer says")
    if not bits.flag():
        raise DependenciesUnknown("a plane is not coded, and gives no frame")
    return kind, seconds, ticks


def _display_order(flags: list[PacketFlags]) -> list[int]:
    """A B picture is displayed at once, any other when the next that is not B comes."""
    order: list[int] = []
    pending: int | None = None
    for number, packet in enumerate(flags):
        if packet.disposable:
            order.append(number)
            continue
        if pending is not None:
            order.append(pending)
        pending = number
    return order if pending is None else [*order, pending]


def analyze_mjpeg(packets: Iterable[bytes]) -> Dependencies:
    """Check that each packet is a JPEG image that depends on no other.

    Raises:
        DependenciesUnknown: fields (two images in a packet), or tables that only some images contain.
    """
    has_huffman_tables = set()
    count = 0
    for data in packets:
        if data[:2] != b"\xff\xd8" or data.find(b"\xff\xd8\xff", 2) >= 0:
            raise DependenciesUnknown("a packet is not one image")
        if data.find(b"\xff\xdb") < 0:
            raise DependenciesUnknown("an image without quantisation tables")
        has_huffman_tables.add(data.find(b"\xff\xc4") >= 0)
        count += 1
    if len(has_huffman_tables) > 1:
        raise DependenciesUnknown("only some images contain their Huffman tables")
    return Dependencies([RANDOM_ACCESS] * count, reorders=False)
