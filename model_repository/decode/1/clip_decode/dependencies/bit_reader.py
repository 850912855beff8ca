"""Reading the headers of compressed pictures bit by bit."""

from __future__ import annotations


class BitReader:
    """Reads big-endian bits; running out raises EOFError."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def read(self, count: int) -> int:
        """The next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise EOFError("the header ends before it is complete")
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return self.read(1) == 1

    def skip(self, count: int) -> None:
        """Leave out `count` bits."""
        self.read(count)

    def unsigned(self) -> int:
        """An Exp-Golomb number, ue(v) in H.264."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > 32:
                raise EOFError("an Exp-Golomb number is longer than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """A signed Exp-Golomb number, se(v) in H.264."""
        number = self.unsigned()
        return (number + 1) // 2 if number % 2 else -(number // 2)


def unescape(nal: bytes) -> bytes:
    """Take the emulation prevention bytes out of a NAL unit."""
    return nal.replace(b"\0\0\x03", b"\0\0")
