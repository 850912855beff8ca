"""Which packets, or parts of them, are decoded for the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clip_decode.dependencies.packet_dependencies import CodedFrame, Span, Structure


@dataclass(frozen=True)
class Run:
    """Packets to decode in one go, in decoding order.

    Attributes:
        packets: their numbers.
        shown: those of them that give a frame.
        spans: by packet, the bytes of it to decode; a packet that is not named is decoded whole.
    """

    packets: Sequence[int]
    shown: frozenset[int]
    spans: Mapping[int, Sequence[Span]] = field(default_factory=dict)


def plan_runs(structure: Structure, order: Sequence[int], wanted: frozenset[int]) -> list[Run]:
    """Cut the stream into the runs that wanted frames need.

    Args:
        structure: role of each packet.
        order: packet numbers in the order they are shown.
        wanted: indices into `order`.
    """
    rank_of = {number: rank for rank, number in enumerate(order)}
    targets = sorted(order[index] for index in wanted)
    # The first packet can be one that an edit list discards, but needs to be decoded.
    restarts = [
        number for number, role in enumerate(structure.roles) if role.restart and (number in rank_of or number == 0)
    ]
    stretches: list[tuple[int, int]] = []
    place = -1
    for target in targets:
        while place + 1 < len(restarts) and restarts[place + 1] <= target:
            place += 1
        # Frames shown before their keyframe lean on the group before it.
        back = place
        while back > 0 and rank_of[target] < rank_of.get(restarts[back], -1):
            back -= 1
        start = restarts[back]
        while stretches and start <= stretches[-1][1]:
            start = min(start, stretches.pop()[0])
        stretches.append((start, target))
    if structure.frames is not None:
        return _run_along_sources(structure.frames, stretches, set(targets))
    return [_leave_out_droppable(structure, rank_of, set(targets), first, last) for first, last in stretches]


def _leave_out_droppable(
    structure: Structure, rank_of: dict[int, int], targets: set[int], first: int, last: int
) -> Run:
    begin = rank_of.get(first, -1)
    packets = [
        number
        for number in range(first, last + 1)
        if (not structure.roles[number].droppable or number in targets) and rank_of.get(number, begin) >= begin
    ]
    return Run(packets, frozenset(number for number in packets if number in rank_of))


def _run_along_sources(
    frames: Sequence[CodedFrame], stretches: Sequence[tuple[int, int]], targets: set[int]
) -> list[Run]:
    by_packet: dict[int, list[CodedFrame]] = {}
    for frame in _find_sources(
        frames, (n for n, frame in enumerate(frames) if frame.shown and frame.packet in targets)
    ):
        by_packet.setdefault(frame.packet, []).append(frame)
    runs = []
    for first, last in stretches:
        packets = [number for number in range(first, last + 1) if number in by_packet]
        runs.append(
            Run(
                packets=packets,
                shown=frozenset(number for number in packets if any(frame.shown for frame in by_packet[number])),
                spans={number: _join(by_packet[number]) for number in packets},
            )
        )
    return runs


def _join(frames: Iterable[CodedFrame]) -> list[Span]:
    # What frames share, each needs once.
    return sorted({span for frame in frames for span in frame.spans})


def _find_sources(frames: Sequence[CodedFrame], targets: Iterable[int]) -> list[CodedFrame]:
    """These frames and all that they lean on, in decoding order."""
    found: set[int] = set()
    waiting = list(targets)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += frames[number].sources
    return [frames[number] for number in sorted(found)]
