"""Files that are valid but unusual: rotated, cropped, offset, with uneven timestamps, tiny, mislabelled."""

from __future__ import annotations

import gc
import io
import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from clip_decode import Geometry, Sampling, decode_clips
from clip_decode.picture.orientation import read_orientation
from tests.decode.images import add_exif, make_image, mux_images
from tests.decode.outcomes import decode_unscaled
from tests.decode.streams import UNEVEN
from tests.decode.synthesis import Clip, Pixels, cut_centre, decode_plainly, paint_grey, read_grey, remux


def compare(data: bytes, frames: int = 8, sampling: Sampling | None = None) -> None:
    """Uniform frames against a plain decode, at the size of the file."""
    plain = decode_plainly(data)
    side = min(plain.frames[0].shape[:2])
    pixels, report = decode_unscaled(data, frames, side, sampling)
    assert report.frames == len(plain.frames)
    numbers = np.floor(np.linspace(0, len(plain.frames) - 1, frames)).astype(int)
    for position, number in enumerate(numbers):
        assert (pixels[0, position] == cut_centre(plain.frames[number], side)).all(), number


def place_by_matrix(stored: Pixels, matrix: list[int]) -> Pixels:
    """Turn a picture upright by the definition of a display matrix, pixel by pixel."""
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    rows, columns = np.mgrid[: stored.shape[0], : stored.shape[1]]
    x, y = (a * columns + c * rows) >> 16, (b * columns + d * rows) >> 16
    x, y = x - x.min(), y - y.min()
    upright = np.zeros((y.max() + 1, x.max() + 1, 3), dtype=np.uint8)
    upright[y, x] = stored
    return upright


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("quality", ["fast", "reference"])
def test_rotated_and_mirrored_files_come_out_upright(rotation: int, flips: tuple[bool, bool], quality: str) -> None:
    data = Clip(frames=2, rotation=rotation, flips=flips).make()
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        side_data = frame.side_data.get("DISPLAYMATRIX")
        matrix = [65536, 0, 0, 0, 65536] if side_data is None else np.frombuffer(side_data, np.int32).tolist()
        stored = frame.to_ndarray(format="rgb24")
    upright = place_by_matrix(stored, matrix)
    assert (read_orientation(frame).apply(stored) == upright).all()
    geometry = Geometry(1, 1, 64, 60)
    clips, report = decode_clips(data, geometry, Sampling(quality=quality, crops=3))
    assert (report.height, report.width) == upright.shape[:2]
    top, left = (2, 18) if upright.shape[1] > upright.shape[0] else (18, 2)
    difference = np.abs(clips[1, 0].astype(int) - upright[top : top + 60, left : left + 60])
    assert difference.mean() < (4 if quality == "fast" else 0.01)


IMAGES = [("mjpeg", "avi"), ("mjpeg", "mov"), ("mjpeg", "matroska"), ("png", "mov")]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("codec", "container"), IMAGES, ids=lambda name: name)
def test_pictures_of_a_camera_come_out_upright(codec: str, container: str, orientation: int) -> None:
    """PyAV raises ValueError for a frame's side data where EXIF is among it."""
    data = mux_images([add_exif(make_image(codec, number), orientation) for number in range(4)], codec, container)
    stored = decode_plainly(mux_images([make_image(codec, number) for number in range(4)], codec, container)).frames
    pixels, report = decode_unscaled(data, 4, 64)
    assert report.frames == 4
    assert (report.width, report.height) == ((96, 64) if orientation < 5 else (64, 96))
    for number, picture in enumerate(stored):
        upright = picture.transpose(1, 0, 2) if orientation > 4 else picture
        # Where the first row and the first column of what is stored are seen (EXIF 2.3, tag 274).
        upright = upright[:, ::-1] if orientation in (2, 3, 6, 7) else upright
        upright = upright[::-1] if orientation in (3, 4, 7, 8) else upright
        assert (pixels[0, number] == cut_centre(upright, 64)).all()


def test_ffmpeg_agrees_on_the_direction_of_a_turn() -> None:
    data = Clip(frames=1, rotation=90).make()
    plain = decode_plainly(data)  # np.rot90 by the angle that FFmpeg reports.
    pixels, _ = decode_unscaled(data, 1, 64)
    assert (pixels[0, 0] == cut_centre(plain.frames[0], 64)).all()


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv"])
@pytest.mark.parametrize("offset", [0, 5000])
def test_uneven_frame_rates_are_sampled_by_time(container: str, offset: int) -> None:
    stamps = [offset + stamp for stamp in UNEVEN]
    data = Clip(container=container, frames=20, stamps=stamps, paint=paint_grey).make()
    clips, report = decode_clips(data, Geometry(9, 5, 64, 64), Sampling(policy="clip"))
    # The frame on screen at 0, 1/6, 2/6, ... seconds after the first.
    shown = [read_grey(clips[0, position]) for position in range(9)]
    moments = [round(1000 * position * 5 / 30) for position in range(9)]
    assert shown == [max(n for n, stamp in enumerate(UNEVEN) if stamp <= moment) for moment in moments]
    assert report.timestamps_seconds["clip"][0][0] == 0.0
    compare(data)


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_clips_hold_the_same_moments_at_any_frame_rate(rate: int) -> None:
    data = Clip(frames=rate * 2, rate=Fraction(rate), paint=lambda n: paint_grey(n * 30 // rate)).make()
    clips, _ = decode_clips(data, Geometry(8, 6, 64, 64), Sampling(policy="clip"))
    shown = [read_grey(clips[0, position]) for position in range(8)]
    assert all(abs(number - 6 * position) <= 1 for position, number in enumerate(shown))
    if rate != 24:
        assert shown == [6 * position for position in range(8)]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpegts", "h264"])
def test_short_videos_still_give_all_frames(count: int, container: str) -> None:
    data = Clip(container=container, frames=count, paint=paint_grey).make()
    geometry = Geometry(8, 5, 64, 64)
    clips, report = decode_clips(data, geometry)
    shown = [read_grey(clips[0, position]) for position in range(8)]
    assert shown == [int(n) for n in np.floor(np.linspace(0, count - 1, 8))]
    clips, _ = decode_clips(data, geometry, Sampling(policy="clip", views=3))
    assert clips.shape == (3, 8, 64, 64, 3)
    assert [read_grey(clips[2, position]) for position in range(8)][-1] == count - 1
    assert report.frames == count
    assert report.duration_seconds > 0


def test_edit_lists_discard_what_they_discard() -> None:
    whole = Clip(frames=40, gop=12, paint=paint_grey).make()
    data = remux(whole, "mp4", shift=-7, options={"avoid_negative_ts": "disabled"})
    plain = decode_plainly(data)
    assert len(plain.frames) == 33, "the edit list of this file discards seven frames"
    compare(data)
    compare(data, frames=13)
    clips, _ = decode_clips(data, Geometry(4, 5, 64, 64))
    assert read_grey(clips[0, 0]) == 7


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_mpegts_that_states_every_fifth_timestamp_is_sampled_by_time(b_frames: str) -> None:
    data = bytearray(Clip(container="mpegts", frames=60, gop=12, paint=paint_grey, options={"bf": b_frames}).make())
    for number, header in enumerate(re.finditer(rb"\0\0\x01\xe0", data)):
        if number % 5:
            place = header.start() + 7  # Flags, length of the timestamps, timestamps.
            data[place] &= 0x3F
            data[place + 2 : place + 2 + data[place + 1]] = b"\xff" * data[place + 1]
    clips, report = decode_clips(data, Geometry(4, 10, 64, 64), Sampling(policy="clip", start_seconds=0.5))
    assert [read_grey(clips[0, position]) for position in range(4)] == [15, 25, 35, 45]
    assert report.duration_seconds == 2


def join_parts(data: bytes, parts: list[tuple[int, int]]) -> bytes:
    """An mp4 file at 30 frames a second whose edit list joins parts of its video, each a first frame and a length."""
    place = data.index(b"elst") + 8
    _, _, first, rate = struct.unpack_from(">4i", data, place)
    entries = [struct.pack(">3i", 100 * length // 3, first + start * 512, rate) for start, length in parts]
    edited = bytearray(data[:place] + struct.pack(">i", len(parts)) + b"".join(entries) + data[place + 16 :])
    for box in (b"moov", b"trak", b"edts", b"elst"):
        size = data.index(box) - 4
        old = int.from_bytes(data[size : size + 4], "big")
        struct.pack_into(">i", edited, size, old + len(edited) - len(data))
    return bytes(edited)


@pytest.mark.parametrize("parts", [[(0, 15), (34, 15)], [(24, 28), (12, 14)], [(16, 8), (0, 4)]])
def test_parts_of_hevc_that_an_edit_list_joins_equal_a_plain_decode(parts: list[tuple[int, int]]) -> None:
    options = {"x265-params": "keyint=12:min-keyint=5:log-level=none"}
    data = join_parts(Clip("libx265", frames=60, options=options).make(), parts)
    plain = decode_plainly(data)
    for tenth in range(0, len(plain.frames) // 3, 2):
        moment = Sampling(start_seconds=tenth / 10, quality="reference")
        pixels, report = decode_unscaled(data, 1, 64, moment)
        assert report.frames == len(plain.frames)
        assert (pixels[0, 0] == cut_centre(plain.frames[report.frame_numbers["clip"][0][0]], 64)).all()


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_streams_that_start_late_count_from_their_first_frame(container: str) -> None:
    data = remux(Clip(frames=30, gop=10).make(), container, shift=90)
    compare(data)
    _, report = decode_unscaled(data, 4, 64)
    assert report.timestamps_seconds["clip"][0][0] == 0.0
    assert report.duration_seconds == pytest.approx(1.0, abs=0.02)


def test_a_header_that_lies_about_count_and_duration_is_not_believed() -> None:
    data = bytearray(Clip("mpeg4", "avi", frames=30).make())
    place = data.index(b"avih") + 8 + 16  # dwTotalFrames
    data[place : place + 4] = (100_000).to_bytes(4, "little")
    compare(bytes(data))
    data = bytearray(Clip(frames=30).make())
    place = data.index(b"mvhd") + 4 + 16  # duration
    data[place : place + 4] = (2**31).to_bytes(4, "big")
    compare(bytes(data))
    _, report = decode_unscaled(bytes(data), 4, 64)
    assert report.duration_seconds == 1.0


def test_pixels_count_as_square_whatever_the_header_says() -> None:
    stretched = Clip(frames=4, tags={"sample_aspect_ratio": Fraction(4, 3)}).make()
    assert decode_plainly(stretched).frames[0].shape == (64, 96, 3)
    compare(stretched)


@pytest.mark.parametrize("order", [("large", "small"), ("small", "large")])
def test_frames_of_another_size_midway_are_scaled_from_their_own_size(order: tuple[str, str]) -> None:
    sizes = {"large": (128, 96), "small": (96, 64)}
    parts = [Clip(container="h264", frames=10, width=sizes[n][0], height=sizes[n][1], gop=5).make() for n in order]
    data = b"".join(parts)
    plain = decode_plainly(data)
    assert len({frame.shape for frame in plain.frames}) == 2
    for quality in ("fast", "reference"):
        clips, report = decode_clips(data, Geometry(20, 1, 48, 48), Sampling(quality=quality))
        assert clips.shape == (1, 20, 48, 48, 3)
        assert report.frames == 20
        for position, frame in enumerate(plain.frames):
            alone = np.abs(clips[0, position].mean() - cut_centre(frame, min(frame.shape[:2])).mean())
            assert alone < 4


def test_among_several_streams_the_video_is_decoded() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        audio = output.add_stream("aac", rate=16000)
        video = output.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for number in range(20):
            output.mux(audio.encode(sound))
            frame = av.VideoFrame.from_ndarray(paint_grey(number), format="rgb24")
            output.mux(video.encode(frame))
        output.mux(audio.encode(None))
        output.mux(video.encode(None))
    clips, report = decode_clips(target.getvalue(), Geometry(4, 5, 64, 64))
    assert [read_grey(clips[0, position]) for position in range(4)] == [0, 6, 12, 19]
    assert report.frames == 20


def test_spans_of_seconds_are_respected() -> None:
    data = Clip(frames=60, paint=paint_grey).make()
    span = Sampling(start_seconds=0.5, end_seconds=1.5)
    clips, _ = decode_clips(data, Geometry(4, 5, 64, 64), span)
    assert [read_grey(clips[0, position]) for position in range(4)] == [15, 24, 34, 44]
    span = Sampling(policy="clip", views=2, start_seconds=0.5, end_seconds=1.5)
    clips, _ = decode_clips(data, Geometry(3, 5, 64, 64), span)
    shown = [[read_grey(clips[view, position]) for position in range(3)] for view in range(2)]
    assert shown == [[15, 20, 25], [30, 35, 40]]


def test_frames_that_were_used_do_not_wait_for_the_garbage_collector() -> None:
    """Sixteen of 8192 x 4352 would take more memory than a worker may have."""
    data = Clip(frames=16).make()
    decode_clips(data, Geometry(16, 1, 64, 64))
    gc.collect()
    gc.disable()
    try:
        decode_clips(data, Geometry(16, 1, 64, 64))
        left = [thing for thing in gc.get_objects() if type(thing) is av.VideoFrame]
    finally:
        gc.enable()
    assert len(left) <= 1
