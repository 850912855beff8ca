"""The slices of an HEVC stream, checked for pictures that are missing (H.265, 7.3.6, 7.3.7 and 8.3).

FFmpeg puts a grey picture into the place of one that is missing, and logs an error; NVDEC does neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clip_decode.decode.nvdec.sequence_parameter_set import read_hevc_start
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.hevc import is_order_base, read_picture_layout
from clip_decode.dependencies.nal_units import nearest, unescape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

_RANDOM_ACCESS = range(16, 24)
_IDR = (19, 20)
_HEADER_BYTES = 64  # Enough for every field of a slice header that is read here.

# Distances in display order from a picture to those that it keeps, and whether it may be predicted from each.
ReferenceSet = dict[int, bool]


class HevcSlices:
    """The slices that are sent, in decoding order."""

    def __init__(self, sequence: bytes, pictures: Iterable[bytes]) -> None:
        """
        Args:
            sequence: the sequence parameter set, NAL unit header included.
            pictures: the picture parameter sets, with theirs.
        """
        bits = BitReader(unescape(sequence[2:]))
        _, self._order_bits = read_hevc_start(bits)
        for _ in range(5):
            bits.unsigned()
        if bits.flag() and bits.flag():
            _skip_scaling_lists(bits)
        bits.skip(2)
        if bits.flag():
            bits.skip(8)
            bits.unsigned()
            bits.unsigned()
            bits.skip(1)
        self._sets: list[ReferenceSet] = []
        for _ in range(bits.unsigned()):
            self._sets.append(read_reference_set(bits, self._sets))
        self._has_long_term = bits.flag()
        self._has_long_term_sets = self._has_long_term and bits.unsigned() > 0
        layouts = (read_picture_layout(BitReader(unescape(unit[2:_HEADER_BYTES]))) for unit in pictures)
        self._layouts = dict(layouts)
        self._order = 0  # Of the last picture that orders count from.
        self._kept: set[int] = set()  # Orders of the pictures that are there.

    def check(self, unit: bytes) -> None:
        """Check the next slice, NAL unit header included.

        Raises:
            DependenciesUnknown: a picture that it depends on is missing, or may be.
            EOFError, IndexError: it is truncated.
        """
        kind, layer = unit[0] >> 1 & 63, (unit[1] & 7) - 1
        bits = BitReader(unescape(unit[2:_HEADER_BYTES]))
        is_first = bits.flag()
        bits.skip(1 if kind in _RANDOM_ACCESS else 0)
        number = bits.unsigned()
        if number not in self._layouts:
            raise DependenciesUnknown("a slice names an unknown picture parameter set")
        if not is_first:
            return
        has_output, extra_bits = self._layouts[number]
        bits.skip(extra_bits)
        bits.unsigned()
        bits.skip(has_output)
        if kind in _IDR:
            self._order, self._kept = 0, {0}
            return
        order = nearest(self._order, bits.read(self._order_bits), self._order_bits)
        references = {order + distance: used for distance, used in self._read_references(bits).items()}
        if any(used and reference not in self._kept for reference, used in references.items()):
            raise DependenciesUnknown("a picture that others refer to is missing")
        self._kept = self._kept.intersection(references) | {order}
        if is_order_base(kind, layer):
            self._order = order

    def _read_references(self, bits: BitReader) -> ReferenceSet:
        if bits.flag():
            found = self._sets[bits.read((len(self._sets) - 1).bit_length())]
        else:
            found = read_reference_set(bits, self._sets, in_slice=True)
        if (self._has_long_term_sets and bits.unsigned()) or (self._has_long_term and bits.unsigned()):
            raise DependenciesUnknown("long-term references")
        return found


def read_reference_set(bits: BitReader, earlier: Sequence[ReferenceSet], *, in_slice: bool = False) -> ReferenceSet:
    """A short-term reference picture set (7.3.7, 7.4.8)."""
    found: ReferenceSet = {}
    if earlier and bits.flag():
        base = earlier[-1 - bits.unsigned() if in_slice else -1]
        is_negative = bits.flag()
        shift = bits.unsigned() + 1
        shift = -shift if is_negative else shift
        for distance in (*base, 0):
            is_used = bits.flag()
            if (is_used or bits.flag()) and distance + shift:
                found[distance + shift] = is_used
    else:
        counts = [(-1, bits.unsigned()), (1, bits.unsigned())]
        for sign, count in counts:
            distance = 0
            for _ in range(count):
                distance += sign * (bits.unsigned() + 1)
                found[distance] = bits.flag()
    # Another set may name these by their place: those before the picture first, the nearest first.
    return dict(sorted(found.items(), key=lambda item: (item[0] > 0, abs(item[0]))))


def _skip_scaling_lists(bits: BitReader) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.flag():
                bits.unsigned()
                continue
            if size > 1:
                bits.signed()
            for _ in range(min(64, 1 << (4 + 2 * size))):
                bits.signed()
