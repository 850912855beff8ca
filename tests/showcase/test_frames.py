"""The frames that the page shows are exactly the frames that the report lists."""

import base64
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from clipserve.frames.extraction import extract, extract_thumbnail
from clipserve.frames.frame_program import FrameReader, extract_frames
from clipserve.showcase.filmstrip import MOST_FRAMES, extract_filmstrip
from clipserve_export.motion.videos import write_video

FPS = 10
# Long enough that it pays to seek: 30 s, with a key frame every 2.5 s.
COUNT = 300


def level(number: int) -> int:
    """The grey of a frame: a step of 7 from one to the next, so that neighbours cannot be mistaken."""
    return 16 + number * 7 % 220


def grey_video(container: str, codec: str, *, width: int = 64, height: int = 48, count: int = COUNT) -> bytes:
    file = io.BytesIO()
    frames = (np.full((height, width, 3), level(number), np.uint8) for number in range(count))
    write_video(file, frames, fps=FPS, codec=codec, container=container, options={"g": "25"})
    return file.getvalue()


def read_grey(jpeg: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")],
)
def test_frames_are_the_ones_asked_for_near_and_far(container: str, codec: str) -> None:
    video = grey_video(container, codec)
    numbers = [0, 1, 7, 8, 130, 131, 271, COUNT - 1]
    with av.open(io.BytesIO(video)) as plain:
        times = [float(frame.time or 0) for frame in plain.decode(video=0)]
    wanted = [times[number] - times[0] for number in numbers]
    jpegs = dict(extract_frames(video, wanted, height=48))
    assert sorted(jpegs) == wanted
    for number, seconds in zip(numbers, wanted, strict=True):
        assert read_grey(jpegs[seconds]) == pytest.approx(level(number), abs=2.5)


@pytest.mark.parametrize(("codec", "pixel_format"), [("gif", "gray"), ("apng", "rgb24")])
def test_frames_of_an_animation_are_the_ones_asked_for(codec: str, pixel_format: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=codec) as output:
        stream = output.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for number in range(30):
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), level(number), np.uint8), format="rgb24")
            output.mux(stream.encode(frame.reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    jpegs = dict(extract_frames(file.getvalue(), [0.0, 0.8, 2.9], height=48))
    assert [round(read_grey(jpeg)) for jpeg in jpegs.values()] == [level(0), level(8), level(29)]


def test_a_time_between_two_frames_gives_nothing() -> None:
    assert list(extract_frames(grey_video("mp4", "libx264", count=20), [0.15], height=48)) == []


def test_far_frames_are_reached_without_decoding_what_lies_between() -> None:
    reader = FrameReader(grey_video("mp4", "libx264"))
    assert reader.find(27.1) is not None
    assert reader.decoded_since_seek < 50


def test_frames_of_a_rotated_video_are_upright() -> None:
    plain = io.BytesIO()
    left_white = np.zeros((48, 64, 3), np.uint8)
    left_white[:, :32] = 255
    write_video(plain, [left_white] * 3, fps=FPS, container="mp4")
    turned = turn_quarter(plain.getvalue())
    ((_, jpeg),) = extract_frames(turned, [0.0], height=64)
    picture = Image.open(io.BytesIO(jpeg)).convert("L")
    assert picture.size == (48, 64)
    top, bottom = picture.getpixel((24, 8)), picture.getpixel((24, 56))
    # The matrix below turns clockwise: the left side comes to the top.
    assert (top, bottom) == (pytest.approx(255, abs=20), pytest.approx(0, abs=20))


def turn_quarter(mp4: bytes) -> bytes:
    """Write a quarter turn clockwise into the track header, as a phone held upright does."""
    identity = b"".join(value.to_bytes(4, "big") for value in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    start = mp4.index(identity, mp4.index(b"tkhd"))
    quarter = (0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000)
    return mp4[:start] + b"".join(value.to_bytes(4, "big") for value in quarter) + mp4[start + 36 :]


def test_bytes_that_name_a_file_open_no_file(tmp_path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(grey_video("mp4", "libx264", count=5))
    script = f"ffconcat version 1.0\nfile {secret}\n".encode()
    with pytest.raises((OSError, ValueError)):
        FrameReader(script)
    assert extract(script, [0.0]) == {}


def test_no_video_draws_nothing() -> None:
    assert extract(b"no video at all" * 100, [0.0]) == {}
    assert extract_thumbnail(b"") is None


def test_a_thumbnail_is_from_the_middle() -> None:
    thumbnail = extract_thumbnail(grey_video("mp4", "libx264"), height=24)
    assert thumbnail is not None
    assert read_grey(base64.b64decode(thumbnail)) == pytest.approx(level(COUNT // 2), abs=2.5)


def test_a_missing_frame_is_blank_and_a_repeated_one_is_repeated() -> None:
    video = grey_video("mp4", "libx264", count=10)
    strip = extract_filmstrip(video, {"timestamps_seconds": {"CLIP": [[0.0, 0.1, 0.1, 99.0]]}})
    ((first, second, again, beyond),) = strip.views
    assert first.jpeg is not None
    assert second.jpeg == again.jpeg is not None
    assert (beyond.seconds, beyond.jpeg) == (99.0, None)


def test_a_page_shows_a_bounded_number_of_frames() -> None:
    video = grey_video("mp4", "libx264", count=10)
    view = [float(Fraction(number % 10, FPS)) for number in range(50)]
    strip = extract_filmstrip(video, {"timestamps_seconds": {"CLIP": [view] * 4}})
    assert sum(map(len, strip.views)) == MOST_FRAMES
    assert strip.left_out == 200 - MOST_FRAMES
