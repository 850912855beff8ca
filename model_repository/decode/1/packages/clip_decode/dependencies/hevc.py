"""Dependencies of HEVC packets, from NAL unit and slice headers (ITU-T H.265, 7.3 and 7.4.2.2)."""

from __future__ import annotations

from collections.abc import Iterable

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.nal_units import nearest, read_hvcc_sets, read_length_size, split_units, unescape
from clip_decode.dependencies.packet_dependencies import (
    DISPOSABLE,
    RANDOM_ACCESS,
    REFERENCE,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)

_SPS, _PPS = 33, 34
_PARAMETER_SETS = {32, _SPS, _PPS}
_END_OF_SEQUENCE = {36, 37}
_IDR = {19, 20}
_CRA = 21
_BROKEN_LINK = {16, 17, 18}
_LAST_PICTURE_TYPE = 31
_RANDOM_ACCESS = range(16, 24)
_LEADING = range(6, 10)
_HEADER_BYTES = 64  # Enough for every field that is read here.


def analyze_hevc(packets: Iterable[bytes], extradata: bytes) -> Dependencies:
    """Check that each packet is one picture, and read its flags.

    Raises:
        DependenciesUnknown: several sequences, broken links, parameter sets that change, pictures that are not shown or
            have the place of another, damage.
        EOFError, IndexError: a header is truncated.
    """
    length_size = read_length_size(extradata, header_bytes=23, offset=21)
    units = read_hvcc_sets(extradata) if length_size else split_units(extradata, 0)
    known = {unit for unit in units if unit and unit[0] >> 1 & 63 in _PARAMETER_SETS}
    # Those of the first packet are known, too, unless they may replace stored ones for the packets after it.
    are_complete = bool(known)
    pictures: list[tuple[int, int]] = []
    orders: list[tuple[int, int]] = []
    headers: _SliceHeaders | None = None
    ended = False
    for data in packets:
        if ended:
            raise DependenciesUnknown("several sequences")
        slices = []
        for unit in split_units(data, length_size):
            kind = unit[0] >> 1 & 63
            if _is_of_another_layer(unit):
                continue
            if kind <= _LAST_PICTURE_TYPE:
                slices.append(unit)
            elif kind in _PARAMETER_SETS:
                if (pictures or are_complete) and unit not in known:
                    raise DependenciesUnknown("parameter sets change within the stream")
                known.add(unit)
            ended = ended or kind in _END_OF_SEQUENCE
        headers = headers or _SliceHeaders(known)
        pictures.append(_read_picture(slices, first=not pictures))
        orders.append(headers.read_order(slices[0]))
    if len(set(orders)) < len(orders):
        raise DependenciesUnknown("two pictures have one place in display order")
    top = max((layer for _, layer in pictures), default=0)
    flags = [_flags(kind, layer, top) for kind, layer in pictures]
    return Dependencies(flags, True, sorted(range(len(orders)), key=orders.__getitem__))


def _is_of_another_layer(unit: bytes) -> bool:
    """Whether it is of a second view or an enhancement, which is not decoded."""
    return bool((unit[0] & 1) << 5 | unit[1] >> 3)


def _read_picture(slices: list[bytes], *, first: bool) -> tuple[int, int]:
    """NAL unit type and temporal layer of the picture that these slices make."""
    begins = [bool(unit[2] & 0x80) for unit in slices]
    if not begins or not begins[0] or sum(begins) != 1:
        raise DependenciesUnknown("a packet is not one picture")
    kinds = {unit[0] >> 1 & 63 for unit in slices}
    kind = kinds.pop()
    if kinds or kind in _BROKEN_LINK or 10 <= kind < 16 or kind > _CRA:
        raise DependenciesUnknown(f"picture type {kind}")
    discards_earlier = bool(slices[0][2] & 0x40)
    if kind in _IDR and discards_earlier and not first:
        raise DependenciesUnknown("an IDR picture discards frames before it")
    return kind, (slices[0][1] & 7) - 1


def _flags(kind: int, layer: int, top: int) -> PacketFlags:
    if kind in _IDR or kind == _CRA:
        return RANDOM_ACCESS
    # Even types are not used for reference within their temporal layer; higher layers may use them.
    return DISPOSABLE if kind % 2 == 0 and layer == top else REFERENCE


class _SliceHeaders:
    """Reads the slice headers of one picture after the other. Their layout depends on the parameter sets."""

    def __init__(self, units: Iterable[bytes]) -> None:
        layouts: set[tuple[bool, int]] = set()
        self._pictures: dict[int, tuple[bool, int]] = {}
        for unit in units:
            kind = unit[0] >> 1 & 63
            if kind not in (_SPS, _PPS) or _is_of_another_layer(unit):
                continue
            bits = BitReader(unescape(unit[2:]))
            if kind == _SPS:
                layouts.add(_read_order_layout(bits))
                continue
            number, picture = read_picture_layout(bits)
            if self._pictures.setdefault(number, picture) != picture:
                raise DependenciesUnknown("two picture parameter sets have one number")
        if len(layouts) != 1:
            raise DependenciesUnknown(f"{len(layouts)} different sequence parameter sets")
        self._separate_planes, self._order_bits = layouts.pop()
        self._sequences = 0  # IDR pictures so far.
        self._order = 0  # Of the last picture that orders count from.

    def read_order(self, unit: bytes) -> tuple[int, int]:
        """Place in display order of the next picture: its sequence, and its place there (8.3.1).

        unit: its first slice.

        Raises:
            DependenciesUnknown: it is not shown.
        """
        kind, layer = unit[0] >> 1 & 63, (unit[1] & 7) - 1
        bits = BitReader(unescape(unit[2:_HEADER_BYTES]))
        bits.skip(2 if kind in _RANDOM_ACCESS else 1)
        picture = self._pictures.get(bits.unsigned())
        if picture is None:
            raise DependenciesUnknown("a slice names an unknown picture parameter set")
        may_be_hidden, extra_bits = picture
        bits.skip(extra_bits)
        bits.unsigned()
        if may_be_hidden and not bits.flag():
            raise DependenciesUnknown("a picture is not shown")
        if kind in _IDR:
            self._sequences += 1
            self._order = 0
            return self._sequences, 0
        bits.skip(2 if self._separate_planes else 0)
        order = nearest(self._order, bits.read(self._order_bits), self._order_bits)
        if is_order_base(kind, layer):
            self._order = order
        return self._sequences, order


def is_order_base(kind: int, layer: int) -> bool:
    """Whether the orders of the pictures behind one of this NAL unit type and temporal layer count from it (8.3.1)."""
    return layer == 0 and (kind % 2 == 1 or kind in _RANDOM_ACCESS) and kind not in _LEADING


def read_picture_layout(bits: BitReader) -> tuple[int, tuple[bool, int]]:
    """Read a picture parameter set from after its NAL unit header (7.3.2.3).

    Returns:
        Its number; whether slices have pic_output_flag, and how many extra bits their headers have.
    """
    number = bits.unsigned()
    bits.unsigned()
    bits.skip(1)
    return number, (bits.flag(), bits.read(3))


def skip_layer_levels(bits: BitReader, layers: int) -> None:
    """Skip the profiles and levels of the temporal layers of a sequence parameter set (7.3.3)."""
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.skip((88 if has_profile else 0) + (8 if has_level else 0))


def _read_order_layout(bits: BitReader) -> tuple[bool, int]:
    """Whether planes are separate, and the length of slice_pic_order_cnt_lsb (7.3.2.2)."""
    bits.skip(4)
    layers = bits.read(3)
    bits.skip(1 + 96)
    skip_layer_levels(bits, layers)
    bits.unsigned()
    separate_planes = bits.unsigned() == 3 and bits.flag()
    bits.unsigned()
    bits.unsigned()
    for _ in range(4 if bits.flag() else 0):
        bits.unsigned()
    bits.unsigned()
    bits.unsigned()
    return separate_planes, bits.unsigned() + 4
