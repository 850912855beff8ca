"""What the library makes of the bytes of a video: its clips at the size of the file, or its error."""

from __future__ import annotations

import pytest

from clip_decode import DecodeError, Geometry, Limits, Report, Sampling, decode_clips
from tests.decode.synthesis import Pixels


def decode_unscaled(data: bytes, frames: int, side: int, sampling: Sampling | None = None) -> tuple[Pixels, Report]:
    """Clips [V, T, S, S, 3] at the size of the file, converted as a plain decode converts."""
    return decode_clips(data, Geometry(frames, 5, side, side), sampling or Sampling(quality="reference"))


def refusal(data: bytes, limits: Limits | None = None) -> DecodeError:
    """The error that these bytes cause."""
    with pytest.raises(DecodeError) as caught:
        decode_clips(data, Geometry(8, 5, 64, 64), Sampling(), limits or Limits())
    assert caught.value.code != "decode-error"
    assert 10 < len(caught.value.message) < 600
    return caught.value
