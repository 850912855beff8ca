"""What each packet is to the others: the proof that packets can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """One packet's part in a stream whose packets give one frame each, or none.

    Attributes:
        shown: whether it gives a frame; False for the hidden frames of VP8 and VP9.
        droppable: whether no other frame is predicted from it.
        restart: whether decoding may begin here: every frame that is decoded from here on and shown
            no earlier than this one is exact. Frames shown earlier may lean on what came before.
    """

    shown: bool = True
    droppable: bool = False
    restart: bool = False


Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CodedFrame:
    """One frame of a packet that may hold several, and the frames that it may be predicted from.

    Attributes:
        packet: number of the packet.
        spans: where its bytes begin and end in the packet; frames may share spans.
        shown: whether it is the one that the packet shows.
        sources: numbers of the frames that it leans on.
    """

    packet: int
    spans: tuple[Span, ...]
    shown: bool
    sources: frozenset[int]


@dataclass(frozen=True)
class Structure:
    """The roles of all packets of a stream.

    Attributes:
        roles: one a packet, in decoding order.
        reorders: whether frames may be shown in another order than they are decoded.
        order: packet numbers in the order they are shown, where types of pictures alone tell it.
        frames: every coded frame in decoding order, where a codec names the sources of each.
    """

    roles: Sequence[Role]
    reorders: bool
    order: Sequence[int] | None = None
    frames: Sequence[CodedFrame] | None = None


class Unproven(Exception):
    """A stream has something that keeps it from being proven: fields, damage, an unusual tool."""


PLAIN = Role()
DROPPABLE = Role(droppable=True)
RESTART = Role(restart=True)
HIDDEN = Role(shown=False)
