"""The slices of an H.264 stream, checked for what NVDEC's parser does in another way than FFmpeg (H.264, 7.3.3).

The parser is published in NVIDIA's vk_video_samples.
"""

from __future__ import annotations

from collections.abc import Collection

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.h264 import read_h264_sequence
from clip_decode.dependencies.nal_units import unescape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_IDR_SLICE = 5
_HEADER_BYTES = 32  # Enough for every field of a slice header that is read here.


class H264Slices:
    """The slices that are sent, in decoding order."""

    def __init__(self, sequence: bytes, pictures: Collection[int]) -> None:
        """
        Args:
            sequence: the sequence parameter set, NAL unit header included.
            pictures: numbers of the picture parameter sets.
        """
        self._pictures = pictures
        parameters = read_h264_sequence(BitReader(unescape(sequence[4:])), profile=sequence[1])
        self._frame_number_bits = parameters.frame_number_bits
        self._frame_number = 0  # Of the last picture that others may refer to.
        self._block, self._picture = 0, (0, 0, False)

    def check(self, unit: bytes) -> None:
        """Check the next slice, NAL unit header included.

        Raises:
            DependenciesUnknown: hardware and FFmpeg decode its picture in different ways.
            EOFError: it is truncated.
        """
        bits = BitReader(unescape(unit[1:_HEADER_BYTES]))
        block = bits.unsigned()
        bits.unsigned()
        number = bits.unsigned()
        if number not in self._pictures:
            raise DependenciesUnknown("a slice names an unknown picture parameter set")
        frame_number, is_reference = bits.read(self._frame_number_bits), unit[0] & 0x60 != 0
        picture = (number, frame_number, is_reference)
        if block == 0:
            self._begin_picture(frame_number, is_reference, is_idr=unit[0] & 31 == _IDR_SLICE)
        elif picture != self._picture:
            # The parser takes them for the slices of two pictures.
            raise DependenciesUnknown("the slices of a picture differ in their parameters")
        elif block <= self._block:
            raise DependenciesUnknown("slices are not in the order of their blocks")
        self._block, self._picture = block, picture

    def _begin_picture(self, frame_number: int, is_reference: bool, *, is_idr: bool) -> None:
        # 7.4.3: where a frame is lost, FFmpeg copies another into its place, and says so. NVDEC does neither.
        if not is_idr and frame_number != (self._frame_number + 1) % (1 << self._frame_number_bits):
            raise DependenciesUnknown("a frame that others refer to is missing")
        if is_reference:
            self._frame_number = frame_number
