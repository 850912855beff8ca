"""Numbers that the headers of packets have."""

from __future__ import annotations

import pytest

from clip_decode.dependencies.bit_reader import MOST_BYTES, BitReader


def encode(*numbers: int) -> bytes:
    """ue(v) of each number, by 9.1 of H.264, then zeros to the end of the byte."""
    bits = "".join("0" * ((number + 1).bit_length() - 1) + f"{number + 1:b}" for number in numbers)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def test_numbers_are_read_one_after_the_other() -> None:
    numbers = [*range(300), 2**16 - 2, 2**16 - 1, 0, 2**32 - 2, 2**32 - 1, 0]
    bits = BitReader(encode(*numbers))
    assert [bits.unsigned() for _ in numbers] == numbers


def test_signed_numbers_alternate() -> None:
    bits = BitReader(encode(*range(7)))
    assert [bits.signed() for _ in range(7)] == [0, 1, -1, 2, -2, 3, -3]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", b"\0\0\x01", b"\0" * 5 + b"\xff" * 9])
def test_a_number_that_does_not_end_is_an_error(data: bytes) -> None:
    with pytest.raises(EOFError):
        BitReader(data).unsigned()


def test_no_more_is_read_than_a_header_has() -> None:
    bits = BitReader(b"\xff" * (MOST_BYTES + 1))
    assert [bits.unsigned() for _ in range(8 * MOST_BYTES)] == [0] * (8 * MOST_BYTES)
    with pytest.raises(EOFError):
        bits.flag()
