"""Dependencies of H.264 packets, from NAL unit and slice headers (ITU-T H.264, 7.3 and 7.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.nal_units import nearest, read_avcc_sets, read_length_size, split_units, unescape
from clip_decode.dependencies.packet_dependencies import (
    DISPOSABLE,
    RANDOM_ACCESS,
    REFERENCE,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)

_SLICE, _IDR_SLICE, _SPS, _PPS = 1, 5, 7, 8
_IGNORED = {6, 9, 11, 12, 13}  # SEI, delimiter, end of stream, filler, SPS extension.
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
# The first packet of x264 says which version encoded the stream. FFmpeg works around defects of versions up to 33, and
# of those up to 150 in 4:4:4.
_X264 = re.compile(rb"x264 - core (\d{1,9})")
_LAST_EARLY_X264, _LAST_EARLY_X264_WITH_444 = 33, 150
_HEADER_BYTES = 32  # Enough for every field of a slice header that is read here.


@dataclass(frozen=True)
class H264Sequence:
    """A sequence parameter set, up to frame_mbs_only_flag.

    Attributes:
        chroma_format: 1 for 4:2:0, 3 for 4:4:4.
        luma_bits, chroma_bits: bits of a sample.
        separate_planes: whether the three planes of 4:4:4 are coded as separate pictures.
        frame_number_bits: length of frame_num in a slice header.
        order_type: pic_order_cnt_type.
        order_bits: length of pic_order_cnt_lsb in a slice header.
        order_delta_zero: delta_pic_order_always_zero_flag.
        references: number of reference frames that a decoder keeps.
        may_have_gaps: whether frame numbers may have gaps.
        coded_width, coded_height: pixels, whole macroblocks; the height is wrong where `may_be_field`.
        may_be_field: whether a picture may be a single field, two of which make a frame.
    """

    chroma_format: int
    luma_bits: int
    chroma_bits: int
    separate_planes: bool
    frame_number_bits: int
    order_type: int
    order_bits: int
    order_delta_zero: bool
    references: int
    may_have_gaps: bool
    coded_width: int
    coded_height: int
    may_be_field: bool


@dataclass(frozen=True)
class _PictureParameters:
    order_present: bool
    redundant_present: bool


def analyze_h264(packets: Iterable[bytes], extradata: bytes, *, reorder_depth: int) -> Dependencies:
    """Check that each packet is one complete progressive frame, and read its flags.

    Raises:
        DependenciesUnknown: fields, several sequences, redundant or partitioned slices, an early x264, a missing
            picture, damage.
        EOFError, IndexError: a header is truncated.
    """
    length_size = read_length_size(extradata, header_bytes=7, offset=4)
    units = read_avcc_sets(extradata) if length_size else split_units(extradata, 0)
    known = {unit for unit in units if unit and unit[0] & 31 in (_SPS, _PPS)}
    flags: list[PacketFlags] = []
    orders: list[tuple[int, int]] = []
    headers: _SliceHeaders | None = None
    for data in packets:
        slices = []
        for unit in split_units(data, length_size):
            kind = unit[0] & 31
            if kind in (_SLICE, _IDR_SLICE):
                slices.append(unit)
            elif kind in (_SPS, _PPS):
                if flags and unit not in known:
                    raise DependenciesUnknown("parameter sets change within the stream")
                known.add(unit)
            elif kind not in _IGNORED:
                raise DependenciesUnknown(f"NAL unit type {kind}")
        if headers is None:
            headers = _SliceHeaders(known)
            headers.check_encoder(data)
        flags.append(_read_flags(slices))
        orders.append(headers.read_order(slices[0]))
    # The sort is stable: where slices state no order, it is that of decoding.
    return Dependencies(flags, reorder_depth > 0, sorted(range(len(orders)), key=orders.__getitem__))


def _read_flags(slices: list[bytes]) -> PacketFlags:
    # A slice that begins at macroblock 0 begins a picture: the first bit of ue(v) 0 is 1.
    begins = [bool(unit[1] & 0x80) for unit in slices]
    if not begins or not begins[0] or sum(begins) != 1:
        raise DependenciesUnknown("a packet is not one picture")
    kinds = {unit[0] & 31 for unit in slices}
    if len(kinds) != 1:
        raise DependenciesUnknown("a picture mixes slice types")
    if kinds == {_IDR_SLICE}:
        return RANDOM_ACCESS
    return DISPOSABLE if all(unit[0] & 0x60 == 0 for unit in slices) else REFERENCE


class _SliceHeaders:
    """Reads the slice headers of one picture after the other. Their layout depends on the parameter sets."""

    def __init__(self, units: Iterable[bytes]) -> None:
        sequences: list[H264Sequence] = []
        self._pictures: dict[int, _PictureParameters] = {}
        for unit in units:
            if unit[0] & 31 == _SPS:
                payload = unescape(unit[1:])
                sequences.append(read_h264_sequence(BitReader(payload[3:]), profile=payload[0]))
                continue
            number, picture = _read_picture_parameters(unescape(unit[1:]))
            if number in self._pictures:
                raise DependenciesUnknown("two picture parameter sets have one number")
            self._pictures[number] = picture
        if len(sequences) != 1:
            raise DependenciesUnknown(f"{len(sequences)} sequence parameter sets")
        self._sequence = sequences[0]
        self._sequences = 0  # IDR pictures so far.
        # Of the last picture that others may refer to.
        self._frame_number = self._order = 0

    def check_encoder(self, first_packet: bytes) -> None:
        """Raise DependenciesUnknown where FFmpeg needs the first packet to decode the others."""
        found = _X264.search(first_packet)
        early = _LAST_EARLY_X264_WITH_444 if self._sequence.chroma_format == 3 else _LAST_EARLY_X264
        if found and int(found[1]) <= early:
            raise DependenciesUnknown(f"x264 {int(found[1])} has defects that only the first packet tells")

    def read_order(self, unit: bytes) -> tuple[int, int]:
        """Place in display order of the next picture: its sequence, and its place there (8.2.1).

        unit: its first slice.

        Raises:
            DependenciesUnknown: a field, a picture is missing, an IDR picture discards frames before it.
        """
        bits = BitReader(unescape(unit[1:_HEADER_BYTES]))
        bits.unsigned()
        bits.unsigned()
        picture = self._pictures.get(bits.unsigned())
        if picture is None:
            raise DependenciesUnknown("a slice names an unknown picture parameter set")
        sequence = self._sequence
        bits.skip(2 if sequence.separate_planes else 0)
        frame_number = bits.read(sequence.frame_number_bits)
        expected = (self._frame_number + 1) % (1 << sequence.frame_number_bits)
        if sequence.may_be_field and bits.flag():
            raise DependenciesUnknown("a packet is one field")
        is_idr = unit[0] & 31 == _IDR_SLICE
        if is_idr:
            bits.unsigned()
            self._sequences += 1
            self._order = 0
        elif frame_number != expected and not sequence.may_have_gaps:
            raise DependenciesUnknown("a frame that others refer to is missing")
        order, bottom = 0, 0
        if sequence.order_type == 0:
            order = nearest(self._order, bits.read(sequence.order_bits), sequence.order_bits)
            bottom = bits.signed() if picture.order_present else 0
        elif sequence.order_type == 1 and not sequence.order_delta_zero:
            bits.signed()
            if picture.order_present:
                bits.signed()
        if is_idr:
            if picture.redundant_present:
                bits.unsigned()
            # I slices only: no reference lists.
            if bits.flag() and self._sequences > 1:
                raise DependenciesUnknown("an IDR picture discards frames before it")
        if unit[0] & 0x60:
            self._frame_number, self._order = frame_number, order
        return self._sequences, order + min(bottom, 0)


def read_h264_sequence(bits: BitReader, *, profile: int) -> H264Sequence:
    """Read a sequence parameter set from after level_idc up to frame_mbs_only_flag (7.3.2.1.1).

    Raises:
        EOFError: the parameter set is truncated.
    """
    bits.unsigned()
    chroma_format, luma_bits, chroma_bits, separate = 1, 8, 8, False
    if profile in _HIGH_PROFILES:
        chroma_format = bits.unsigned()
        separate = chroma_format == 3 and bits.flag()
        luma_bits, chroma_bits = 8 + bits.unsigned(), 8 + bits.unsigned()
        bits.skip(1)
        if bits.flag():
            for number in range(8 if chroma_format != 3 else 12):
                _skip_scaling_list(bits, 16 if number < 6 else 64)
    frame_number_bits = bits.unsigned() + 4
    order_type = bits.unsigned()
    order_bits, delta_zero = 0, False
    if order_type == 0:
        order_bits = bits.unsigned() + 4
    elif order_type == 1:
        delta_zero = bits.flag()
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    return H264Sequence(
        chroma_format=chroma_format,
        luma_bits=luma_bits,
        chroma_bits=chroma_bits,
        separate_planes=separate,
        frame_number_bits=frame_number_bits,
        order_type=order_type,
        order_bits=order_bits,
        order_delta_zero=delta_zero,
        references=bits.unsigned(),
        may_have_gaps=bits.flag(),
        coded_width=16 * (bits.unsigned() + 1),
        coded_height=16 * (bits.unsigned() + 1),
        may_be_field=not bits.flag(),
    )


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    if not bits.flag():
        return
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _read_picture_parameters(data: bytes) -> tuple[int, _PictureParameters]:
    """Number and content of a picture parameter set (7.3.2.2)."""
    bits = BitReader(data)
    number = bits.unsigned()
    bits.unsigned()
    bits.skip(1)
    order_present = bits.flag()
    if bits.unsigned():
        raise DependenciesUnknown("slice groups")
    bits.unsigned()
    bits.unsigned()
    bits.skip(3)
    for _ in range(3):
        bits.signed()
    bits.skip(2)
    return number, _PictureParameters(order_present, bits.flag())
