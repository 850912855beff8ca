"""H.264 and HEVC packets as a hardware decoder takes them: NAL units after start codes (Annex B of both standards).

Every packet is checked for what a hardware decoder does in another way than FFmpeg. The parser that NVIDIA publishes in
vk_video_samples shows what that is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from clip_decode.decode.nvdec.sequence_parameter_set import (
    SequenceParameters,
    read_h264_parameters,
    read_hevc_parameters,
)
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.nal_units import (
    read_avcc_sets,
    read_hvcc_sets,
    read_length_size,
    split_units,
    unescape,
)
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_START_CODE = b"\0\0\0\x01"
# What a unit must not contain. One pass of `re` takes a quarter of the time of two searches with `in`.
_START_CODES = re.compile(rb"\0\0[\0\x01]")
# SEI payloads that change pixels: FFmpeg adds the film grain of the first, and turns the frame by the second.
_FILM_GRAIN, _DISPLAY_ORIENTATION = 19, 47
_PICTURE_TIMING = 1
_H264_SLICES = (1, 5)
_HEADER_BYTES = 32  # Enough for every field of a slice header that is read here.
_FRAME_STRUCTURES = (0, 7, 8)  # A frame, shown once, twice or three times (H.264, table D-1).


class AnnexBStream:
    """Converts the packets of one stream to Annex B.

    Attributes:
        sequence: its sequence parameter set.
        parameter_sets: all of them, in Annex B. They replace those of an earlier stream that a decoder has kept.

    Raises:
        DependenciesUnknown: a hardware decoder may decode the stream in another way than FFmpeg.
    """

    def __init__(self, codec: str, extradata: bytes, first_packet: bytes) -> None:
        if codec not in ("h264", "hevc"):
            raise DependenciesUnknown(f"no hardware decoder for {codec}")
        self._is_hevc = codec == "hevc"
        try:
            self._read_parameter_sets(extradata, first_packet)
        except (EOFError, IndexError) as error:
            raise DependenciesUnknown("a parameter set is truncated") from error

    def _read_parameter_sets(self, extradata: bytes, first_packet: bytes) -> None:
        header_bytes, offset = (23, 21) if self._is_hevc else (7, 4)
        self._length_size = read_length_size(extradata, header_bytes=header_bytes, offset=offset)
        stored: Iterable[bytes]
        if not self._length_size:
            stored = split_units(extradata, 0)
        else:
            stored = read_hvcc_sets(extradata) if self._is_hevc else read_avcc_sets(extradata)
        kinds = (32, 33, 34) if self._is_hevc else (7, 8)
        units = [unit for unit in chain(stored, split_units(first_packet, self._length_size)) if unit]
        found = {kind: list(dict.fromkeys(u for u in units if self._kind(u) == kind)) for kind in kinds}
        sequences, pictures = found[kinds[-2]], found[kinds[-1]]
        if len(sequences) != 1:
            raise DependenciesUnknown(f"{len(sequences)} sequence parameter sets")
        read_parameters = read_hevc_parameters if self._is_hevc else read_h264_parameters
        self.sequence: SequenceParameters = read_parameters(sequences[0])
        header = 2 if self._is_hevc else 1
        numbers = {BitReader(unescape(unit[header:])).unsigned() for unit in pictures}
        if len(numbers) != len(pictures):
            raise DependenciesUnknown("two picture parameter sets have one number")
        self.parameter_sets = b"".join(_START_CODE + unit for kind in kinds for unit in found[kind])

    def convert(self, data: bytes) -> bytes:
        """A packet in Annex B.

        Raises:
            DependenciesUnknown: hardware and FFmpeg decode the packet in different ways.
        """
        units = list(split_units(data, self._length_size))
        try:
            for unit in units:
                self._check(unit)
            if not self._is_hevc:
                self._check_slices([unit for unit in units if unit[0] & 31 in _H264_SLICES])
        except (EOFError, IndexError) as error:
            raise DependenciesUnknown("a header is truncated") from error
        return b"".join(part for unit in units for part in (_START_CODE, unit))

    def _kind(self, unit: bytes) -> int:
        return unit[0] >> 1 & 63 if self._is_hevc else unit[0] & 31

    def _check(self, unit: bytes) -> None:
        kind = self._kind(unit)
        if self._length_size and _START_CODES.search(unit):
            raise DependenciesUnknown("a NAL unit contains a start code")
        if self._is_hevc and (unit[0] & 1 or unit[1] >> 3):
            raise DependenciesUnknown("a second layer")
        if kind in ((39, 40) if self._is_hevc else (6,)):
            for payload, message in _sei_messages(unescape(unit[2 if self._is_hevc else 1 :])):
                if payload in (_FILM_GRAIN, _DISPLAY_ORIENTATION):
                    raise DependenciesUnknown(f"an SEI message of type {payload}")
                if payload == _PICTURE_TIMING:
                    self._check_structure(message)

    def _check_slices(self, slices: list[bytes]) -> None:
        """Check that the parser takes the slices of an H.264 picture for those of one (7.3.3)."""
        blocks: list[int] = []
        pictures: set[tuple[int, int, bool]] = set()
        for unit in slices:
            bits = BitReader(unescape(unit[1:_HEADER_BYTES]))
            blocks.append(bits.unsigned())
            bits.unsigned()
            pictures.add((bits.unsigned(), bits.read(self.sequence.frame_number_bits), bool(unit[0] & 0x60)))
        if len(pictures) != 1:
            raise DependenciesUnknown("the slices of a picture differ in their parameters")
        if blocks != sorted(set(blocks)):
            raise DependenciesUnknown("slices are not in the order of their blocks")

    def _check_structure(self, message: bytes) -> None:
        """Check that a picture is shown as a frame: FFmpeg marks others as interlaced, which are scaled differently."""
        if self.sequence.structure_offset is None:
            return
        bits = BitReader(message)
        bits.skip(self.sequence.structure_offset)
        structure = bits.read(4)
        is_interlaced = structure == 0 and bits.flag() and bits.read(2) == 1
        if structure not in _FRAME_STRUCTURES or is_interlaced:
            raise DependenciesUnknown("a picture that is shown as fields")


def _sei_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Payload type and content of each message in an SEI unit."""
    offset = 0
    while offset + 2 <= len(data) and data[offset:] != b"\x80":
        kind, offset = _read_count(data, offset)
        size, offset = _read_count(data, offset)
        yield kind, data[offset : offset + size]
        offset += size


def _read_count(data: bytes, offset: int) -> tuple[int, int]:
    total = 0
    while data[offset] == 255:
        total, offset = total + 255, offset + 1
    return total + data[offset], offset + 1
