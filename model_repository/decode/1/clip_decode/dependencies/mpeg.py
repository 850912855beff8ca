"""Roles of MPEG-1, MPEG-2 and MPEG-4 part 2 packets, from their picture headers."""

from __future__ import annotations

from collections.abc import Iterable

from clip_decode.dependencies.packet_dependencies import DROPPABLE, PLAIN, RESTART, Role, Structure, Unproven

_PICTURE = b"\0\0\x01\0"
_SEQUENCE = b"\0\0\x01\xb3"
_EXTENSION = b"\0\0\x01\xb5"
_VIDEO_OBJECT_PLANE = b"\0\0\x01\xb6"
# "Not coded" planes show nothing new and give no frame: start code, type, time and stuffing are 7 or
# 8 bytes, or one more after a gap of some seconds.
_LEAST_PLANE_BYTES = 10


def read_mpeg2(packets: Iterable[bytes]) -> Structure:
    """Prove that each packet is one frame picture: ISO 13818-2, 6.2.3 (and 11172-2).

    Raises:
        Unproven: field pictures, several pictures in a packet, D pictures.
    """
    roles: list[Role] = []
    for data in packets:
        place = data.find(_PICTURE)
        if place < 0 or data.find(_PICTURE, place + 4) >= 0:
            raise Unproven("a packet is not one picture")
        if _is_field(data, place):
            raise Unproven("field pictures")
        # temporal_reference 10 bits, picture_coding_type 3 bits: 1 I, 2 P, 3 B.
        kind = data[place + 5] >> 3 & 7
        if kind not in (1, 2, 3):
            raise Unproven(f"picture type {kind}")
        # A sequence header sets the quantisation matrices anew.
        restart = kind == 1 and data.find(_SEQUENCE, 0, place) >= 0
        roles.append(RESTART if restart else DROPPABLE if kind == 3 else PLAIN)
    return Structure(roles, DROPPABLE in roles, _find_order(roles))


def _is_field(data: bytes, picture: int) -> bool:
    place = data.find(_EXTENSION, picture, picture + 64)
    # picture_coding_extension: id 8 in four bits, f_codes 16 bits, precision 2, structure 2.
    return place >= 0 and data[place + 4] >> 4 == 8 and data[place + 6] & 3 != 3


def read_mpeg4(packets: Iterable[bytes]) -> Structure:
    """Prove that each packet is one video object plane: ISO 14496-2, 6.2.5.

    Raises:
        Unproven: planes packed together, as in DivX files, or not coded.
    """
    kinds: list[int] = []
    for data in packets:
        place = data.find(_VIDEO_OBJECT_PLANE)
        if place < 0 or data.find(_VIDEO_OBJECT_PLANE, place + 4) >= 0:
            raise Unproven("a packet is not one plane")
        if len(data) - place < _LEAST_PLANE_BYTES:
            raise Unproven("a plane may be not coded")
        kinds.append(data[place + 4] >> 6)
    if 3 in kinds:
        raise Unproven("sprites")
    roles = [(RESTART, PLAIN, DROPPABLE)[kind] for kind in kinds]
    return Structure(roles, DROPPABLE in roles, _find_order(roles))


def _find_order(roles: list[Role]) -> list[int]:
    """B pictures are shown at once; any other when the next that is not B comes."""
    order: list[int] = []
    waiting: int | None = None
    for number, role in enumerate(roles):
        if role.droppable:
            order.append(number)
            continue
        if waiting is not None:
            order.append(waiting)
        waiting = number
    return order if waiting is None else [*order, waiting]


def read_mjpeg(packets: Iterable[bytes]) -> Structure:
    """Prove that each packet is a JPEG image of its own.

    Raises:
        Unproven: fields (two images in a packet), or tables that only some images bring along.
    """
    tables = set()
    count = 0
    for data in packets:
        if data[:2] != b"\xff\xd8" or data.find(b"\xff\xd8\xff", 2) >= 0:
            raise Unproven("a packet is not one image")
        if data.find(b"\xff\xdb") < 0:
            raise Unproven("an image without quantisation tables")
        tables.add(data.find(b"\xff\xc4") >= 0)
        count += 1
    if len(tables) > 1:
        raise Unproven("only some images bring their Huffman tables")
    return Structure([RESTART] * count, reorders=False)
