"""Roles of HEVC packets, from their NAL unit headers (ITU-T H.265, 7.3.1.2 and 7.4.2.2)."""

from __future__ import annotations

from collections.abc import Iterable

from clip_decode.dependencies.nal_units import read_hvcc_sets, read_length_size, split_units
from clip_decode.dependencies.packet_dependencies import PLAIN, RESTART, Role, Structure, Unproven

_PARAMETER_SETS = {32, 33, 34}
_END_OF_SEQUENCE = {36, 37}
_IDR = {19, 20}
_CRA = 21
_BROKEN_LINK = {16, 17, 18}
_LAST_PICTURE_TYPE = 31


def read_hevc(packets: Iterable[bytes], extradata: bytes) -> Structure:
    """Prove that each packet is one picture, and say what it is to the others.

    Raises:
        Unproven: several sequences, broken links, parameter sets that change, damage.
        IndexError: a header is cut off.
    """
    length_size = read_length_size(extradata, header_bytes=23, offset=21)
    units = read_hvcc_sets(extradata) if length_size else split_units(extradata, 0)
    known = {unit for unit in units if unit and unit[0] >> 1 & 63 in _PARAMETER_SETS}
    pictures: list[tuple[int, int]] = []
    ended = False
    for data in packets:
        if ended:
            raise Unproven("several sequences")
        slices = []
        for unit in split_units(data, length_size):
            kind = unit[0] >> 1 & 63
            if (unit[0] & 1) << 5 | unit[1] >> 3:
                continue  # Another layer (a second eye, an enhancement): not decoded.
            if kind <= _LAST_PICTURE_TYPE:
                slices.append(unit)
            elif kind in _PARAMETER_SETS:
                if pictures and unit not in known:
                    raise Unproven("parameter sets change on the way")
                known.add(unit)
            ended = ended or kind in _END_OF_SEQUENCE
        pictures.append(_read_picture(slices, first=not pictures))
    top = max((layer for _, layer in pictures), default=0)
    return Structure([_role(kind, layer, top) for kind, layer in pictures], reorders=True)


def _read_picture(slices: list[bytes], *, first: bool) -> tuple[int, int]:
    """Type and temporal layer of the picture that these slices are."""
    begins = [bool(unit[2] & 0x80) for unit in slices]
    if not begins or not begins[0] or sum(begins) != 1:
        raise Unproven("a packet is not one picture")
    kinds = {unit[0] >> 1 & 63 for unit in slices}
    kind = kinds.pop()
    if kinds or kind in _BROKEN_LINK or 10 <= kind < 16 or kind > _CRA:
        raise Unproven(f"picture type {kind}")
    forgets_earlier = bool(slices[0][2] & 0x40)
    if kind in _IDR and forgets_earlier and not first:
        raise Unproven("an IDR picture throws away frames before it")
    return kind, (slices[0][1] & 7) - 1


def _role(kind: int, layer: int, top: int) -> Role:
    if kind in _IDR or kind == _CRA:
        return RESTART
    # Even types are not used for reference within their temporal layer; higher layers may use them.
    return Role(droppable=True) if kind % 2 == 0 and layer == top else PLAIN
