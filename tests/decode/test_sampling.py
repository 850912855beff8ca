"""Which frames are selected, without any video."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from clip_decode import Geometry, InvalidRequest, Limits, Sampling, TooLong
from clip_decode.plan.frame_selection import clip_moments, spread_indices
from clip_decode.plan.timeline import Timeline, timeline_from_timestamps

X3D_M = Geometry(16, 5, 256, 256)


@pytest.mark.parametrize("wanted", [1, 4, 8, 13, 16, 32])
def test_uniform_numbers_are_those_of_pytorchvideo(wanted: int) -> None:
    for count in range(1, 5001):
        expected = torch.clamp(torch.linspace(0, count - 1, wanted), 0, count - 1).long()
        assert spread_indices(count, wanted).tolist() == expected.tolist(), count


@pytest.mark.parametrize("views", [1, 2, 5, 10])
def test_clips_start_where_pytorchvideo_starts_them(views: int) -> None:
    # pytorchvideo.data.clip_sampling.ConstantClipsPerVideoSampler, in its own arithmetic.
    duration, clip_seconds = Fraction(10), Fraction(16 * 5, 30)
    spacing = Fraction(max(duration - clip_seconds, 0), max(views - 1, 1))
    starts = [moments[0] for moments in clip_moments(X3D_M, views, Fraction(0), duration)]
    assert starts == [spacing * view for view in range(views)]
    if views > 1:
        assert starts[-1] + clip_seconds == duration


def test_frames_of_a_clip_are_stride_thirtieths_apart() -> None:
    (moments,) = clip_moments(X3D_M, 1, Fraction(0), Fraction(10))
    assert moments == [Fraction(5 * number, 30) for number in range(16)]


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60])
def test_every_frame_rate_gives_the_same_moments(rate: int) -> None:
    timeline = Timeline(range(rate * 10), rate * 10, Fraction(1, rate))
    for moment in clip_moments(X3D_M, 1, Fraction(0), Fraction(10))[0]:
        shown = timeline.frame_at(moment) * timeline.time_base
        assert 0 <= moment - shown < Fraction(1, rate)


@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 30, 60])
@pytest.mark.parametrize("start", [0.0, 0.08, 0.31, 0.333])
def test_avi_and_mp4_have_the_same_frame_on_screen(rate: Fraction, start: float) -> None:
    """AVI counts frames, mp4 fractions of them."""
    avi = Timeline(range(100), 100, 1 / Fraction(rate))
    mp4 = Timeline(range(0, 100_000, 1000), 100_000, avi.time_base / 1000)
    for moment in clip_moments(X3D_M, 1, Fraction(start), Fraction(3))[0]:
        assert avi.frame_at(moment) == mp4.frame_at(moment)
    assert avi.frames_between(start, start + 0.5) == mp4.frames_between(start, start + 0.5)


def test_milliseconds_of_matroska_do_not_move_a_frame() -> None:
    stamps = [round(1000 * number / 30) for number in range(300)]
    timeline = timeline_from_timestamps(
        stamps, last_duration=33, time_base=Fraction(1, 1000), frame_rate=Fraction(30), limits=Limits()
    )
    moments = clip_moments(X3D_M, 1, Fraction(0), Fraction(10))[0]
    assert [timeline.frame_at(moment) for moment in moments] == [5 * n for n in range(16)]


@pytest.mark.parametrize("stamps", [[0, 4, None, 12], [0, 10, 5, 30], [7, 7, 7, 7]])
def test_unusable_timestamps_fall_back_to_the_frame_rate(stamps: list[int | None]) -> None:
    timeline = timeline_from_timestamps(
        stamps, last_duration=1, time_base=Fraction(1, 90), frame_rate=Fraction(25), limits=Limits()
    )
    assert [timeline.seconds(index) for index in range(4)] == [0.0, 0.04, 0.08, 0.12]
    assert timeline.duration == Fraction(4, 25)


def test_one_damaged_timestamp_does_not_make_a_video_too_long() -> None:
    facts = {"last_duration": 1, "time_base": Fraction(1), "frame_rate": Fraction(25), "limits": Limits()}
    assert timeline_from_timestamps([0, 1, 2, 2**40], **facts).duration == Fraction(4, 25)
    with pytest.raises(TooLong, match="allowed"):
        timeline_from_timestamps(range(14400 * 25 + 1), **{**facts, "time_base": Fraction(1, 25)})


def test_parameters_are_read_with_their_types() -> None:
    assert Sampling.from_parameters({}) == Sampling()
    parameters = {"policy": "clip", "views": "10", "crops": 3, "start_seconds": "1.5", "end_seconds": 4}
    assert Sampling.from_parameters(parameters) == Sampling(
        policy="clip", views=10, crops=3, start_seconds=1.5, end_seconds=4.0
    )
    assert Sampling.from_parameters(parameters).clips == 30
    shortcuts = {"policy": "keyframes", "quality": "draft", "crops": "3"}
    assert Sampling.from_parameters(shortcuts) == Sampling(policy="keyframes", quality="draft", crops=3)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"vews": 1}, "no such parameter"),
        ({"policy": "random"}, "uniform or clip or keyframes"),
        ({"policy": ["clip"]}, "uniform or clip or keyframes"),
        ({"quality": "best"}, "fast or reference or draft"),
        ({"views": 0}, "1 to 30"),
        ({"views": -1, "policy": "clip"}, "1 to 30"),
        ({"views": 31, "policy": "clip"}, "1 to 30"),
        ({"views": 10**30, "policy": "clip"}, "1 to 30"),
        ({"views": 11, "crops": 3, "policy": "clip"}, "at most 30"),
        ({"views": 2}, "use policy clip"),
        ({"views": 2, "policy": "keyframes"}, "policy keyframes has one view; use policy clip"),
        ({"views": 2.0, "policy": "clip"}, "whole number"),
        ({"views": True}, "whole number"),
        ({"views": "9" * 5000}, "whole number"),
        ({"views": "²", "policy": "clip"}, "whole number"),
        ({"views": None}, "whole number"),
        ({"crops": 2}, "1 or 3"),
        ({"start_seconds": math.nan}, "number"),
        ({"start_seconds": "nan"}, "number"),
        ({"start_seconds": "inf"}, "number"),
        ({"end_seconds": -math.inf}, "number"),
        ({"end_seconds": 10**400}, "number"),
        ({"start_seconds": -1}, "0 to 1000000"),
        ({"start_seconds": -0.0001}, "0 to 1000000"),
        ({"end_seconds": 1e300}, "0 to 1000000"),
        ({"start_seconds": True}, "number"),
        ({"start_seconds": {}}, "number"),
        ({"start_seconds": 3, "end_seconds": 3}, "not after"),
        ({"end_seconds": 0}, "not after"),
    ],
)
def test_hostile_parameters_are_refused_with_a_sentence(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as caught:
        Sampling.from_parameters(parameters)
    assert caught.value.code == "invalid-request"
    assert len(caught.value.message) < 200
