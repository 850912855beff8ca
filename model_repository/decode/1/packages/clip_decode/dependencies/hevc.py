"""Dependencies of HEVC packets, from NAL unit and slice headers (ITU-T H.265, 7.3 and 7.4.2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.hevc_parameter_sets import (
    HevcSequence,
    ReferenceSet,
    read_hevc_sequence,
    read_picture_layout,
    read_reference_set,
)
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
_NO_LAYER = -1


def analyze_hevc(packets: Iterable[bytes], extradata: bytes) -> Dependencies:
    """Check that each packet is one picture, and read its flags.

    Raises:
        DependenciesUnknown: several sequences, broken links, parameter sets that change, pictures that are not shown,
            have the place of another, or refer to one that is missing, long-term references, damage.
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
        orders.append(headers.read_order(slices))
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
        sequences: list[HevcSequence] = []
        self._pictures: dict[int, tuple[bool, int]] = {}
        for unit in units:
            kind = unit[0] >> 1 & 63
            if kind not in (_SPS, _PPS) or _is_of_another_layer(unit):
                continue
            bits = BitReader(unescape(unit[2:]))
            if kind == _SPS:
                sequences.append(read_hevc_sequence(bits))
                continue
            number, picture = read_picture_layout(bits)
            if self._pictures.setdefault(number, picture) != picture:
                raise DependenciesUnknown("two picture parameter sets have one number")
        if not sequences or any(sequence != sequences[0] for sequence in sequences):
            raise DependenciesUnknown(f"{len(sequences)} different sequence parameter sets")
        self._sequence = sequences[0]
        self._sequences = 0  # IDR pictures so far.
        self._order = 0  # Of the last picture that orders count from.
        self._access_order = 0  # Of the last picture where decoding may begin.
        # The orders of the pictures that are there, each with the highest temporal layer whose pictures must not be
        # predicted from it.
        self._kept: dict[int, int] = {}

    def read_order(self, slices: Sequence[bytes]) -> tuple[int, int]:
        """Place in display order of the next picture: its sequence, and its place there (8.3.1).

        Raises:
            DependenciesUnknown: it is not shown, or a picture that it refers to is missing or may be left out.
        """
        unit = slices[0]
        kind, layer = unit[0] >> 1 & 63, (unit[1] & 7) - 1
        bits, (may_be_hidden, extra_bits) = self._begin_header(unit)
        for other in slices[1:]:
            self._begin_header(other)
        bits.skip(extra_bits)
        bits.unsigned()
        if may_be_hidden and not bits.flag():
            raise DependenciesUnknown("a picture is not shown")
        if kind in _IDR:
            self._sequences += 1
            self._order = self._access_order = 0
            self._kept = {0: _NO_LAYER}
            return self._sequences, 0
        bits.skip(2 if self._sequence.separate_planes else 0)
        order = nearest(self._order, bits.read(self._sequence.order_bits), self._sequence.order_bits)
        self._follow_references(self._read_references(bits), order, kind, layer)
        if layer == 0 and kind % 2 == 1 and kind not in _LEADING:
            self._order = order
        if kind == _CRA:
            self._access_order = order
        return self._sequences, order

    def _begin_header(self, unit: bytes) -> tuple[BitReader, tuple[bool, int]]:
        """A slice header from after the number of its picture parameter set, and the layout that this gives it."""
        bits = BitReader(unescape(unit[2:_HEADER_BYTES]))
        bits.skip(2 if unit[0] >> 1 & 63 in _RANDOM_ACCESS else 1)
        picture = self._pictures.get(bits.unsigned())
        if picture is None:
            raise DependenciesUnknown("a slice names an unknown picture parameter set")
        return bits, picture

    def _read_references(self, bits: BitReader) -> ReferenceSet:
        sequence = self._sequence
        sets = sequence.reference_sets
        if bits.flag():
            found = sets[bits.read((len(sets) - 1).bit_length())]
        else:
            found = read_reference_set(bits, sets, in_slice=True)
        if (sequence.has_long_term_sets and bits.unsigned()) or (sequence.has_long_term and bits.unsigned()):
            raise DependenciesUnknown("long-term references")
        return found

    def _follow_references(self, references: ReferenceSet, order: int, kind: int, layer: int) -> None:
        """Check that what a picture is predicted from is there, and that a sparse decode keeps it (8.3.2).

        Where it is not, FFmpeg drops frames or makes some up, and hardware goes on without a word.
        """
        kept: dict[int, int] = {}
        for distance, is_used in references.items():
            reference = order + distance
            limit = self._kept.get(reference)
            if limit is not None:
                kept[reference] = limit
            if not is_used:
                continue
            if limit is None or limit >= layer or (reference < self._access_order and kind not in _LEADING):
                raise DependenciesUnknown("a picture refers to one that is missing or may be left out")
        # Even types are not for reference within their temporal layer.
        kept[order] = layer if kind % 2 == 0 else _NO_LAYER
        self._kept = kept
