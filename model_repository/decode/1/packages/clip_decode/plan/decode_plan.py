"""Which packets, or parts of packets, are decoded for the wanted frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clip_decode.dependencies.packet_dependencies import ByteRange, CodedFrame, Dependencies


@dataclass(frozen=True)
class DecodeSegment:
    """Packets to decode one after the other, from a random access point on.

    Attributes:
        packets: packet numbers in decoding order.
        shown: those of them that give a frame.
        byte_ranges: for a packet number, the bytes to decode; a packet that is not named is decoded whole.
    """

    packets: Sequence[int]
    shown: frozenset[int]
    byte_ranges: Mapping[int, Sequence[ByteRange]] = field(default_factory=dict)


def plan_segments(dependencies: Dependencies, wanted: frozenset[int]) -> list[DecodeSegment]:
    """The segments that wanted frames depend on, in decoding order.

    Args:
        dependencies: of the stream, with its display order.
        wanted: frame indices in display order.
    """
    order = dependencies.display_order
    rank_of = {number: rank for rank, number in enumerate(order)}
    targets = sorted(order[index] for index in wanted)
    # The first packet can be one that an edit list discards; it must be decoded all the same.
    access_points = [
        number
        for number, packet in enumerate(dependencies.packets)
        if packet.random_access and (number in rank_of or number == 0)
    ]
    stretches: list[tuple[int, int]] = []  # First and last packet number.
    place = -1
    for target in targets:
        while place + 1 < len(access_points) and access_points[place + 1] <= target:
            place += 1
        # A frame that is displayed before its key frame depends on the GOP before it.
        back = place
        while back > 0 and rank_of[target] < rank_of.get(access_points[back], -1):
            back -= 1
        start = access_points[back]
        while stretches and start <= stretches[-1][1]:
            start = min(start, stretches.pop()[0])
        stretches.append((start, target))
    if dependencies.frames is not None:
        return _follow_references(dependencies.frames, stretches, set(targets))
    return [_drop_disposable(dependencies, rank_of, set(targets), first, last) for first, last in stretches]


def _drop_disposable(
    dependencies: Dependencies, rank_of: dict[int, int], targets: set[int], first: int, last: int
) -> DecodeSegment:
    first_rank = rank_of.get(first, -1)
    packets = [
        number
        for number in range(first, last + 1)
        if (not dependencies.packets[number].disposable or number in targets)
        and rank_of.get(number, first_rank) >= first_rank
    ]
    return DecodeSegment(packets, frozenset(number for number in packets if number in rank_of))


def _follow_references(
    frames: Sequence[CodedFrame], stretches: Sequence[tuple[int, int]], targets: set[int]
) -> list[DecodeSegment]:
    by_packet: dict[int, list[CodedFrame]] = {}
    shown = (number for number, frame in enumerate(frames) if frame.shown and frame.packet in targets)
    for frame in _with_references(frames, shown):
        by_packet.setdefault(frame.packet, []).append(frame)
    segments = []
    for first, last in stretches:
        packets = [number for number in range(first, last + 1) if number in by_packet]
        segments.append(
            DecodeSegment(
                packets=packets,
                shown=frozenset(number for number in packets if any(frame.shown for frame in by_packet[number])),
                byte_ranges={number: _merge_ranges(by_packet[number]) for number in packets},
            )
        )
    return segments


def _merge_ranges(frames: Iterable[CodedFrame]) -> list[ByteRange]:
    # A range that frames share is needed once.
    return sorted({byte_range for frame in frames for byte_range in frame.byte_ranges})


def _with_references(frames: Sequence[CodedFrame], targets: Iterable[int]) -> list[CodedFrame]:
    """These frames and all that they depend on, in decoding order."""
    found: set[int] = set()
    pending = list(targets)
    while pending:
        number = pending.pop()
        if number not in found:
            found.add(number)
            pending += frames[number].references
    return [frames[number] for number in sorted(found)]
