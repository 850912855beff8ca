"""AV1 packets as a hardware decoder takes them: as they are in the container, the OBUs of one temporal unit.

FFmpeg's own decoder on NVDEC (libavcodec/cuviddec.c) hands them over in the same way. AV1 is exact by its standard, but
for film grain. A stream is left to the CPU where a decoder does more than decode: film grain, frames of other sizes
than the sequence states, layers.
"""

from __future__ import annotations

from clip_decode.decode.nvdec.sequence_parameter_set import SequenceParameters
from clip_decode.dependencies.av1 import (
    FRAME,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    SEQUENCE_HEADER,
    TILE_LIST,
    read_frame_header,
    read_sequence_header,
    split_obus,
)
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_MAIN_PROFILE = 0
_HAS_SIZE = 2
_SRGB = (1, 13, 0)  # Primaries, transfer and matrix that stand for 4:4:4.
# Eight slots, the frame that is being decoded, and one that is shown.
_KEPT_FRAMES = 10
_BLOCK = 8  # Pixels; the smallest of AV1.


class ObuStream:
    """Checks the packets of one AV1 stream.

    Attributes:
        sequence: what its sequence header says.
        parameter_sets: none; the packet of a key frame has the sequence header.

    Raises:
        DependenciesUnknown: a hardware decoder may decode the stream in another way than FFmpeg.
    """

    parameter_sets = b""

    def __init__(self, first_packet: bytes) -> None:
        try:
            units = [first_packet[b:stop] for kind, _, b, stop in split_obus(first_packet) if kind == SEQUENCE_HEADER]
            if len(units) != 1:
                raise DependenciesUnknown(f"{len(units)} sequence headers")
            self.sequence = _read_parameters(units[0])
            self._header = read_sequence_header(BitReader(units[0]))
        except (EOFError, IndexError) as error:
            raise DependenciesUnknown("a sequence header is truncated") from error

    def convert(self, data: bytes) -> bytes:
        """The packet itself.

        Raises:
            DependenciesUnknown: hardware and FFmpeg decode the packet in different ways.
        """
        try:
            for kind, start, body, _ in split_obus(data):
                if kind == TILE_LIST:
                    raise DependenciesUnknown("a list of tiles")
                if not data[start] & _HAS_SIZE:
                    raise DependenciesUnknown("an OBU without its size")
                if kind in (FRAME, FRAME_HEADER):
                    frame = read_frame_header(data[body : body + FRAME_HEADER_BYTES], self._header)
                    if frame.overrides_size:
                        raise DependenciesUnknown("a frame states a size of its own")
        except (EOFError, IndexError) as error:
            raise DependenciesUnknown("a header is truncated") from error
        return data


def _read_parameters(body: bytes) -> SequenceParameters:
    """What a sequence header says of the pictures (AV1 bitstream, 5.5).

    Raises:
        DependenciesUnknown: what is left to the CPU.
        EOFError: it is truncated.
    """
    bits = BitReader(body)
    header = read_sequence_header(bits)
    if header.profile != _MAIN_PROFILE:
        raise DependenciesUnknown(f"AV1 profile {header.profile}")
    if header.operating_points > 1:
        raise DependenciesUnknown("layers")
    if header.width % 2 or header.height % 2:
        raise DependenciesUnknown(f"an odd size, {header.width} x {header.height}")
    if bits.flag():
        raise DependenciesUnknown("frames may be scaled (super-resolution)")
    bits.skip(2)
    depth = 10 if bits.flag() else 8
    if bits.flag():
        raise DependenciesUnknown("no chroma")
    if bits.flag() and (bits.read(8), bits.read(8), bits.read(8)) == _SRGB:
        raise DependenciesUnknown("a chroma format other than 4:2:0")
    bits.skip(1 + 2 + 1)
    if bits.flag():
        raise DependenciesUnknown("film grain")
    return SequenceParameters(
        codec="av1",
        bits=depth,
        coded_width=-(-header.width // _BLOCK) * _BLOCK,
        coded_height=-(-header.height // _BLOCK) * _BLOCK,
        width=header.width,
        height=header.height,
        level=header.level,
        references=8,
        kept_frames=_KEPT_FRAMES,
    )
