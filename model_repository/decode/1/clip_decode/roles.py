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


@dataclass(frozen=True)
class Structure:
    """The roles of all packets of a stream.

    Attributes:
        roles: one a packet, in decoding order.
        reorders: whether frames may be shown in another order than they are decoded.
        order: packet numbers in the order they are shown, where types of pictures alone tell it.
    """

    roles: Sequence[Role]
    reorders: bool
    order: Sequence[int] | None = None


class Unproven(Exception):
    """A stream has something that keeps it from being proven: fields, damage, an unusual tool."""


PLAIN = Role()
DROPPABLE = Role(droppable=True)
RESTART = Role(restart=True)
HIDDEN = Role(shown=False)
