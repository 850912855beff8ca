"""NVDEC gives the same pixels as the CPU, or leaves the video to the CPU."""

from __future__ import annotations

import importlib.util
import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import ModuleType

import av
import pytest

from clip_decode import Limits, Sampling, Truncated
from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.engine import decode_clips_with_nvdec
from clip_decode.errors import Declined
from tests.decode.both_decoders import GEOMETRIES, check, plain
from tests.decode.streams import STREAMS, X265
from tests.decode.synthesis import Clip, remux

SETTLING = 16  # Pictures that a new decoder decodes before the first video.
SAMPLINGS = (
    Sampling(),
    Sampling(policy="clip", views=3, start_seconds=0.5, quality="reference"),
    Sampling(start_seconds=1.2, end_seconds=1.3),
    Sampling(quality="draft"),
)
MORE = {
    "displayed size is not the coded size": Clip(width=98, height=66, gop=12),
    "upright": Clip(width=50, height=90, gop=12),
    "turned": Clip(rotation=90, gop=12),
    "mirrored": Clip(flips=(True, False), gop=12),
    "colours of BT.709": Clip(tags={"colorspace": 1, "color_range": 2, "color_primaries": 1, "color_trc": 1}),
    "slices": Clip(options={"x264-params": "slices=4:keyint=16"}),
    "baseline": Clip(options={"profile": "baseline"}, gop=12),
    "one frame": Clip(frames=1),
    "hevc cropped on the right": Clip("libx265", width=100, height=72, options={"x265-params": X265}),
    "av1 key frames again and again": Clip("libsvtav1", gop=2, options={"preset": "12"}),
}
# What NVDEC does not decode, or whose dependencies are unknown.
FOR_A_CPU = {
    "h264 in avi",
    "h264 raw",
    "h264 raw without B frames",
    "h264 in mpegts",
    "h264 slices",
    "h264 interlaced",
    "h264 10 bit",
    "h264 4:4:4",
    "h264 grey",
    "h264 rgb",
    "hevc raw",
    "hevc open GOPs in mpegts",
    "av1 in ivf",
    "av1 grain",
}
TAKEN = {
    **{
        name: clip
        for name, (clip, _) in STREAMS.items()
        if name.startswith(("h264", "hevc", "av1")) and name not in FOR_A_CPU
    },
    **MORE,
}
# One of each kind; the others take long together.
FEW = {
    "h264 in mp4",
    "h264 intra refresh",
    "hevc open GOPs in matroska",
    "hevc 10 bit",
    "displayed size is not the coded size",
    "turned",
    "slices",
    "one frame",
    "av1 in mp4",
    "av1 10 bit",
}


def trim(codec: str, **size: int) -> bytes:
    """A video whose edit list discards the first seven of 48 frames."""
    clip = Clip(codec, gop=20, options={"x265-params": X265} if codec == "libx265" else {}, **size)
    return remux(clip.make(), "mp4", shift=-7, options={"avoid_negative_ts": "disabled"})


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in TAKEN]
)
def test_pixels_and_facts_equal_those_of_a_cpu(nvc: ModuleType, name: str) -> None:
    nvdec = plain(nvc)
    data = TAKEN[name].make()
    for sampling in SAMPLINGS:
        if TAKEN[name].frames > 1 or sampling.start_seconds is None:
            check(nvdec, data, sampling)


@pytest.mark.parametrize("name", ["h264 tiny GOPs", "hevc closed GOPs"])
def test_key_frames_equal_those_of_a_cpu(nvc: ModuleType, name: str) -> None:
    data = replace(TAKEN[name], frames=200).make()
    report = check(plain(nvc), data, Sampling(policy="keyframes", crops=3))
    assert report.policy == "keyframes"
    assert report.decoded_frames == len({number for (view,) in report.frame_numbers.values() for number in view})


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_an_edit_list_discards_are_not_shown(nvc: ModuleType, codec: str) -> None:
    for sampling in SAMPLINGS:
        assert check(plain(nvc), trim(codec), sampling).frames == 41


@pytest.mark.parametrize("name", [*sorted(FOR_A_CPU), "vp9 in webm", "mpeg4 in mp4"])
def test_other_streams_are_left_to_a_cpu(nvc: ModuleType, name: str) -> None:
    with pytest.raises(Declined):
        decode_clips_with_nvdec(plain(nvc), STREAMS[name][0].make(), GEOMETRIES, Sampling(), Limits())


def test_damaged_files_are_left_to_a_cpu_and_files_without_a_frame_refused(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    data = Clip(gop=12, muxer={"movflags": "frag_keyframe+empty_moov"}).make()
    with pytest.raises(Declined):
        decode_clips_with_nvdec(nvdec, data[: len(data) * 2 // 3], GEOMETRIES, Sampling(), Limits())
    with pytest.raises(Truncated):
        decode_clips_with_nvdec(nvdec, Clip(gop=12).make()[:3000], GEOMETRIES, Sampling(), Limits())
    assert nvc.made == []


def test_packets_that_no_wanted_frame_depends_on_are_not_sent(nvc: ModuleType) -> None:
    data = Clip(frames=120, gop=120, options={"x264-params": "bframes=3:b-adapt=0:scenecut=0"}).make()
    report = check(plain(nvc), data, Sampling())
    sent = [packet for packet in nvc.packets if packet][SETTLING:]
    assert len(sent) == report.decoded_frames < 80
    # The parameter sets come first: a cached decoder still has those of another stream.
    assert sent[0].startswith((b"\0\0\0\x01\x67", b"\0\0\x01\x67"))


def test_a_gpu_without_a_decoder_for_it_declines(nvc: ModuleType) -> None:
    nvc.faults.add("no decoder")
    with pytest.raises(Declined, match="h264 of 96 x 64"):
        decode_clips_with_nvdec(plain(nvc), Clip().make(), GEOMETRIES, Sampling(), Limits())
    nvc.faults.clear()
    with pytest.raises(Declined, match="32 x 32"):  # The least is 48 x 16.
        decode_clips_with_nvdec(plain(nvc), Clip(width=32, height=32).make(), GEOMETRIES, Sampling(), Limits())


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("superres-mode=1:superres-denom=12", "super-resolution"),
        ("resize-mode=1:resize-denom=12", "a size of its own"),
        ("film-grain=30", "film grain"),
    ],
)
def test_av1_that_needs_more_than_decoding_is_for_a_cpu(nvc: ModuleType, parameters: str, reason: str) -> None:
    options = {"svtav1-params": f"preset=10:{parameters}"}
    data = Clip("libsvtav1", width=320, height=192, frames=24, gop=24, options=options).make()
    with pytest.raises(Declined, match=reason):
        decode_clips_with_nvdec(plain(nvc), data, GEOMETRIES, Sampling(), Limits())


def test_av1_goes_to_hardware_in_whole_packets(nvc: ModuleType) -> None:
    data = Clip("libsvtav1", frames=64, gop=32, options={"preset": "10"}).make()
    report = check(plain(nvc), data, Sampling())
    with av.open(io.BytesIO(data)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    sent = [packet for packet in nvc.packets if packet][SETTLING:]
    assert len(sent) == report.decoded_frames < len(packets)
    assert set(sent) <= set(packets)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": "bframes=0:ref=2:scenecut=0"}),
        ("libx265", {"x265-params": f"{X265}:bframes=0"}),
    ],
)
def test_a_video_that_lacks_a_frame_is_for_a_cpu(nvc: ModuleType, codec: str, options: dict[str, str]) -> None:
    """As a recorder of a network stream writes it. NVDEC's parser goes on without a word."""
    data = Clip(codec, gop=24, options=options).make()
    check(plain(nvc), data, Sampling())
    with pytest.raises(Declined, match="missing"):
        decode_clips_with_nvdec(plain(nvc), remux(data, "mp4", lost=30), GEOMETRIES, Sampling(), Limits())


@pytest.fixture(scope="session")
def gpu() -> Nvdec:
    """NVDEC itself."""
    nvdec = Nvdec(importlib.import_module("PyNvVideoCodec"), Cuda(), megabytes=4096)
    assert nvdec.warm_up().count("8 bits ready") == 2
    return nvdec


@pytest.mark.needs("nvdec")
@pytest.mark.parametrize("name", TAKEN)
def test_a_gpu_gives_the_pixels_of_a_cpu(gpu: Nvdec, name: str) -> None:
    if name.startswith("av1") and "av1 of 8 bits" not in gpu.kinds:
        pytest.skip("this GPU has no decoder for AV1 (Ampere other than the A100, Ada and Blackwell have)")
    # NVDEC takes no smaller pictures of HEVC than 144 x 144.
    data = replace(TAKEN[name], width=TAKEN[name].width + 160, height=TAKEN[name].height + 160).make()
    for sampling in SAMPLINGS:
        if TAKEN[name].frames > 1 or sampling.start_seconds is None:
            check(gpu, data, sampling)


@pytest.mark.needs("nvdec")
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_gpu_does_not_show_frames_that_an_edit_list_discards(gpu: Nvdec, codec: str) -> None:
    for sampling in SAMPLINGS:
        check(gpu, trim(codec, width=256, height=224), sampling)


@pytest.mark.needs("nvdec")
def test_a_gpu_gives_them_to_many_streams_at_a_time(gpu: Nvdec) -> None:
    clips = [Clip(c, width=w, height=h, gop=12) for c in ("libx264", "libx265") for w, h in ((320, 530), (320, 532))]
    videos = [clip.make() for clip in clips]
    with ThreadPoolExecutor(14) as threads:
        list(threads.map(lambda video: check(gpu, video, Sampling()), videos * 14))


@pytest.mark.needs("nvdec")
@pytest.mark.parametrize("container", ["mpegts", "matroska", "h264"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9, 0.98])
def test_a_gpu_gives_the_pixels_of_a_cpu_for_cut_files_or_leaves_them_to_it(
    gpu: Nvdec, container: str, share: float
) -> None:
    data = Clip(container=container, width=320, height=192, gop=12, options={"bf": "0"}).make()
    with suppress(Declined):
        check(gpu, data[: int(len(data) * share)], Sampling())
