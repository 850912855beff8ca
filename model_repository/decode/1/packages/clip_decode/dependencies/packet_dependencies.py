"""What one packet is to the others: the facts that allow packets to be left out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class PacketFlags:
    """One packet of a stream in which a packet holds one frame, or none that is shown.

    Attributes:
        shown: whether the packet gives a frame; False for the hidden frames of VP8 and VP9.
        disposable: whether no other frame is predicted from it.
        random_access: whether decoding may begin here: every frame that is decoded from here on and displayed no
            earlier than this one is exact. Frames displayed earlier may depend on packets before it.
    """

    shown: bool = True
    disposable: bool = False
    random_access: bool = False


REFERENCE = PacketFlags()
DISPOSABLE = PacketFlags(disposable=True)
RANDOM_ACCESS = PacketFlags(random_access=True)
HIDDEN = PacketFlags(shown=False)

ByteRange = tuple[int, int]  # Start and stop within a packet.


@dataclass(frozen=True, slots=True)
class CodedFrame:
    """One frame of a packet that may hold several.

    Attributes:
        packet: number of the packet.
        byte_ranges: its bytes within the packet; frames may share ranges.
        shown: whether it is the frame that the packet shows.
        references: indices of the coded frames that it may be predicted from.
        is_repeat: whether it only shows its one reference, which was decoded before.
    """

    packet: int
    byte_ranges: tuple[ByteRange, ...]
    shown: bool
    references: tuple[int, ...]
    is_repeat: bool = False


@dataclass(frozen=True)
class Dependencies:
    """Dependencies between the packets of a stream.

    Attributes:
        packets: flags of each packet, in decoding order.
        reorders: whether the display order may differ from the decoding order.
        display_order: numbers of the packets that are shown, in display order. A codec leaves it empty where picture
            types alone do not tell it; `analyze_dependencies` always fills it in.
        frames: every coded frame in decoding order, where the codec names the references of each; else None.
    """

    packets: Sequence[PacketFlags]
    reorders: bool
    display_order: Sequence[int] = ()
    frames: Sequence[CodedFrame] | None = None

    @cached_property
    def ranks(self) -> array[int]:
        """For each packet, the index of its frame in display order; -1 for a packet that is not shown."""
        ranks = array("i", [-1]) * len(self.packets)
        for rank, number in enumerate(self.display_order):
            ranks[number] = rank
        return ranks


class DependenciesUnknown(Exception):
    """The dependencies of a stream cannot be established: it has fields, damage or an unusual coding tool.

    The remedy is a full decode.
    """
