"""The shortcuts move frames to the nearest that take less decoding, and REPORT states the frames that were used."""

from __future__ import annotations

import io
from itertools import combinations

import av
import numpy as np
import torch

from clip_decode import Geometry, Report, Sampling, decode_clips
from clip_decode.plan.shortcuts import nearest, nearest_distinct
from tests.decode.outcomes import decode_unscaled
from tests.decode.streams import Stream
from tests.decode.synthesis import Clip, Pixels, cut_centre

# FFmpeg names key frames at which decoding may not begin: I frames within open GOPs, and the steps of intra refresh.
NOT_ALL_KEYS = {"h264 open GOPs", "h264 intra refresh"}
# FFmpeg states no timestamps by which frames could be found again, or its decoder knows no discarding.
NO_ORACLE = {"h264 raw without B frames", "mpeg2 in avi", "mpeg4 in avi", "mpeg2 in mpeg2video", "mpeg1"}
PYRAMID = Clip(frames=150, options={"x264-params": "keyint=50:bframes=7:b-pyramid=normal:b-adapt=0:scenecut=0"})


def exact_numbers(count: int, wanted: int) -> list[int]:
    numbers: list[int] = torch.linspace(0, count - 1, wanted).long().tolist()
    return numbers


def numbers_of(report: Report) -> list[int]:
    (view,) = report.frame_numbers["clip"]
    return list(view)


def test_key_frames_are_frames_of_a_plain_decode(stream: Stream) -> None:
    name, side = stream.name, stream.side
    plain = stream.plain
    count = len(plain.frames)
    keys = [number for number, is_key in enumerate(plain.keys) if is_key]
    for wanted in (1, 3, 5):
        pixels, report = decode_unscaled(stream.data, wanted, side, Sampling(policy="keyframes", quality="reference"))
        numbers = numbers_of(report)
        for position, number in enumerate(numbers):
            assert (pixels[0, position] == cut_centre(plain.frames[number], side)).all()
        assert (report.frames, report.method) == (count, stream.method)
        exact = exact_numbers(count, wanted)
        if report.policy == "keyframes":
            assert numbers == sorted(set(numbers))
            assert set(numbers) <= set(keys)
            assert report.decoded_frames == wanted
            if len(keys) == count:
                assert numbers == exact
            elif name not in NOT_ALL_KEYS:
                assert distance(numbers, exact) == min(distance(c, exact) for c in combinations(keys, wanted))
        else:
            assert (report.policy, numbers) == ("uniform", exact)
            assert stream.method == "whole" or name in NOT_ALL_KEYS or len(keys) < wanted


def distance(numbers: object, exact: list[int]) -> int:
    return int(np.abs(np.subtract(numbers, exact)).sum())


def test_draft_frames_are_the_nearest_that_others_depend_on(stream: Stream) -> None:
    name, data, side, method = stream.name, stream.data, stream.side, stream.method
    every, all_numbers = decode_everything(data, side)
    references = None if method == "whole" or name in NO_ORACLE else decode_references(data)
    for wanted in (4, 13):
        pixels, report = decode_unscaled(data, wanted, side, Sampling(quality="draft"))
        _, plain_report = decode_unscaled(data, wanted, side, Sampling())
        assert (report.policy, report.quality, report.method) == (
            "uniform",
            "draft" if method == "selected" else "fast",
            method,
        )
        numbers, exact = numbers_of(report), numbers_of(plain_report)
        for position, number in enumerate(numbers):
            assert (pixels[0, position] == every[all_numbers.index(number)]).all()
        if not name.startswith("av1"):  # AV1 names references one by one: a frame nearby may depend on others.
            assert report.decoded_frames <= plain_report.decoded_frames
        if references is not None and name.startswith("av1"):
            assert set(numbers) <= set(references)  # FFmpeg also keeps frames that are stored and not used.
        elif references is not None:
            assert numbers == [min(references, key=lambda kept: (abs(kept - number), kept)) for number in exact]
        elif method == "whole":
            assert numbers == exact


def decode_everything(data: bytes, side: int) -> tuple[Pixels, list[int]]:
    """All frames in quality fast, and the number of each."""
    count = decode_unscaled(data, 1, side, Sampling())[1].frames
    pixels, report = decode_unscaled(data, min(2 * count, 256), side, Sampling())
    assert set(numbers_of(report)) == set(range(count))
    return pixels[0], numbers_of(report)


def decode_references(data: bytes) -> list[int]:
    """Numbers of the frames that FFmpeg keeps when it discards those on which no other depends."""
    stamps: dict[str, list[float]] = {}
    for discard in ("DEFAULT", "NONREF"):
        with av.open(io.BytesIO(data)) as container:
            container.streams.video[0].codec_context.skip_frame = discard
            container.streams.video[0].codec_context.thread_count = 1
            stamps[discard] = [frame.time for frame in container.decode(video=0)]
    return [stamps["DEFAULT"].index(stamp) for stamp in stamps["NONREF"]]


def test_sixteen_key_frames_of_a_long_video_take_sixteen_packets() -> None:
    data = Clip(frames=600, gop=25, options={"x264-params": "scenecut=0"}).make()
    exact = decode_unscaled(data, 16, 64, Sampling())[1]
    _, report = decode_unscaled(data, 16, 64, Sampling(policy="keyframes"))
    assert report.policy == "keyframes"
    assert report.decoded_frames == 16
    assert exact.decoded_frames > 100
    seconds = report.timestamps_seconds["clip"][0]
    assert seconds == tuple(number / 30 for number in numbers_of(report))
    assert (
        max(np.abs(np.subtract(seconds, exact.timestamps_seconds["clip"][0]))) <= 24 / 30
    )  # The last key frame is number 575 of 599.


def test_key_frames_lie_in_the_span_and_too_few_of_them_give_exact_frames() -> None:
    data = Clip(frames=200, gop=10, options={"x264-params": "scenecut=0"}).make()
    span = {"start_seconds": 2.1, "end_seconds": 5.1}  # Frames 63 to 152: nine key frames.
    for wanted, policy in ((9, "keyframes"), (10, "uniform")):
        _, report = decode_unscaled(data, wanted, 64, Sampling(policy="keyframes", **span))
        _, exact = decode_unscaled(data, wanted, 64, Sampling(**span))
        assert report.policy == policy
        expected = list(range(70, 151, 10)) if policy == "keyframes" else numbers_of(exact)
        assert numbers_of(report) == expected


def test_the_largest_clip_decides_whether_there_are_enough_key_frames() -> None:
    data = Clip(frames=60, gop=10, options={"x264-params": "scenecut=0"}).make()
    small, large = Geometry(4, 5, 48, 48), Geometry(8, 5, 48, 48)
    _, report = decode_clips(data, {"small": small}, Sampling(policy="keyframes"))
    assert report.policy == "keyframes"
    _, report = decode_clips(data, {"small": small, "large": large}, Sampling(policy="keyframes"))
    assert report.policy == "uniform"
    assert report.frame_numbers["small"] == (tuple(exact_numbers(60, 4)),)


def test_key_frames_have_crops() -> None:
    data = Clip(frames=60, gop=5, options={"x264-params": "scenecut=0"}).make()
    geometry = Geometry(4, 5, 64, 64)
    three, report = decode_clips(data, geometry, Sampling(policy="keyframes", crops=3))
    one, _ = decode_clips(data, geometry, Sampling(policy="keyframes"))
    assert report.policy == "keyframes"
    assert three.shape == (3, 4, 64, 64, 3)
    assert (three[1] == one[0]).all()


def test_a_draft_of_a_pyramid_takes_fewer_packets() -> None:
    data = PYRAMID.make()
    for sampling in ({"policy": "uniform"}, {"policy": "clip", "views": 3}):
        _, exact = decode_unscaled(data, 16, 64, Sampling(**sampling))
        _, report = decode_unscaled(data, 16, 64, Sampling(**sampling, quality="draft"))
        assert report.quality == "draft"
        assert report.decoded_frames < exact.decoded_frames
        for moved, kept in zip(report.frame_numbers["clip"], exact.frame_numbers["clip"], strict=True):
            assert max(np.abs(np.subtract(moved, kept))) <= 2  # Every fourth frame is a reference.


def test_a_draft_stays_in_the_span() -> None:
    data = Clip(frames=60, options={"x264-params": "bframes=7:b-pyramid=none:b-adapt=0:scenecut=0:keyint=60"}).make()
    (kept,) = (numbers_of(decode_unscaled(data, 1, 64, Sampling(start_seconds=s))[1]) for s in (0.1,))
    _, report = decode_unscaled(data, 2, 64, Sampling(quality="draft", start_seconds=0.1, end_seconds=0.2))
    # Frames 3 to 5 are B frames: there is no reference to move to.
    assert kept == [3]
    assert (report.quality, numbers_of(report)) == ("fast", [3, 5])


def test_both_shortcuts_work_together() -> None:
    data = PYRAMID.make()
    for wanted, policy in ((3, "keyframes"), (8, "uniform")):
        _, report = decode_unscaled(data, wanted, 64, Sampling(policy="keyframes", quality="draft"))
        assert (report.policy, report.quality) == (policy, "draft")


def test_exact_requests_are_reported_as_they_are() -> None:
    data = Clip(gop=12).make()
    for sampling in (Sampling(), Sampling(quality="reference"), Sampling(policy="clip", views=2)):
        _, report = decode_unscaled(data, 4, 64, sampling)
        assert (report.policy, report.quality) == (sampling.policy, sampling.quality)


def test_the_choice_of_distinct_candidates_has_the_least_distance() -> None:
    chance = np.random.default_rng(5)
    for _ in range(300):
        candidates = np.sort(chance.choice(40, size=chance.integers(4, 9), replace=False))
        wanted = np.sort(chance.integers(0, 40, size=chance.integers(1, 5)))
        found = nearest_distinct(candidates, wanted)
        assert set(found) <= set(candidates)
        assert (np.diff(found) > 0).all()
        least = min(distance(c, list(wanted)) for c in combinations(candidates, len(wanted)))
        assert distance(found, list(wanted)) == least


def test_many_candidates_take_little_time_and_memory() -> None:
    candidates = np.arange(1_000_000)
    wanted = np.linspace(0, 999_999, 32).astype(np.int64)
    assert (nearest_distinct(candidates, wanted) == wanted).all()


def test_the_nearest_candidate_is_the_earlier_of_two() -> None:
    found = nearest(np.array([2, 6, 7]), np.array([0, 2, 3, 4, 5, 6, 7, 9]))
    assert found.tolist() == [2, 2, 2, 2, 6, 6, 7, 7]
