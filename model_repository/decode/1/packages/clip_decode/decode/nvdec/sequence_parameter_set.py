"""What the sequence parameter set of a stream says of its pictures (H.264, 7.3.2.1 and annex E; H.265, 7.3.2.2).

A hardware decoder is created for these facts, and may only take another stream where it covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.h264 import read_h264_sequence
from clip_decode.dependencies.hevc_parameter_sets import read_hevc_sequence
from clip_decode.dependencies.nal_units import unescape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_H264_PROFILES = (66, 77, 100, 110)  # Baseline, Main, High, High 10.
_HEVC_PROFILES = (1, 2, 3)  # Main, Main 10, Main Still Picture.
# MaxLumaPs of H.265, table A.8: the largest picture of each level.
_HEVC_LEVELS = {30: 36864, 60: 122880, 63: 245760, 90: 552960, 93: 983040, 123: 2228224, 156: 8912896, 186: 35651584}
_CHROMA_420 = 1
_EXTENDED_ASPECT = 255
# Pixels. NVDEC's documentation does not say in which blocks a driver counts the size of HEVC and AV1 pictures: in
# superblocks at most.
LARGEST_BLOCK = 64


@dataclass(frozen=True)
class SequenceParameters:
    """The pictures of a stream: 4:2:0, progressive, cropped on the right and at the bottom only.

    Attributes:
        codec: "h264", "hevc" or "av1".
        bits: bits of a sample, luma and chroma.
        coded_width, coded_height: pixels, whole blocks.
        width, height: pixels that are displayed.
        level: its number in the stream; it bounds the frames to keep.
        references: frames that others may be predicted from at one time.
        kept_frames: frames that a decoder may have to keep at one time.
        frame_number_bits: H.264: length of frame_num in a slice header.
        structure_offset: H.264: bits of a picture timing message ahead of pic_struct; None where no message has it.
    """

    codec: str
    bits: int
    coded_width: int
    coded_height: int
    width: int
    height: int
    level: int
    references: int
    kept_frames: int
    frame_number_bits: int = field(default=0, compare=False)
    structure_offset: int | None = field(default=None, compare=False)

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height in pixels, whole blocks."""
        return self.coded_width, self.coded_height

    @property
    def driver_size(self) -> tuple[int, int]:
        """The coded size in the largest blocks that a driver may count in: where it differs, the driver's differs."""
        block = 1 if self.codec == "h264" else LARGEST_BLOCK
        return -(-self.coded_width // block) * block, -(-self.coded_height // block) * block

    def covers(self, other: SequenceParameters) -> bool:
        """Whether a decoder for this stream decodes the other one as it is: pictures alike, no more of them to keep."""
        same = replace(other, level=self.level, references=self.references, kept_frames=self.kept_frames) == self
        mine = (self.level, self.references, self.kept_frames)
        needed = (other.level, other.references, other.kept_frames)
        return same and all(have >= need for have, need in zip(mine, needed, strict=True))


def read_h264_parameters(unit: bytes) -> SequenceParameters:
    """Read a sequence parameter set, NAL unit header included.

    Raises:
        DependenciesUnknown: fields, another chroma format or depth, a profile with rare tools, gaps in frame numbers.
        EOFError: it is truncated.
    """
    profile, level = unit[1], unit[3]
    if profile not in _H264_PROFILES:
        raise DependenciesUnknown(f"H.264 profile {profile}")
    bits = BitReader(unescape(unit[4:]))
    sequence = read_h264_sequence(bits, profile=profile)
    if sequence.chroma_format != _CHROMA_420:
        raise DependenciesUnknown("a chroma format other than 4:2:0")
    _check_depth(sequence.luma_bits, sequence.chroma_bits)
    if sequence.may_have_gaps:
        raise DependenciesUnknown("frame numbers may have gaps")
    if sequence.may_be_field:
        raise DependenciesUnknown("pictures may be fields")
    bits.skip(1)
    right, bottom = _crop_pixels([bits.unsigned() for _ in range(4)]) if bits.flag() else (0, 0)
    kept_frames, structure_offset = _read_h264_usability(bits) if bits.flag() else (None, None)
    return SequenceParameters(
        codec="h264",
        bits=sequence.luma_bits,
        coded_width=sequence.coded_width,
        coded_height=sequence.coded_height,
        width=sequence.coded_width - right,
        height=sequence.coded_height - bottom,
        level=level,
        references=sequence.references,
        # Where it is not stated, the most that any level allows. The driver takes 0, as in streams of key frames alone,
        # for that, too.
        kept_frames=kept_frames or 16,
        frame_number_bits=sequence.frame_number_bits,
        structure_offset=structure_offset,
    )


def _check_depth(luma_bits: int, chroma_bits: int) -> None:
    if luma_bits != chroma_bits or luma_bits not in (8, 10):
        raise DependenciesUnknown(f"luma of {luma_bits} bits and chroma of {chroma_bits}")


def _crop_pixels(samples: Sequence[int]) -> tuple[int, int]:
    """Pixels cropped on the right and at the bottom; of chroma samples on the left, right, top and bottom."""
    left, right, top, bottom = samples
    if left or top:
        raise DependenciesUnknown("pictures are cropped on the left or at the top")
    return 2 * right, 2 * bottom


def _read_h264_usability(bits: BitReader) -> tuple[int | None, int | None]:
    """max_dec_frame_buffering, at the very end of the usability information (VUI), and see `structure_offset`."""
    if bits.flag() and bits.read(8) == _EXTENDED_ASPECT:
        bits.skip(32)
    if bits.flag():
        bits.skip(1)
    if bits.flag():
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():
        bits.unsigned()
        bits.unsigned()
    if bits.flag():
        bits.skip(32 + 32 + 1)
    delay_bits = 0
    for _ in range(2):
        if bits.flag():
            delay_bits = _read_delay_bits(bits)
    bits.skip(1 if delay_bits else 0)
    structure_offset = delay_bits if bits.flag() else None
    if not bits.flag():
        return None, structure_offset
    bits.skip(1)
    for _ in range(5):
        bits.unsigned()
    return bits.unsigned(), structure_offset


def _read_delay_bits(bits: BitReader) -> int:
    """Bits of both delays in a picture timing message, from the parameters of a reference decoder (HRD)."""
    count = bits.unsigned() + 1
    bits.skip(8)
    for _ in range(count):
        bits.unsigned()
        bits.unsigned()
        bits.skip(1)
    bits.skip(5)
    delay_bits = bits.read(5) + 1 + bits.read(5) + 1
    bits.skip(5)
    return delay_bits


def read_hevc_parameters(unit: bytes) -> SequenceParameters:
    """Read a sequence parameter set, NAL unit header included.

    Raises:
        DependenciesUnknown: another chroma format or depth, an extended profile, pictures that may be interlaced.
        EOFError, IndexError: it is truncated.
    """
    sequence = read_hevc_sequence(BitReader(unescape(unit[2:])))
    if sequence.profile not in _HEVC_PROFILES:
        raise DependenciesUnknown(f"HEVC profile {sequence.profile}")
    if sequence.is_interlaced or not sequence.is_progressive:
        # PyNvVideoCodec would create a decoder that deinterlaces, for this stream and all that follow.
        raise DependenciesUnknown("HEVC that does not say that it is progressive")
    if sequence.chroma_format != _CHROMA_420:
        raise DependenciesUnknown("a chroma format other than 4:2:0")
    right, bottom = _crop_pixels(sequence.crop)
    _check_depth(sequence.luma_bits, sequence.chroma_bits)
    width, height, kept_frames = sequence.width, sequence.height, sequence.kept_frames
    if width % sequence.smallest_block or height % sequence.smallest_block:
        raise DependenciesUnknown("a size that is not whole blocks")
    if kept_frames > _most_kept_frames(sequence.level, width * height):
        # The driver keeps as many as the level allows, and drops one that others refer to.
        raise DependenciesUnknown(f"HEVC that keeps {kept_frames} frames, more than its level allows")
    return SequenceParameters(
        codec="hevc",
        bits=sequence.luma_bits,
        coded_width=width,
        coded_height=height,
        width=width - right,
        height=height - bottom,
        level=sequence.level,
        references=kept_frames,
        kept_frames=kept_frames,
    )


def _most_kept_frames(level: int, pixels: int) -> int:
    """MaxDpbSize of H.265, A.4.2."""
    most_pixels = next((most for known, most in _HEVC_LEVELS.items() if known >= level), _HEVC_LEVELS[186])
    return next((frames for quarters, frames in ((1, 16), (2, 12), (3, 8)) if 4 * pixels <= quarters * most_pixels), 6)
