"""Which packets, or parts of packets, are decoded for the wanted frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def plan_segments(dependencies: Dependencies, wanted: Iterable[int]) -> Iterator[DecodeSegment]:
    """The segments that wanted frames depend on, in decoding order. Each is made when it is asked for.

    Args:
        dependencies: of the stream, with its display order.
        wanted: frame indices in display order.
    """
    order, ranks = dependencies.display_order, dependencies.ranks
    targets = sorted(order[index] for index in wanted)
    # The first packet can be one that an edit list discards; it must be decoded all the same.
    access_points = [
        number
        for number, packet in enumerate(dependencies.packets)
        if packet.random_access and (ranks[number] >= 0 or number == 0)
    ]
    stretches: list[tuple[int, int]] = []  # First and last packet number.
    place = -1
    for target in targets:
        while place + 1 < len(access_points) and access_points[place + 1] <= target:
            place += 1
        # A frame that is displayed before its key frame depends on the GOP before it.
        back = place
        while back > 0 and ranks[target] < ranks[access_points[back]]:
            back -= 1
        start = access_points[back]
        while stretches and start <= stretches[-1][1]:
            start = min(start, stretches.pop()[0])
        stretches.append((start, target))
    if dependencies.frames is not None:
        yield from _follow_references(dependencies.frames, stretches, set(targets))
        return
    is_target = bytearray(len(dependencies.packets))
    for target in targets:
        is_target[target] = True
    for first, last in stretches:
        yield _drop_disposable(dependencies, is_target, first, last)


def _drop_disposable(dependencies: Dependencies, is_target: bytearray, first: int, last: int) -> DecodeSegment:
    ranks = dependencies.ranks
    packets = [
        number
        for number in range(first, last + 1)
        if (not dependencies.packets[number].disposable or is_target[number])
        and (ranks[number] < 0 or ranks[number] >= ranks[first])
    ]
    return DecodeSegment(packets, frozenset(number for number in packets if ranks[number] >= 0))


def _follow_references(
    frames: Sequence[CodedFrame], stretches: Sequence[tuple[int, int]], targets: set[int]
) -> Iterator[DecodeSegment]:
    by_packet: dict[int, list[CodedFrame]] = {}
    shown = (number for number, frame in enumerate(frames) if frame.shown and frame.packet in targets)
    for frame in _with_references(frames, shown):
        by_packet.setdefault(frame.packet, []).append(frame)
    for first, last in stretches:
        packets = [number for number in range(first, last + 1) if number in by_packet]
        yield DecodeSegment(
            packets=packets,
            shown=frozenset(number for number in packets if any(frame.shown for frame in by_packet[number])),
            byte_ranges={number: _merge_ranges(by_packet[number]) for number in packets},
        )


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
