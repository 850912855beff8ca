"""Dependencies of HEVC packets, from NAL unit headers (ITU-T H.265, 7.3.1.2 and 7.4.2.2)."""

from __future__ import annotations

from collections.abc import Iterable

from clip_decode.dependencies.nal_units import read_hvcc_sets, read_length_size, split_units
from clip_decode.dependencies.packet_dependencies import (
    DISPOSABLE,
    RANDOM_ACCESS,
    REFERENCE,
    Dependencies,
    DependenciesUnknown,
    PacketFlags,
)

_PARAMETER_SETS = {32, 33, 34}
_END_OF_SEQUENCE = {36, 37}
_IDR = {19, 20}
_CRA = 21
_BROKEN_LINK = {16, 17, 18}
_LAST_PICTURE_TYPE = 31


def analyze_hevc(packets: Iterable[bytes], extradata: bytes) -> Dependencies:
    """Check that each packet is one picture, and read its flags.

    Raises:
        DependenciesUnknown: several sequences, broken links, parameter sets that change, damage.
        IndexError: a header is truncated.
    """
    length_size = read_length_size(extradata, header_bytes=23, offset=21)
    units = read_hvcc_sets(extradata) if length_size else split_units(extradata, 0)
    known = {unit for unit in units if unit and unit[0] >> 1 & 63 in _PARAMETER_SETS}
    # Those of the first packet are known, too, unless they may replace stored ones for the packets after it.
    are_complete = bool(known)
    pictures: list[tuple[int, int]] = []
    ended = False
    for data in packets:
        if ended:
            raise DependenciesUnknown("several sequences")
        slices = []
        for unit in split_units(data, length_size):
            kind = unit[0] >> 1 & 63
            if (unit[0] & 1) << 5 | unit[1] >> 3:
                continue  # Another layer (a second view, an enhancement): not decoded.
            if kind <= _LAST_PICTURE_TYPE:
                slices.append(unit)
            elif kind in _PARAMETER_SETS:
                if (pictures or are_complete) and unit not in known:
                    raise DependenciesUnknown("parameter sets change within the stream")
                known.add(unit)
            ended = ended or kind in _END_OF_SEQUENCE
        pictures.append(_read_picture(slices, first=not pictures))
    top = max((layer for _, layer in pictures), default=0)
    return Dependencies([_flags(kind, layer, top) for kind, layer in pictures], reorders=True)


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
