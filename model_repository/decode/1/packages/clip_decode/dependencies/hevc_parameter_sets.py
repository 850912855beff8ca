"""What the parameter sets of an HEVC stream say (ITU-T H.265, 7.3.2 and 7.3.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_LARGEST_SIZE = 3  # log2_min_luma_coding_block_size_minus3 of the largest block, 64 x 64

# Distances in display order from a picture to those that it keeps, and whether it may be predicted from each. Those
# before it come first, the nearest first: other sets may name them by their place.
ReferenceSet = Mapping[int, bool]


@dataclass(frozen=True)
class HevcSequence:
    """A sequence parameter set, up to what slice headers need.

    Attributes:
        profile: general_profile_idc.
        is_progressive, is_interlaced: what it says of the source.
        level: general_level_idc.
        chroma_format: 1 for 4:2:0, 3 for 4:4:4.
        separate_planes: whether the three planes of 4:4:4 are coded as separate pictures.
        width, height: coded pixels.
        crop: chroma samples cropped on the left, on the right, at the top and at the bottom.
        luma_bits, chroma_bits: bits of a sample.
        order_bits: length of slice_pic_order_cnt_lsb in a slice header.
        kept_frames: frames that a decoder keeps at one time.
        smallest_block: pixels of a side; width and height are whole blocks.
        reference_sets: those that a slice may name by number.
        has_long_term: whether a picture may have long-term references.
        has_long_term_sets: whether slices may name them by number.
    """

    profile: int
    is_progressive: bool
    is_interlaced: bool
    level: int
    chroma_format: int
    separate_planes: bool
    width: int
    height: int
    crop: tuple[int, int, int, int]
    luma_bits: int
    chroma_bits: int
    order_bits: int
    kept_frames: int
    smallest_block: int
    reference_sets: Sequence[ReferenceSet]
    has_long_term: bool
    has_long_term_sets: bool


def read_hevc_sequence(bits: BitReader) -> HevcSequence:
    """Read a sequence parameter set from after its NAL unit header up to long_term_ref_pics_present_flag.

    Raises:
        DependenciesUnknown: blocks of a size that the standard does not have.
        EOFError, IndexError: it is truncated.
    """
    bits.skip(4)
    layers = bits.read(3)
    bits.skip(1 + 3)
    profile = bits.read(5)
    bits.skip(32)
    is_progressive, is_interlaced = bits.flag(), bits.flag()
    bits.skip(46)
    level = bits.read(8)
    _skip_layer_levels(bits, layers)
    bits.unsigned()
    chroma_format = bits.unsigned()
    separate_planes = chroma_format == 3 and bits.flag()
    width, height = bits.unsigned(), bits.unsigned()
    has_crop = bits.flag()
    left, right, top, bottom = (bits.unsigned() if has_crop else 0 for _ in range(4))
    luma_bits, chroma_bits = 8 + bits.unsigned(), 8 + bits.unsigned()
    order_bits = bits.unsigned() + 4
    kept_frames = 0
    for _ in range(layers + 1 if bits.flag() else 1):
        kept_frames = bits.unsigned() + 1
        bits.unsigned()
        bits.unsigned()
    size = bits.unsigned()
    if size > _LARGEST_SIZE:  # checked at once: a power of two of a made-up number may not fit into memory
        raise DependenciesUnknown("coding blocks of more than 64 x 64 pixels")
    for _ in range(5):
        bits.unsigned()
    if bits.flag() and bits.flag():
        _skip_scaling_lists(bits)
    bits.skip(2)
    if bits.flag():
        bits.skip(8)
        bits.unsigned()
        bits.unsigned()
        bits.skip(1)
    sets: list[ReferenceSet] = []
    for _ in range(bits.unsigned()):
        sets.append(read_reference_set(bits, sets))
    has_long_term = bits.flag()
    return HevcSequence(
        profile=profile,
        is_progressive=is_progressive,
        is_interlaced=is_interlaced,
        level=level,
        chroma_format=chroma_format,
        separate_planes=separate_planes,
        width=width,
        height=height,
        crop=(left, right, top, bottom),
        luma_bits=luma_bits,
        chroma_bits=chroma_bits,
        order_bits=order_bits,
        kept_frames=kept_frames,
        smallest_block=8 << size,
        reference_sets=sets,
        has_long_term=has_long_term,
        has_long_term_sets=has_long_term and bits.unsigned() > 0,
    )


def read_reference_set(bits: BitReader, earlier: Sequence[ReferenceSet], *, in_slice: bool = False) -> ReferenceSet:
    """A short-term reference picture set (7.3.7, 7.4.8).

    Args:
        bits: from where it begins.
        earlier: the sets that it may be predicted from.
        in_slice: whether it is in a slice header, not in a sequence parameter set.

    Raises:
        EOFError, IndexError: it is truncated, or predicted from a set that is not there.
    """
    found: dict[int, bool] = {}
    if earlier and bits.flag():
        base = earlier[-1 - bits.unsigned() if in_slice else -1]
        is_negative = bits.flag()
        shift = bits.unsigned() + 1
        shift = -shift if is_negative else shift
        for distance in (*base, 0):
            is_used = bits.flag()
            if (is_used or bits.flag()) and distance + shift:
                found[distance + shift] = is_used
        return dict(sorted(found.items(), key=lambda item: (item[0] > 0, abs(item[0]))))
    counts = [(-1, bits.unsigned()), (1, bits.unsigned())]
    for sign, count in counts:
        distance = 0
        for _ in range(count):
            distance += sign * (bits.unsigned() + 1)
            found[distance] = bits.flag()
    return found


def read_picture_layout(bits: BitReader) -> tuple[int, tuple[bool, int]]:
    """Read a picture parameter set from after its NAL unit header.

    Returns:
        Its number; whether slices have pic_output_flag, and how many extra bits their headers have.

    Raises:
        EOFError: it is truncated.
    """
    number = bits.unsigned()
    bits.unsigned()
    bits.skip(1)
    return number, (bits.flag(), bits.read(3))


def _skip_layer_levels(bits: BitReader, layers: int) -> None:
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.skip((88 if has_profile else 0) + (8 if has_level else 0))


def _skip_scaling_lists(bits: BitReader) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.flag():
                bits.unsigned()
                continue
            if size > 1:
                bits.signed()
            for _ in range(min(64, 1 << (4 + 2 * size))):
                bits.signed()
