"""Bytes from strangers: each gets an answer or one typed error, and nothing else is touched."""

from __future__ import annotations

import io
import random
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from clip_decode import DecodeError, Geometry, Limits, Sampling, decode_clips
from tests.decode.images import make_image
from tests.decode.mutation import BASES, mutate
from tests.decode.outcomes import decode_unscaled, refusal
from tests.decode.synthesis import Clip, cut_centre, decode_plainly, paint_grey, read_grey

CLIP = Geometry(8, 5, 64, 64)
RANDOM = random.Random(1)


def make_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("video.mp4", Clip(frames=3).make())
    return file.getvalue()


def make_sound(container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        for _ in range(10):
            output.mux(stream.encode(sound))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"\0", "no format known"),
        (b"\0" * 10_000, "no format known"),
        (RANDOM.randbytes(100), "no format known"),
        (RANDOM.randbytes(100_000), "no format known"),
        (b"just some text, repeated. " * 200, "no format known"),
        (b"Good morning", "no format known"),  # G is also how packets of MPEG-TS begin
        (b"G" + bytes(187) + b"Good morning" + bytes(300), "no format known"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsegment.ts\n", "HLS playlist"),
        (b"<?xml version='1.0'?><MPD></MPD>", "XML"),
        (b"%PDF-1.7\n" + RANDOM.randbytes(1000), "PDF"),
        (b"\x1f\x8b\x08\0" + RANDOM.randbytes(1000), "gzip"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value.replace(" ", "-"),
)
def test_bytes_that_are_no_video_are_named(data: bytes, sentence: str) -> None:
    error = refusal(data)
    assert error.code == "not-a-video"
    assert sentence in error.message


@pytest.mark.parametrize("codec", ["png", "mjpeg", "bmp", "gif", "tiff"])
def test_images_are_refused(codec: str) -> None:
    assert refusal(make_image(codec)).code == "not-a-video"


AVIF = Clip("libsvtav1", "avif", options={"preset": "12"}, paint=paint_grey)


@pytest.mark.parametrize("brand", [b"avif", b"heic", b"heix", b"mif1"])
def test_heif_and_avif_pictures_are_refused(brand: bytes) -> None:
    data = replace(AVIF, frames=1).make()
    assert data[8:12] == b"avif"
    data = data[:8] + brand + data[12:]
    pictures = (data, data[:600], data[:8] + b"what" + data[12:])
    for picture in pictures:
        error = refusal(picture)
        assert error.code == "not-a-video"
        assert "a HEIF or AVIF image" in error.message


def test_a_sequence_of_avif_pictures_is_a_video() -> None:
    """Beside its track it has the first picture as a still, which FFmpeg shows as another stream."""
    clips, report = decode_clips(replace(AVIF, frames=9).make(), Geometry(9, 1, 64, 64))
    assert report.frames == 9
    assert [read_grey(clips[0, position]) for position in range(9)] == list(range(9))


CENC = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}


@pytest.mark.parametrize("fragments", [{}, {"movflags": "frag_keyframe+empty_moov"}], ids=["index", "fragments"])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_an_encrypted_mp4_is_said_to_be(codec: str, fragments: dict[str, str]) -> None:
    data = Clip(codec, frames=12, muxer={**CENC, **fragments}).make()
    assert refusal(data).code == "encrypted"
    # FairPlay hides the codec as well, and older protections keep keys and vectors in boxes of their own.
    assert refusal(data.replace(b"encv", b"drmi", 1)).code == "encrypted"
    assert (
        refusal(data.replace(b"senc", b"free").replace(b"saiz", b"free").replace(b"saio", b"free")).code == "encrypted"
    )
    assert refusal(data.replace(b"sinf", b"free").replace(b"saiz", b"free")).code == "encrypted"


def test_an_encrypted_webm_is_said_to_be() -> None:
    data = Clip("libvpx-vp9", "webm", frames=6).make()
    # In place of the track's UID, lacing and language: ContentEncodings with a key's id, and padding.
    place = data.index(b"\x73\xc5\x88")
    assert data[place + 11 : place + 21] == b"\x9c\x81\x00\x22\xb5\x9c\x83und"
    encryption = bytes.fromhex("6d808e 62408b 50338101 503584 47e28161 ec820000")
    error = refusal(data[:place] + encryption + data[place + 21 :])
    assert error.code == "encrypted"
    assert "no key" in error.message


@pytest.mark.parametrize("make", [Clip("libwebp_anim", "webp", frames=3).make, lambda: make_image("gif"), AVIF.make])
def test_the_first_bytes_of_an_image_are_no_video(make: Callable[[], bytes]) -> None:
    data = make()
    assert {refusal(data[:length]).code for length in range(64)} <= {"not-a-video", "truncated"}


def test_archives_and_sound_files_are_refused() -> None:
    assert refusal(make_archive()).code == "not-a-video"
    assert refusal(make_sound("wav", "pcm_s16le")).code == "not-a-video"
    assert refusal(make_sound("mp3", "libmp3lame")).code == "not-a-video"


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "aac"), ("matroska", "aac"), ("mpegts", "aac"), ("flv", "aac")]
)
def test_sound_alone_is_no_video_stream(container: str, codec: str) -> None:
    error = refusal(make_sound(container, codec))
    assert error.code == "no-video-stream"
    assert "audio" in error.message


@pytest.mark.parametrize(("codec", "pixels"), [("snow", "yuv420p"), ("zmbv", "bgr0"), ("asv1", "yuv420p")])
def test_codecs_off_the_list_are_refused(codec: str, pixels: str) -> None:
    data = Clip(codec, "avi", frames=3, pixel_format=pixels, options={"strict": "experimental"}).make()
    error = refusal(data)
    assert error.code == "unsupported-codec"
    assert codec in error.message


def test_an_mp4_without_its_index_says_so() -> None:
    data = Clip(frames=20).make()
    place = data.index(b"moov") - 4
    for cut in (40, place // 2, place):
        error = refusal(data[:cut])
        assert error.code == "truncated"
        assert "moov" in error.message
    assert "cut off" in refusal(data[: place + 100]).message


def test_a_container_without_frames_is_truncated() -> None:
    assert refusal(Clip(container="matroska", frames=1).make()[:400]).code == "truncated"
    assert refusal(Clip(container="flv", frames=1).make()[:60]).code in ("truncated", "no-video-stream")
    data = bytearray(Clip(container="avi", codec="mpeg4", frames=3).make())
    place = data.index(b"movi")
    data[place + 4 :] = bytes(len(data) - place - 4)
    assert refusal(bytes(data)).code == "truncated"


TRUNCATED = {
    "mp4": Clip(frames=60, gop=12, muxer={"moov_size": "8192"}),
    "fragments": Clip(frames=60, gop=12, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "matroska": Clip(container="matroska", frames=60, gop=12),
    "mpegts": Clip(container="mpegts", frames=60, gop=12),
    "avi": Clip("mpeg4", "avi", frames=60),
    "flv": Clip(container="flv", frames=60, gop=12),
    "webm": Clip("libvpx-vp9", "webm", frames=60, gop=12, options={"deadline": "realtime"}),
    "raw": Clip(container="h264", frames=60, gop=12),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_cut_at_any_tenth_gives_the_frames_it_has(name: str) -> None:
    data = TRUNCATED[name].make()
    assert not decode_unscaled(data, 8, 64)[1].truncated
    answers = 0
    for tenth in range(1, 10):
        piece = data[: len(data) * tenth // 10]
        try:
            plain = decode_plainly(piece).frames
        except (av.error.FFmpegError, IndexError):
            plain = []
        if not plain:
            assert refusal(piece).code in ("truncated", "not-a-video", "no-video-stream")
            continue
        pixels, report = decode_unscaled(piece, 8, 64)
        answers += 1
        assert report.frames == len(plain)
        for position, number in enumerate(np.floor(np.linspace(0, len(plain) - 1, 8)).astype(int)):
            assert (pixels[0, position] == cut_centre(plain[number], 64)).all()
        # A raw stream does not say how long it is, and one of MPEG-TS may end with any packet.
        if name != "raw" and not (name == "mpegts" and len(piece) % 188 == 0):
            assert report.truncated
    assert answers >= 6


def test_a_script_that_names_a_file_reads_nothing(tmp_path: Path) -> None:
    video = tmp_path / "secret.mp4"
    video.write_bytes(Clip(frames=10).make())
    script = f"ffconcat version 1.0\nfile '{video}'\nduration 1\n".encode()
    assert refusal(script).code == "not-a-video"
    assert "concat" in refusal(script).message
    with av.open(io.BytesIO(script), options={"safe": "0"}) as opened:
        assert opened.streams.video, "the same bytes do open the file where nothing prevents it"


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtmp", "ftp"])
def test_playlists_connect_to_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/segment.ts"
        connected = threading.Event()

        def wait() -> None:
            try:
                server.accept()[0].close()
                connected.set()
            except TimeoutError:
                pass

        waiting = threading.Thread(target=wait)
        waiting.start()
        for script in (
            f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{address}'\n",
            f"[playlist]\nFile1={address}\n",
            f"<?xml version='1.0'?><MPD><BaseURL>{address}</BaseURL></MPD>",
            f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video {server.getsockname()[1]} RTP/AVP 96\r\n",
        ):
            assert refusal(script.encode()).code == "not-a-video"
        waiting.join()
        assert not connected.is_set()


def test_an_mp4_that_points_into_another_file_reads_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mov"
    secret.write_bytes(Clip(container="mov", frames=10).make())
    data = Clip(container="mov", frames=10).make()
    # A data reference that is not "this file" (flags 0) but an alias with a path.
    place = data.index(b"dref")
    old = data[place - 4 : place + 24]
    path = str(secret).encode()
    alias = b"\0" * 10 + path
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    assert len(old) == 28
    mutated = bytearray(data.replace(old, new))
    for box in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.index(box) - 4
        size = int.from_bytes(data[start : start + 4], "big") + len(new) - len(old)
        mutated[start : start + 4] = size.to_bytes(4, "big")
    # FFmpeg falls back to the bytes given, whose frames stay where they were.
    _, report = decode_clips(bytes(mutated), CLIP)
    assert report.frames == 10


def test_limits_have_their_own_errors() -> None:
    data = Clip(frames=60).make()
    assert refusal(data, Limits(max_bytes=len(data) - 1)).code == "too-large"
    assert refusal(data, Limits(max_pixels=96 * 64 - 1)).code == "too-large"
    assert refusal(data, Limits(max_seconds=1)).code == "too-long"
    assert refusal(data, Limits(max_frames=59)).code == "too-long"
    roomy = Limits(max_bytes=len(data), max_pixels=96 * 64, max_seconds=2, max_frames=60)
    assert decode_clips(data, CLIP, Sampling(), roomy)[1].frames == 60


def test_a_stream_that_grows_past_the_limit_is_refused() -> None:
    small = Clip(container="h264", frames=5).make()
    large = Clip(container="h264", frames=5, width=640, height=480).make()
    error = refusal(small + large, Limits(max_pixels=320 * 240))
    assert error.code == "too-large"


@pytest.mark.parametrize("size", [(65535, 65535), (65535, 16), (16, 65535), (0, 0)])
def test_a_header_that_lies_about_size_costs_nothing(size: tuple[int, int]) -> None:
    data = bytearray(Clip("mjpeg", "avi", frames=5, pixel_format="yuvj420p").make())
    place = data.index(b"strf") + 8 + 4
    data[place : place + 8] = struct.pack("<ii", *size)
    for start in [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xc0\0"]:
        data[start + 5 : start + 9] = struct.pack(">HH", *size)
    assert refusal(bytes(data)).code in ("too-large", "truncated")


def test_a_span_behind_the_end_is_an_invalid_request() -> None:
    with pytest.raises(DecodeError, match=r"ends at 1\.000") as caught:
        decode_clips(Clip(frames=30).make(), CLIP, Sampling(start_seconds=5))
    assert caught.value.code == "invalid-request"
    with pytest.raises(DecodeError, match="no clip"):
        decode_clips(b"", {})


@pytest.mark.parametrize("name", BASES)
def test_damaged_files_give_an_answer_or_a_typed_error(name: str) -> None:
    data = BASES[name].make()
    chance = random.Random(name)
    outcomes: list[str] = []
    for _ in range(40):
        try:
            clips, report = decode_clips(mutate(data, chance), CLIP)
        except DecodeError as error:
            outcomes.append(error.code)
        else:
            outcomes.append("answer")
            assert clips.shape == (1, 8, 64, 64, 3)
            assert report.frames >= 1
    refusals = {"not-a-video", "truncated", "no-video-stream", "unsupported-codec", "too-large"}
    assert set(outcomes) <= refusals | {"answer"}
    assert outcomes.count("answer") > 10


def test_damage_prints_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    for name in ("h264 mp4", "mpeg2", "hevc"):
        (tmp_path / name).write_bytes(mutate(BASES[name].make()[:-300], chance))
    script = f"""
import pathlib
from clip_decode import DecodeError, Geometry, decode_clips
for path in pathlib.Path({str(tmp_path)!r}).iterdir():
    try:
        decode_clips(path.read_bytes(), Geometry(8, 5, 64, 64))
    except DecodeError:
        pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
