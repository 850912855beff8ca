"""The frames used are those that a plain decode of the whole file gives, pixel by pixel."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from clip_decode import Geometry, Report, Sampling, decode_clips
from tests.decode.synthesis import Clip, Pixels, cut_centre, decode_plainly, join

REORDERED = {"max_b_frames": 2}
X265 = "keyint=20:min-keyint=5:log-level=none"
QUICK_VPX = {"deadline": "realtime", "cpu-used": "8"}
HIDDEN_FRAMES = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}

# name: (clip, the method of its report). "whole" are streams whose dependencies are unknown.
STREAMS: dict[str, tuple[Clip, str]] = {
    **{f"h264 in {c}": (Clip(container=c, gop=20), "selected") for c in ("mp4", "mov", "matroska", "mpegts", "flv")},
    "h264 in avi": (Clip(container="avi", gop=20), "whole"),
    "h264 raw": (Clip(container="h264", gop=20), "whole"),
    "h264 raw without B frames": (Clip(container="h264", gop=20, options={"bf": "0"}), "selected"),
    "h264 without B frames in avi": (Clip(container="avi", gop=20, options={"bf": "0"}), "selected"),
    "h264 open GOPs": (Clip(options={"x264-params": "open-gop=1:keyint=16:min-keyint=8"}), "selected"),
    "h264 pyramid": (Clip(options={"x264-params": "b-pyramid=normal:bframes=6:keyint=24"}), "selected"),
    "h264 intra refresh": (Clip(options={"x264-params": "intra-refresh=1:keyint=16"}), "selected"),
    "h264 interlaced": (Clip(options={"x264-params": "interlaced=1:keyint=16"}), "selected"),
    "h264 slices": (Clip(container="mpegts", options={"x264-params": "slices=4:keyint=16"}), "selected"),
    "h264 tiny GOPs": (Clip(options={"x264-params": "keyint=3:bframes=1"}), "selected"),
    "h264 many references": (Clip(options={"x264-params": "ref=8:bframes=8:b-adapt=2"}), "selected"),
    "h264 10 bit": (Clip(pixel_format="yuv420p10le", gop=20), "selected"),
    "h264 4:4:4": (Clip(pixel_format="yuv444p", gop=20), "selected"),
    "h264 grey": (Clip(pixel_format="gray", gop=20), "selected"),
    "h264 full range": (Clip(pixel_format="yuvj420p", gop=20), "selected"),
    "h264 rgb": (Clip("libx264rgb", pixel_format="rgb24", gop=20), "selected"),
    "h264 fragments": (Clip(gop=16, muxer={"movflags": "frag_keyframe+empty_moov"}), "selected"),
    "h264 live matroska": (Clip(container="matroska", gop=16, muxer={"live": "1"}), "selected"),
    **{
        f"hevc open GOPs in {c}": (Clip("libx265", c, options={"x265-params": X265}), "selected")
        for c in ("mp4", "matroska", "mpegts")
    },
    "hevc raw": (Clip("libx265", "hevc", options={"x265-params": X265}), "whole"),
    "hevc closed GOPs": (Clip("libx265", options={"x265-params": X265 + ":open-gop=0"}), "selected"),
    "hevc temporal layers": (Clip("libx265", options={"x265-params": X265 + ":temporal-layers=3"}), "selected"),
    "hevc decodable leading": (Clip("libx265", options={"x265-params": X265 + ":open-gop=0:radl=2"}), "selected"),
    "hevc 10 bit": (Clip("libx265", pixel_format="yuv420p10le", options={"x265-params": X265}), "selected"),
    **{f"vp9 in {c}": (Clip("libvpx-vp9", c, gop=20, options=QUICK_VPX), "selected") for c in ("webm", "mp4", "ivf")},
    "vp9 hidden frames": (Clip("libvpx-vp9", "webm", gop=24, options=HIDDEN_FRAMES), "selected"),
    "vp9 alpha": (Clip("libvpx-vp9", "webm", gop=20, pixel_format="yuva420p", options=QUICK_VPX), "selected"),
    "vp8": (Clip("libvpx", "webm", gop=20, options=QUICK_VPX), "selected"),
    "vp8 hidden frames": (Clip("libvpx", "webm", gop=24, options=HIDDEN_FRAMES), "selected"),
    **{
        f"av1 in {c}": (Clip("libsvtav1", c, gop=20, options={"preset": "12"}), "selected")
        for c in ("mp4", "webm", "ivf")
    },
    "av1 low delay": (Clip("libsvtav1", gop=20, options={"svtav1-params": "pred-struct=1:preset=12"}), "selected"),
    "av1 pyramids": (Clip("libsvtav1", frames=140, gop=64, options={"preset": "10"}), "selected"),
    "av1 fine pyramids": (Clip("libsvtav1", frames=80, gop=40, options={"preset": "6"}), "selected"),
    "av1 grain": (
        Clip("libsvtav1", frames=70, gop=64, options={"svtav1-params": "film-grain=30:preset=10"}),
        "selected",
    ),
    "av1 10 bit": (Clip("libsvtav1", pixel_format="yuv420p10le", gop=20, options={"preset": "12"}), "selected"),
    "av1 screen": (Clip("libsvtav1", frames=70, gop=64, options={"svtav1-params": "scm=1:preset=8"}), "selected"),
    **{f"mpeg4 in {c}": (Clip("mpeg4", c, tags=REORDERED), "selected") for c in ("mp4", "avi", "matroska", "mpegts")},
    "mpeg4 without B frames in avi": (Clip("mpeg4", "avi"), "selected"),
    "mpeg4 interlaced": (Clip("mpeg4", "avi", options={"flags": "+ildct+ilme"}), "selected"),
    "mpeg4 interlaced B frames": (Clip("mpeg4", gop=12, options={"flags": "+ildct+ilme"}, tags=REORDERED), "whole"),
    **{
        f"mpeg2 in {c}": (Clip("mpeg2video", c, tags=REORDERED), "selected")
        for c in ("mpegts", "mpeg", "avi", "matroska", "mpeg2video")
    },
    "mpeg2 interlaced": (Clip("mpeg2video", "mpegts", options={"flags": "+ildct+ilme"}, tags=REORDERED), "selected"),
    "mpeg1": (Clip("mpeg1video", "mpeg", tags=REORDERED), "selected"),
    **{f"mjpeg in {c}": (Clip("mjpeg", c, pixel_format="yuvj420p"), "selected") for c in ("avi", "mov", "matroska")},
    "prores": (Clip("prores_ks", "mov", pixel_format="yuv422p10le"), "selected"),
    "ffv1 alpha": (Clip("ffv1", "matroska", pixel_format="bgra"), "whole"),
    "qtrle": (Clip("qtrle", "mov", pixel_format="rgb24"), "whole"),
    "gif": (Clip("gif", "gif", pixel_format="rgb8"), "whole"),
    "apng": (Clip("apng", "apng", pixel_format="rgb24"), "whole"),
    "apng alpha": (Clip("apng", "apng", pixel_format="rgba"), "whole"),
    "png alpha": (Clip("png", "mov", pixel_format="rgba"), "selected"),
    "rawvideo": (Clip("rawvideo", "avi", pixel_format="bgr24"), "selected"),
    "flash video": (Clip("flv", "flv"), "whole"),
    "wmv": (Clip("wmv2", "asf"), "whole"),
    "msmpeg4": (Clip("msmpeg4", "avi"), "whole"),
    "odd sizes": (Clip("libvpx-vp9", "webm", width=97, height=63, gop=20, options=QUICK_VPX), "selected"),
    "odd sizes 4:4:4": (Clip(width=97, height=63, pixel_format="yuv444p", gop=20), "selected"),
}


def decode_unscaled(data: bytes, frames: int, side: int, sampling: Sampling | None = None) -> tuple[Pixels, Report]:
    """Clips [V, T, S, S, 3] at the size of the file, converted as a plain decode converts."""
    sampling = sampling or Sampling(quality="reference")
    geometry = Geometry(frames, 5, side, side)
    clips, report = decode_clips(data, {"clip": geometry}, sampling)
    return clips["clip"], report


@pytest.mark.parametrize("name", STREAMS)
def test_uniform_frames_equal_a_plain_decode(name: str) -> None:
    clip, method = STREAMS[name]
    data = clip.make()
    plain = decode_plainly(data)
    count, side = len(plain.frames), min(clip.width, clip.height)
    for wanted in (1, 3, 8, 13, 32):
        pixels, report = decode_unscaled(data, wanted, side)
        assert pixels.shape == (1, wanted, side, side, 3)
        assert (report.frames, report.method, report.truncated) == (count, method, False)
        numbers = torch.linspace(0, count - 1, wanted).long().tolist()
        for position, number in enumerate(numbers):
            expected = cut_centre(plain.frames[number], side)
            assert (pixels[0, position] == expected).all(), f"frame {number} of {count} differs"


@pytest.mark.parametrize("name", STREAMS)
def test_clips_anywhere_equal_a_plain_decode(name: str) -> None:
    clip, _ = STREAMS[name]
    data = clip.make()
    plain = decode_plainly(data)
    side = min(clip.width, clip.height)
    sampling = Sampling(policy="clip", views=3, start_seconds=0.5, quality="reference")
    pixels, report = decode_unscaled(data, 4, side, sampling)
    assert len(report.timestamps_seconds["clip"]) == 3
    for view, seconds in enumerate(report.timestamps_seconds["clip"]):
        for position, second in enumerate(seconds):
            number = _find_frame(plain.stamps, second, clip.rate)
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
    plain = decode_plainly(bytes(data))
    assert len(plain.frames) == (20 if has_control else 21)
    for number in range(20):
        sampling = Sampling(start_seconds=number / 30, quality="reference")
        pixels, report = decode_unscaled(bytes(data), 1, 64, sampling)
        assert report.frames == len(plain.frames)
        assert (pixels[0, 0] == cut_centre(plain.frames[report.frame_numbers["clip"][0][0]], 64)).all()


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
