"""Files that end before their container says that they do."""

import pytest

from clip_decode.demux.truncation import is_truncated
from tests.decode.synthesis import Clip

WHOLE = {
    "avi": ("avi", Clip("mpeg4", "avi", frames=12).make()),
    "matroska": ("matroska,webm", Clip(container="matroska", frames=12).make()),
    "webm": ("matroska,webm", Clip("libvpx-vp9", "webm", frames=4, options={"deadline": "realtime"}).make()),
    "mpegts": ("mpegts", Clip(container="mpegts", frames=12).make()),
    "m2ts": ("mpegts", Clip(container="mpegts", frames=12, muxer={"mpegts_m2ts_mode": "1"}).make()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_without_its_last_byte_is_truncated(name: str) -> None:
    container, data = WHOLE[name]
    assert not is_truncated(data, container)
    assert is_truncated(data[:-1], container)


@pytest.mark.parametrize("name", WHOLE)
def test_too_few_bytes_to_tell_are_no_error(name: str) -> None:
    container, data = WHOLE[name]
    for length in range(64):
        is_truncated(data[:length], container)


def test_a_stream_of_unknown_length_is_not_truncated() -> None:
    data = Clip(container="matroska", frames=12, muxer={"live": "1"}).make()
    assert not is_truncated(data[:-100], "matroska,webm")
    recorded = bytearray(WHOLE["avi"][1])
    recorded[4:8] = bytes(4)
    assert not is_truncated(bytes(recorded), "avi")


def test_a_capture_that_begins_within_a_packet_is_judged_by_its_end() -> None:
    data = WHOLE["mpegts"][1]
    assert not is_truncated(data[100:], "mpegts")
    assert is_truncated(data[100:-1], "mpegts")
