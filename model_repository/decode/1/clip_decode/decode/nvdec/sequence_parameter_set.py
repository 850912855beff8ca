"""What the sequence parameter set of a stream says of its pictures (H.264, 7.3.2.1 and annex E; H.265, 7.3.2.2).

A hardware decoder is set up by these facts, and one that is kept may only take another stream where it covers them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from clip_decode.dependencies.bit_reader import BitReader, unescape
from clip_decode.dependencies.packet_dependencies import Unproven

_H264_PROFILES = (66, 77, 100, 110)  # Baseline, Main, High, High 10.
_HEVC_PROFILES = (1, 2, 3)  # Main, Main 10, Main Still Picture.
_EXTENDED_ASPECT = 255


@dataclass(frozen=True)
class Sequence:
    """The pictures of a stream: 4:2:0, progressive, cut at the right and at the bottom only.

    Attributes:
        codec: "h264" or "hevc".
        bits: of a sample, luma and chroma.
        coded_width, coded_height: in pixels, whole blocks.
        width, height: in pixels, what is shown.
        level: its number in the stream; it bounds the frames to keep.
        references: frames that others may be predicted from at one time.
        kept: frames that a decoder may have to keep at one time.
    """

    codec: str
    bits: int
    coded_width: int
    coded_height: int
    width: int
    height: int
    level: int
    references: int
    kept: int

    def covers(self, other: Sequence) -> bool:
        """Whether a decoder for this stream decodes the other one as it is: pictures alike, no more of them to keep."""
        needs = (other.level, other.references, other.kept)
        same = replace(other, level=self.level, references=self.references, kept=self.kept) == self
        return same and all(a >= b for a, b in zip((self.level, self.references, self.kept), needs, strict=True))


def read_h264_sequence(unit: bytes) -> Sequence:
    """Read a sequence parameter set, NAL unit header included.

    Raises:
        Unproven: fields, another chroma format or depth, a profile with rare tools, frame numbers with gaps.
        EOFError: it is cut off.
    """
    profile, level = unit[1], unit[3]
    if profile not in _H264_PROFILES:
        raise Unproven(f"H.264 profile {profile}")
    bits = BitReader(unescape(unit[4:]))
    bits.unsigned()
    depth = 8
    if profile >= 100:
        if bits.unsigned() != 1:
            raise Unproven("a chroma format other than 4:2:0")
        depth = _read_depth(bits)
        bits.skip(1)
        if bits.flag():
            for number in range(8):
                skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.unsigned()
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.skip(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    references = bits.unsigned()
    if bits.flag():
        raise Unproven("frame numbers may have gaps")
    width, height = 16 * (bits.unsigned() + 1), 16 * (bits.unsigned() + 1)
    if not bits.flag():
        raise Unproven("pictures may be fields")
    bits.skip(1)
    right = bottom = 0
    if bits.flag():
        right, bottom = _read_crop(bits)
    kept = _read_h264_kept(bits) if bits.flag() else None
    return Sequence(
        codec="h264",
        bits=depth,
        coded_width=width,
        coded_height=height,
        width=width - right,
        height=height - bottom,
        level=level,
        references=references,
        # What is not said is the most that any level allows.
        kept=16 if kept is None else kept,
    )


def _read_depth(bits: BitReader) -> int:
    """Bits of a sample."""
    luma, chroma = 8 + bits.unsigned(), 8 + bits.unsigned()
    if luma != chroma or luma not in (8, 10):
        raise Unproven(f"luma of {luma} bits and chroma of {chroma}")
    return luma


def _read_crop(bits: BitReader) -> tuple[int, int]:
    """Pixels cut at the right and at the bottom."""
    # In units of a chroma sample: two pixels of 4:2:0.
    left, right, top, bottom = (2 * bits.unsigned() for _ in range(4))
    if left or top:
        raise Unproven("pictures are cut at the left or at the top")
    return right, bottom


def _read_h264_kept(bits: BitReader) -> int | None:
    """max_dec_frame_buffering of the usability information, which stands at its very end."""
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
    has_hrd = False
    for _ in range(2):
        if bits.flag():
            has_hrd = True
            _skip_hrd(bits)
    bits.skip(2 if has_hrd else 1)
    if not bits.flag():
        return None
    bits.skip(1)
    for _ in range(5):
        bits.unsigned()
    return bits.unsigned()


def _skip_hrd(bits: BitReader) -> None:
    count = bits.unsigned() + 1
    bits.skip(8)
    for _ in range(count):
        bits.unsigned()
        bits.unsigned()
        bits.skip(1)
    bits.skip(20)


def skip_scaling_list(bits: BitReader, size: int) -> None:
    """Step over one scaling list of H.264, present or not."""
    if not bits.flag():
        return
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def read_hevc_sequence(unit: bytes) -> Sequence:
    """Read a sequence parameter set, NAL unit header included.

    Raises:
        Unproven: another chroma format or depth, an extended profile.
        EOFError: it is cut off.
    """
    bits = BitReader(unescape(unit[2:]))
    bits.skip(4)
    layers = bits.read(3)
    bits.skip(1)
    bits.skip(3)
    profile = bits.read(5)
    if profile not in _HEVC_PROFILES:
        raise Unproven(f"HEVC profile {profile}")
    bits.skip(32 + 48)
    level = bits.read(8)
    _skip_layer_levels(bits, layers)
    bits.unsigned()
    if bits.unsigned() != 1:
        raise Unproven("a chroma format other than 4:2:0")
    width, height = bits.unsigned(), bits.unsigned()
    right = bottom = 0
    if bits.flag():
        right, bottom = _read_crop(bits)
    depth = _read_depth(bits)
    bits.unsigned()
    kept = 0
    for _ in range(layers + 1 if bits.flag() else 1):
        kept = bits.unsigned() + 1
        bits.unsigned()
        bits.unsigned()
    smallest = 3 + bits.unsigned()
    block = 1 << smallest
    if width % block or height % block:
        raise Unproven("a size that is not whole blocks")
    return Sequence(
        codec="hevc",
        bits=depth,
        coded_width=width,
        coded_height=height,
        width=width - right,
        height=height - bottom,
        level=level,
        references=kept,
        kept=kept,
    )


def _skip_layer_levels(bits: BitReader, layers: int) -> None:
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.skip((88 if has_profile else 0) + (8 if has_level else 0))
