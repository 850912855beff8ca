"""Windows have the very pixels that decode_clips gives for their start and end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from clip_decode import Geometry, InvalidRequest, Sampling, TooLong, Truncated, decode_clips
from clip_decode.limits import Limits
from clip_decode.window_engine import decode_windows
from clip_decode.windows import WindowClips, WindowLimits, Windows
from tests.decode.mutation import BASES, mutate
from tests.decode.streams import STREAMS, UNEVEN
from tests.decode.synthesis import Clip, remux

GEOMETRY = Geometry(4, 5, 40, 32)
OVERLAPPING, SPACED, WHOLE = Windows(0.5, 0.3), Windows(0.2, 0.5), Windows(60, 1)
SAMPLINGS = [
    Sampling(),
    Sampling(policy="clip", views=2, crops=3),
    Sampling(policy="keyframes", quality="draft"),
    Sampling(quality="reference", start_seconds=0.21, end_seconds=1.4),
]
# One of each way to decode; `make test-long` takes all.
FEW = ["h264 open GOPs", "h264 in avi", "vp9 hidden frames"]


def check(
    data: bytes, windows: Windows, sampling: Sampling = SAMPLINGS[0], geometry: Geometry = GEOMETRY
) -> Sequence[WindowClips]:
    """Compare each window with decode_clips."""
    found = list(decode_windows(data, geometry, windows, sampling))
    for number, decoded in enumerate(found):
        span = decoded.window.span
        assert span.number == number + windows.first_window
        within = replace(sampling, start_seconds=span.start_seconds, end_seconds=span.end_seconds)
        clips, report = decode_clips(data, geometry, within)
        assert decoded.clips.shape == clips.shape
        assert (decoded.clips == clips).all(), f"window {number}: {span}"
        assert decoded.window.frame_numbers.tolist() == [list(view) for view in report.frame_numbers["clip"]]
        assert (decoded.window.policy, decoded.window.quality) == (report.policy, report.quality)
        assert decoded.video.frames == report.frames
        assert decoded.video.duration_seconds == report.duration_seconds
        assert (decoded.video.codec, decoded.video.pixel_format) == (report.codec, report.pixel_format)
    return found


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("windows", [OVERLAPPING, SPACED], ids=["overlapping", "spaced"])
def test_windows_equal_clips(name: str, windows: Windows) -> None:
    clip, method = STREAMS[name]
    for sampling in SAMPLINGS:
        assert {window.method for window in check(clip.make(), windows, sampling)} == {method}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in STREAMS if name not in FEW])
def test_windows_of_every_kind_of_stream_equal_clips(name: str) -> None:
    clip, _ = STREAMS[name]
    data = clip.make()
    for sampling in SAMPLINGS:
        check(data, OVERLAPPING, sampling)
    check(data, SPACED)


def test_odd_windows_equal_clips() -> None:
    film = Clip(frames=60, rate=Fraction(24), gop=12).make()
    assert len(check(film, Windows(0.5, 0.5))) == 5
    assert len(check(film, Windows(60, 2))) == 1, "a video that is not longer than a window is one window"
    assert len(check(film, Windows(0.01, 0.25))) == 10
    assert [window.window.span.number for window in check(film, Windows(0.5, 0.5, first_window=3))] == [3, 4]
    assert check(film, Windows(0.5, 0.5, first_window=99)) == []
    # As a float 0.4 is a little more than 0.4, and 0.7 a little less than 0.7.
    for end in (0.4, 0.7):
        part = Sampling(start_seconds=round(end - 0.3, 1), end_seconds=end)
        assert len(check(film, Windows(0.3, 0.1), part)) == 1, "a part that is not longer than a window is one window"


def test_uneven_timestamps_edit_lists_and_offsets_equal_clips() -> None:
    uneven = Clip(frames=20, stamps=UNEVEN).make()
    edited = remux(Clip(gop=20).make(), "mp4", shift=-7)
    shifted = remux(Clip(gop=20).make(), "mpegts", shift=50)
    for data in (uneven, edited, shifted):
        for windows in (OVERLAPPING, SPACED):
            check(data, windows)


def test_files_that_are_cut_off_equal_clips_and_are_told() -> None:
    fragments = Clip(frames=60, gop=12, muxer={"movflags": "frag_keyframe+empty_moov"}).make()
    matroska = Clip(container="matroska", frames=60, gop=12).make()
    stream = Clip(container="mpegts", frames=60, gop=12).make()
    for data in (fragments, matroska, stream):
        data = data[: len(data) * 2 // 3 + 50]
        found = check(data, OVERLAPPING)
        assert found[-1].video.truncated


def test_damage_in_the_middle_costs_only_the_windows_that_it_touches_their_speed() -> None:
    data = bytearray(Clip(frames=120, gop=12, width=192, height=128).make())
    middle = len(data) // 2
    data[middle : middle + 100] = b"\xff" * 100
    methods = [window.method for window in check(bytes(data), OVERLAPPING)]
    assert {"selected", "whole"} == set(methods)


@pytest.mark.long
@pytest.mark.parametrize("name", BASES)
def test_damaged_files_equal_clips(name: str) -> None:
    chance, whole = random.Random(16), BASES[name].make()
    compared = 0
    for _ in range(25):
        data = mutate(whole, chance)
        try:
            decode_clips(data, GEOMETRY)
        except Exception as error:
            with pytest.raises(type(error)):
                list(decode_windows(data, GEOMETRY, OVERLAPPING))
        else:
            compared += len(check(data, OVERLAPPING))
    assert compared


def test_every_packet_is_decoded_at_most_once_and_few_where_few_are_wanted() -> None:
    data = Clip(frames=300, gop=30, width=64, height=48).make()
    overlapping = list(decode_windows(data, GEOMETRY, Windows(2, 0.1)))
    assert overlapping[-1].video.decoded_frames <= 300
    sparse = list(decode_windows(data, Geometry(2, 5, 40, 32), Windows(1, 4)))
    assert sparse[-1].video.decoded_frames <= 150
    *_, last = decode_windows(data, GEOMETRY, Windows(1, 1, first_window=9))
    assert last.video.decoded_frames <= 30, "what lies before the first window is not decoded"


def test_memory_does_not_grow_with_the_number_of_windows() -> None:
    """The frames that are kept are those of the windows that overlap."""
    data = Clip(frames=300, gop=30, width=64, height=48).make()
    windows = decode_windows(data, GEOMETRY, Windows(1, 0.5), window_limits=WindowLimits(max_megabytes=1))
    assert sum(1 for _ in windows) == 20
    wide = decode_windows(data, Geometry(256, 1, 64, 64), Windows(10, 0.5), window_limits=WindowLimits(max_megabytes=1))
    with pytest.raises(InvalidRequest, match="different frames, 3 MiB, but 1 MiB are allowed"):
        next(wide)


def test_signs_of_life_come_while_windows_are_planned() -> None:
    """A server ends the timeline of a decoder that is silent for long."""
    ticks: list[None] = []
    windows = Windows(0.5, 0.01)
    decoded = decode_windows(Clip(frames=30).make(), GEOMETRY, windows, tick=lambda: ticks.append(None))
    assert next(decoded).video.windows == 100
    assert len(ticks) >= 100 + 30, "for each window, and for each packet that was read"


def test_limits_are_errors_that_say_what_is_allowed() -> None:
    data = Clip(frames=60).make()
    with pytest.raises(InvalidRequest, match=r"makes 20 windows .* but 10 are allowed; choose a larger step_seconds"):
        list(decode_windows(data, GEOMETRY, Windows(0.5, 0.1), window_limits=WindowLimits(max_windows=10)))
    with pytest.raises(TooLong, match="lasts 2 seconds, but 1 are allowed"):
        list(decode_windows(data, GEOMETRY, OVERLAPPING, limits=Limits(max_seconds=1)))
    with pytest.raises(InvalidRequest, match="video ends at"):
        list(decode_windows(data, GEOMETRY, OVERLAPPING, Sampling(start_seconds=5)))
    with pytest.raises(Truncated):
        list(decode_windows(data[:300], GEOMETRY, OVERLAPPING))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_joined_files_with_a_clock_that_begins_again_have_windows_to_their_end(codec: str) -> None:
    part = Clip(codec=codec, container="mpegts", frames=50, gop=25, rate=Fraction(25)).make()
    windows = check(part + part, Windows(0.5, 0.7))
    assert len(windows) == 6
    assert windows[-1].window.span.end_seconds == 4
    with pytest.raises(InvalidRequest, match=r"video ends at 4\.000"):
        decode_clips(part + part, GEOMETRY, Sampling(start_seconds=4))


def test_rounding_makes_no_last_window_without_a_length() -> None:
    windows = check(Clip(frames=60).make(), Windows(0.5, 1 / 3))
    assert [round(window.window.span.start_seconds, 3) for window in windows] == [0, 0.333, 0.667, 1, 1.333, 1.667]


@pytest.mark.parametrize("name", ["window_seconds", "step_seconds", "first_window"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, 1e9, "2", None, True])
def test_numbers_that_make_no_windows_are_refused(name: str, value: object) -> None:
    if name == "first_window" and value == 0 and value is not True:
        return
    with pytest.raises(InvalidRequest, match=name):
        replace(OVERLAPPING, **{name: value})


def test_windows_begin_at_the_decimal_numbers_that_were_given() -> None:
    data = Clip(frames=30).make()
    starts = [window.window.span.start_seconds for window in decode_windows(data, GEOMETRY, Windows(0.1, 0.1))]
    assert starts == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_a_view_of_the_bytes_is_read_without_a_copy_of_them() -> None:
    data = Clip(frames=30).make()
    (one,) = decode_windows(memoryview(data), GEOMETRY, WHOLE)
    clips, _ = decode_clips(memoryview(data), GEOMETRY)
    assert np.array_equal(one.clips, clips)
