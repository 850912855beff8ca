"""Roles of H.264 packets, from their NAL unit and slice headers (ITU-T H.264, 7.3 and 7.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clip_decode.decode.nvdec.sequence_parameter_set import skip_scaling_list
from clip_decode.dependencies.bit_reader import BitReader, unescape
from clip_decode.dependencies.nal_units import read_avcc_sets, read_length_size, split_units
from clip_decode.dependencies.packet_dependencies import DROPPABLE, PLAIN, RESTART, Role, Structure, Unproven

_SLICE, _IDR_SLICE, _SPS, _PPS = 1, 5, 7, 8
_HARMLESS = {6, 9, 11, 12, 13}  # SEI, delimiter, end of stream, filler, SPS extension.
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_HEADER_BYTES = 32  # Enough for every field of a slice header that is read here.


@dataclass(frozen=True)
class _Sequence:
    separate_planes: bool
    frame_number_bits: int
    may_be_field: bool
    order_type: int
    order_bits: int
    order_delta_zero: bool


@dataclass(frozen=True)
class _PictureSet:
    order_present: bool
    redundant_present: bool


def read_h264(packets: Iterable[bytes], extradata: bytes, *, reorder_depth: int) -> Structure:
    """Prove that each packet is one whole progressive frame, and say what it is to the others.

    Raises:
        Unproven: fields, several sequences, redundant or partitioned slices, damage.
        EOFError, IndexError: a header is cut off.
    """
    length_size = read_length_size(extradata, header_bytes=7, offset=4)
    units = read_avcc_sets(extradata) if length_size else split_units(extradata, 0)
    known = {unit for unit in units if unit and unit[0] & 31 in (_SPS, _PPS)}
    roles: list[Role] = []
    headers: _Headers | None = None
    for data in packets:
        slices = []
        for unit in split_units(data, length_size):
            kind = unit[0] & 31
            if kind in (_SLICE, _IDR_SLICE):
                slices.append(unit)
            elif kind in (_SPS, _PPS):
                if roles and unit not in known:
                    raise Unproven("parameter sets change on the way")
                known.add(unit)
            elif kind not in _HARMLESS:
                raise Unproven(f"NAL unit type {kind}")
        headers = headers or _Headers(known)
        roles.append(_read_role(slices, headers, first=not roles))
    return Structure(roles, reorders=reorder_depth > 0)


def _read_role(slices: list[bytes], headers: _Headers, *, first: bool) -> Role:
    # A slice that begins at macroblock 0 begins a picture: the first bit of ue(v) 0 is 1.
    begins = [bool(unit[1] & 0x80) for unit in slices]
    if not begins or not begins[0] or sum(begins) != 1:
        raise Unproven("a packet is not one picture")
    if headers.may_be_field and headers.is_field(slices[0]):
        raise Unproven("a packet is one field")
    kinds = {unit[0] & 31 for unit in slices}
    if len(kinds) != 1:
        raise Unproven("a picture mixes slice types")
    if kinds == {_IDR_SLICE}:
        if not first and headers.forgets_earlier(slices[0]):
            raise Unproven("an IDR picture throws away frames before it")
        return RESTART
    return DROPPABLE if all(unit[0] & 0x60 == 0 for unit in slices) else PLAIN


class _Headers:
    """The parameter sets of a stream, which give slice headers their layout."""

    def __init__(self, units: Iterable[bytes]) -> None:
        sequences: list[_Sequence] = []
        self._pictures: dict[int, _PictureSet] = {}
        for unit in units:
            if unit[0] & 31 == _SPS:
                sequences.append(_read_sequence(unescape(unit[1:])))
                continue
            number, picture = _read_picture_set(unescape(unit[1:]))
            if number in self._pictures:
                raise Unproven("two picture parameter sets have one number")
            self._pictures[number] = picture
        if len(sequences) != 1:
            raise Unproven(f"{len(sequences)} sequence parameter sets")
        self._sequence = sequences[0]

    @property
    def may_be_field(self) -> bool:
        """Whether pictures can be single fields, two of which make a frame."""
        return self._sequence.may_be_field

    def is_field(self, unit: bytes) -> bool:
        """field_pic_flag of a slice."""
        self._read_start(bits := BitReader(unescape(unit[1:_HEADER_BYTES])))
        return bits.flag()

    def forgets_earlier(self, unit: bytes) -> bool:
        """no_output_of_prior_pics_flag of an IDR slice (I slices only: no reference lists)."""
        bits = BitReader(unescape(unit[1:_HEADER_BYTES]))
        picture = self._read_start(bits)
        sequence = self._sequence
        bits.skip(1 if sequence.may_be_field else 0)
        bits.unsigned()
        if sequence.order_type == 0:
            bits.skip(sequence.order_bits)
            if picture.order_present:
                bits.signed()
        elif sequence.order_type == 1 and not sequence.order_delta_zero:
            bits.signed()
            if picture.order_present:
                bits.signed()
        if picture.redundant_present:
            bits.unsigned()
        return bits.flag()

    def _read_start(self, bits: BitReader) -> _PictureSet:
        """Read a slice header up to frame_num."""
        bits.unsigned()
        bits.unsigned()
        picture = self._pictures.get(bits.unsigned())
        if picture is None:
            raise Unproven("a slice names an unknown picture parameter set")
        bits.skip(2 if self._sequence.separate_planes else 0)
        bits.skip(self._sequence.frame_number_bits)
        return picture


def _read_sequence(data: bytes) -> _Sequence:
    profile = data[0]
    bits = BitReader(data[3:])
    bits.unsigned()
    separate = False
    if profile in _HIGH_PROFILES:
        chroma = bits.unsigned()
        separate = chroma == 3 and bits.flag()
        bits.unsigned()
        bits.unsigned()
        bits.skip(1)
        if bits.flag():
            for number in range(8 if chroma != 3 else 12):
                skip_scaling_list(bits, 16 if number < 6 else 64)
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
    bits.unsigned()
    bits.skip(1)
    bits.unsigned()
    bits.unsigned()
    may_be_field = not bits.flag()
    return _Sequence(separate, frame_number_bits, may_be_field, order_type, order_bits, delta_zero)


def _read_picture_set(data: bytes) -> tuple[int, _PictureSet]:
    bits = BitReader(data)
    number = bits.unsigned()
    bits.unsigned()
    bits.skip(1)
    order_present = bits.flag()
    if bits.unsigned():
        raise Unproven("slice groups")
    bits.unsigned()
    bits.unsigned()
    bits.skip(3)
    for _ in range(3):
        bits.signed()
    bits.skip(2)
    return number, _PictureSet(order_present, bits.flag())
