"""Reading headers bit by bit."""

from __future__ import annotations

# No header is longer. Each read takes time in proportion to what is left, so a made-up header of a megabyte would take
# minutes.
MOST_BYTES = 4096


class BitReader:
    """Reads big-endian bits; raises EOFError at the end, or behind MOST_BYTES."""

    def __init__(self, data: bytes) -> None:
        data = data[:MOST_BYTES]
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def read(self, count: int) -> int:
        """The next `count` bits as a number."""
        self.skip(count)
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """The next bit."""
        self.skip(1)
        return self._value >> self._left & 1 == 1

    def skip(self, count: int) -> None:
        """Skip `count` bits."""
        self._left -= count
        if self._left < 0:
            raise EOFError("the header ends before it is complete")

    def unsigned(self) -> int:
        """An Exp-Golomb number, ue(v) in H.264."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        if zeros > 32:
            raise EOFError("an Exp-Golomb number is longer than 32 bits")
        self.skip(2 * zeros + 1)
        return (rest >> self._left) - 1

    def signed(self) -> int:
        """A signed Exp-Golomb number, se(v) in H.264."""
        number = self.unsigned()
        return (number + 1) // 2 if number % 2 else -(number // 2)
