"""The frames used are those that a plain decode of the whole file gives, pixel by pixel."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import pytest
import torch

from clip_decode import Geometry, Sampling, decode_clips
from tests.decode.outcomes import decode_unscaled
from tests.decode.streams import REORDERED, Stream
from tests.decode.synthesis import Clip, cut_centre, decode_plainly, join, paint_grey, remux


def test_uniform_frames_equal_a_plain_decode(stream: Stream) -> None:
    plain, side = stream.plain, stream.side
    count = len(plain.frames)
    for wanted in (1, 3, 8, 13, 32):
        pixels, report = decode_unscaled(stream.data, wanted, side)
        assert pixels.shape == (1, wanted, side, side, 3)
        assert (report.frames, report.method, report.truncated) == (count, stream.method, False)
        numbers = torch.linspace(0, count - 1, wanted).long().tolist()
        for position, number in enumerate(numbers):
            expected = cut_centre(plain.frames[number], side)
            assert (pixels[0, position] == expected).all(), f"frame {number} of {count} differs"


def test_clips_anywhere_equal_a_plain_decode(stream: Stream) -> None:
    plain, side = stream.plain, stream.side
    sampling = Sampling(policy="clip", views=3, start_seconds=0.5, quality="reference")
    pixels, report = decode_unscaled(stream.data, 4, side, sampling)
    assert len(report.timestamps_seconds["clip"]) == 3
    for view, seconds in enumerate(report.timestamps_seconds["clip"]):
        for position, second in enumerate(seconds):
            number = _find_frame(plain.stamps, second, stream.rate)
            expected = cut_centre(plain.frames[number], side)
            assert (pixels[view, position] == expected).all(), f"frame {number} differs"


def test_av1_frames_that_no_wanted_frame_depends_on_are_not_decoded() -> None:
    data = Clip("libsvtav1", frames=140, gop=128, options={"preset": "10"}).make()
    for number in (17, 70, 139):
        plain = decode_plainly(data)
        moment = Sampling(start_seconds=number / 30, quality="reference")
        pixels, report = decode_unscaled(data, 1, 64, moment)
        assert (pixels[0, 0] == cut_centre(plain.frames[number], 64)).all()
        # A pyramid of sixteen or thirty-two frames has five or six layers; its base layer comes once a pyramid.
        assert report.decoded_frames <= 20


@pytest.mark.parametrize(
    ("codec", "change"),
    [
        ("mpeg1video", {"width": 64, "height": 80}),
        ("mpeg2video", {"width": 64, "height": 80}),
        ("mpeg2video", {"pixel_format": "yuv422p"}),
    ],
)
def test_joined_mpeg_files_of_two_formats_equal_a_plain_decode(codec: str, change: dict[str, Any]) -> None:
    first = Clip(codec, "mpegts", frames=20, gop=6)
    data = join([first.make(), replace(first, **change).make()], "mpegts")
    # FFmpeg drops the frame that it holds back as the format changes.
    assert len(decode_plainly(data).frames) == 39
    _check_last_frames(data)


def test_joined_mpeg4_files_that_state_their_tools_once_equal_a_plain_decode() -> None:
    clip = Clip("mpeg4", "m4v", frames=20, gop=5)
    parts = [_drop_later_headers(replace(clip, options=options).make()) for options in ({}, {"mpeg_quant": "1"})]
    for container in ("avi", "mp4"):
        _check_last_frames(join(parts, container))


def test_h264_of_an_early_x264_equals_a_plain_decode() -> None:
    data = Clip(frames=40, gop=10, pixel_format="yuv444p", options={"crf": "12"}).make()
    # FFmpeg then decodes 4:4:4 in another way, which is wrong here: the encoder is a later one.
    _check_every_frame(re.sub(rb"(?<=x264 - core )\d{3}", b"148", data))


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(("codec", "swapped"), [("libx264", (14, 15)), ("libx265", (12, 14))])
def test_timestamps_that_contradict_the_pictures_equal_a_plain_decode(
    codec: str, swapped: tuple[int, int], container: str
) -> None:
    options = {"x265-params": "keyint=10:min-keyint=10:log-level=none"} if codec == "libx265" else {}
    data = Clip(codec, frames=30, gop=10, options=options).make()
    _check_every_frame(_swap_timestamps(data, container, *swapped))


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize(("name", "lost"), [("x264", 18), ("x265", 3)])
def test_a_stream_that_lacks_a_picture_equals_a_plain_decode(name: str, lost: int, container: str) -> None:
    options = {f"{name}-params": "keyint=10:min-keyint=10:bframes=0:log-level=none"}
    data = Clip(f"lib{name}", frames=30, options=options).make()
    _check_every_frame(remux(data, container, lost=lost))


@pytest.mark.parametrize("has_control", [True, False])
def test_mpeg4_whose_header_denies_its_b_frames_equals_a_plain_decode(has_control: bool) -> None:
    data = bytearray(Clip("mpeg4", frames=20, gop=6, tags=REORDERED).make())
    place = data.index(b"\0\0\x01\x20") + 4
    bits = f"{int.from_bytes(data[place : place + 15], 'big'):0120b}"
    # vol_control_parameters, chroma_format, low_delay, vbv_parameters
    assert bits[21:26] == "10100"
    bits = bits[:21] + "10110" + bits[26:] if has_control else bits[:21] + "0" + bits[26:] + "1111"
    data[place : place + 15] = int(bits, 2).to_bytes(15, "big")
    # FFmpeg returns the frames in decoding order, or one of them twice.
    assert len(decode_plainly(bytes(data)).frames) == (20 if has_control else 21)
    _check_every_frame(bytes(data))


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_an_mpeg4_b_plane_with_a_wrong_time_gives_no_frame(container: str) -> None:
    data = bytearray(Clip("mpeg4", container, frames=20, gop=6, tags=REORDERED).make())
    planes = [found.end() for found in re.finditer(rb"\0\0\x01\xb6", data)]
    data[next(place for place in planes[8:] if data[place] >> 6 == 2)] ^= 8  # The first bit of vop_time_increment.
    assert len(decode_plainly(bytes(data)).frames) == 19
    _check_every_frame(bytes(data))


def test_a_long_mpeg4_plane_that_is_not_coded_gives_no_frame() -> None:
    data = bytearray(Clip("mpeg4", frames=20, gop=6, paint=paint_grey).make())
    planes = [found.end() for found in re.finditer(rb"\0\0\x01\xb6", data)]
    data[planes[8] + 1] &= ~0x20  # vop_coded, behind vop_time_increment.
    assert len(decode_plainly(bytes(data)).frames) == 19
    _check_every_frame(bytes(data))


@pytest.mark.parametrize("container", ["mp4", "mpegts", "avi"])
def test_mpeg2_whose_header_denies_its_b_frames_equals_a_plain_decode(container: str) -> None:
    data = Clip("mpeg2video", container, frames=20, gop=6, tags=REORDERED).make()
    # The extension of the sequence header, which the muxer of MPEG-TS does not divide here; low_delay is its 41st bit.
    extension = re.compile(rb"(\0\0\x01\xb5[\x10-\x1f].{4})(.)", re.DOTALL)
    _check_every_frame(extension.sub(lambda found: found[1] + bytes([found[2][0] | 0x80]), data))


def test_hevc_with_other_parameter_sets_than_its_header_equals_a_plain_decode() -> None:
    options = "keyint=6:min-keyint=6:bframes=0:open-gop=0:log-level=none"
    header, stream = (
        Clip("libx265", "hevc", frames=20, options={"x265-params": options + offsets}).make()
        for offsets in (":cbqpoffs=6:crqpoffs=-6", "")
    )
    sets, *others = re.split(rb"(?=\0\0\x01\x28)", stream)
    for unit in (b"\x40", b"\x42", b"\x44"):  # The parameter sets; those of `stream` come once.
        others = [re.sub(rb"\0*\x01" + unit + rb".*?(?=\0\0\x01)", b"", o, flags=re.DOTALL) for o in others]
    _check_last_frames(join([header, b"".join([sets, *others])], "mp4", first_packet=20))


@pytest.mark.parametrize(("codec", "name"), [("h264", "x264"), ("hevc", "x265")])
def test_raw_streams_with_long_start_codes_are_decoded_sparsely_from_mp4(codec: str, name: str) -> None:
    options = {f"{name}-params": "keyint=6:bframes=0:log-level=none"}
    stream = Clip(f"lib{name}", codec, frames=20, options=options).make()
    _check_last_frames(join([re.sub(rb"\0?\0\0\x01", b"\0\0\0\x01", stream)], "mp4"), "selected")


@pytest.mark.parametrize(("offset", "method"), [(0, "selected"), (8, "whole")])
def test_flv_that_sends_its_header_again_equals_a_plain_decode(offset: int, method: str) -> None:
    clips = [
        Clip(container="flv", frames=20, options={"x264-params": f"keyint=6:bframes=0:chroma-qp-offset={number}"})
        for number in (0, offset)
    ]
    first, second = (clip.make() for clip in clips)
    _check_last_frames(first + _delay_flv_tags(second, 700), method)


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "mp4"), ("libx265", "matroska"), ("mpeg2video", "mpegts"), ("mpeg4", "mp4")]
)
def test_frames_whose_timestamps_are_in_decoding_order_equal_a_plain_decode(codec: str, container: str) -> None:
    options = {"x265-params": "keyint=8:bframes=2:log-level=none"} if codec == "libx265" else {}
    data = join([Clip(codec, container, frames=24, gop=8, options=options, tags=REORDERED).make()], container)
    plain = decode_plainly(data)
    for number in range(24):
        pixels, report = decode_unscaled(data, 1, 64, Sampling(start_seconds=number / 30, quality="reference"))
        assert report.frame_numbers["clip"] == ((number,),)
        assert (pixels[0, 0] == cut_centre(plain.frames[number], 64)).all(), f"frame {number} differs"


def _drop_later_headers(data: bytes) -> bytes:
    """A raw MPEG-4 file without the headers of all key frames but the first."""
    head, plane, rest = data.partition(b"\0\0\1\xb6")
    headers = rb"\0\0\x01[\xb0\xb5\xb2\x00-\x2f].*?(?=\0\0\x01[\xb3\xb6])"
    return head + plane + re.sub(headers, b"", rest, flags=re.DOTALL)


def _delay_flv_tags(data: bytes, milliseconds: int) -> bytes:
    """The tags of an FLV file, without its header."""
    tags, offset = bytearray(data), 13
    while offset < len(tags):
        stamp = int.from_bytes(tags[offset + 4 : offset + 7], "big") + milliseconds
        tags[offset + 4 : offset + 7] = stamp.to_bytes(3, "big")
        offset += 11 + int.from_bytes(tags[offset + 1 : offset + 4], "big") + 4
    return bytes(tags[13:])


def _swap_timestamps(data: bytes, container: str, first: int, second: int) -> bytes:
    """The same packets in another file, two of them with the timestamp of the other."""
    target = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(target, "w", format=container) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        packets[first].pts, packets[second].pts = packets[second].pts, packets[first].pts
        for packet in packets:
            packet.stream = copy
            output.mux(packet)
    return target.getvalue()


def _check_every_frame(data: bytes) -> None:
    plain = decode_plainly(data)
    for number in range(len(plain.frames)):
        pixels, report = decode_unscaled(data, 1, 64, Sampling(start_seconds=number / 30, quality="reference"))
        assert report.frames == len(plain.frames)
        found = report.frame_numbers["clip"][0][0]
        assert (pixels[0, 0] == cut_centre(plain.frames[found], 64)).all(), f"frame {found} differs"


def _check_last_frames(data: bytes, method: str | None = None) -> None:
    plain = decode_plainly(data)
    seconds = (len(plain.frames) - 4) / 30
    pixels, report = decode_unscaled(data, 4, 64, Sampling(start_seconds=seconds, quality="reference"))
    assert report.frames == len(plain.frames)
    assert method in (None, report.method)
    for number, picture in zip(report.frame_numbers["clip"][0], pixels[0], strict=True):
        assert number > report.frames // 2
        assert (picture == cut_centre(plain.frames[number], 64)).all(), f"frame {number} differs"


def _find_frame(stamps: list[float | None], second: float, rate: Fraction) -> int:
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or known != sorted(known):
        return round(second * rate)
    return min(range(len(known)), key=lambda number: abs(known[number] - known[0] - second))


def test_real_footage_equals_a_plain_decode(real_video: bytes) -> None:
    plain = decode_plainly(real_video)
    side = min(plain.frames[0].shape[:2])
    for wanted in (5, 16):
        pixels, report = decode_unscaled(real_video, wanted, side)
        assert report.frames == len(plain.frames)
        numbers = torch.linspace(0, report.frames - 1, wanted).long().tolist()
        for position, number in enumerate(numbers):
            assert (pixels[0, position] == cut_centre(plain.frames[number], side)).all()


def test_fewer_packets_are_decoded_than_there_are() -> None:
    data = Clip(frames=200, options={"x264-params": "keyint=50:bframes=3"}).make()
    _, report = decode_unscaled(data, 4, 64)
    assert report.decoded_frames < 120
    near_end = Sampling(start_seconds=6.0, quality="reference")
    _, report = decode_unscaled(data, 4, 64, near_end)
    assert report.decoded_frames < 40


def test_every_geometry_is_served_from_one_decode() -> None:
    data = Clip(frames=40).make()
    geometries = {"a": Geometry(4, 12, 48, 48), "b": Geometry(13, 6, 64, 32)}
    sampling = Sampling(policy="clip", views=2, crops=3)
    clips, report = decode_clips(memoryview(data), geometries, sampling)
    assert {name: clip.shape for name, clip in clips.items()} == {
        "a": (6, 4, 48, 48, 3),
        "b": (6, 13, 32, 32, 3),
    }
    for name, geometry in geometries.items():
        assert clips[name].flags.c_contiguous
        alone, _ = decode_clips(data, {name: geometry}, sampling)
        assert (alone[name] == clips[name]).all()
    assert report.decoded_frames <= 40
