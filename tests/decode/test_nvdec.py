"""NVDEC gives the same pixels as the CPU, or leaves the video to the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import json
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import ModuleType

import av
import pytest

from clip_decode import Geometry, Limits, Report, Sampling, Truncated, decode_clips
from clip_decode.decode.nvdec import cuda, decoder_cache
from clip_decode.decode.nvdec.annexb import AnnexBStream
from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.decoder_cache import estimate_megabytes
from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.decode.nvdec.sample_pictures import read_sample
from clip_decode.decode.nvdec.sequence_parameter_set import read_h264_parameters, read_hevc_parameters
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.h264 import read_h264_sequence
from clip_decode.dependencies.nal_units import read_hvcc_sets, split_units, unescape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clip_decode.engine import decode_clips_with_nvdec
from clip_decode.errors import Declined, InvalidRequest
from tests.decode.streams import STREAMS, X265
from tests.decode.synthesis import Clip, remux

SETTLING = 16  # Pictures that a new decoder decodes before the first video.
GEOMETRIES = {"large": Geometry(8, 5, 64, 64), "small": Geometry(5, 5, 48, 40)}
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


def plain(nvc: ModuleType, *, megabytes: int = 1000, excluded: Collection[str] = ()) -> Nvdec:
    return Nvdec(nvc, Cuda(), megabytes=megabytes, excluded=excluded)


def trim(codec: str, **size: int) -> bytes:
    """A video whose edit list discards the first seven of 48 frames."""
    clip = Clip(codec, gop=20, options={"x265-params": X265} if codec == "libx265" else {}, **size)
    return remux(clip.make(), "mp4", shift=-7, options={"avoid_negative_ts": "disabled"})


def facts(report: Report) -> dict[str, object]:
    """What a report says about the video, not about its decoding."""
    values = json.loads(report.to_json())
    # NVDEC takes AV1 by whole packets, and a CPU by frames.
    others = {"decoder", "decode_milliseconds", *(["decoded_frames"] if report.codec == "av1" else [])}
    return {name: value for name, value in values.items() if name not in others}


def check(nvdec: Nvdec, data: bytes, sampling: Sampling) -> Report:
    """Compare both decoders, to the bit."""
    pixels, report = decode_clips_with_nvdec(nvdec, data, GEOMETRIES, sampling, Limits())
    expected, by_cpu = decode_clips(data, GEOMETRIES, sampling, Limits())
    assert (report.decoder, by_cpu.decoder) == ("nvdec", "cpu")
    assert facts(report) == facts(by_cpu)
    assert report.decoded_frames >= by_cpu.decoded_frames
    for name in GEOMETRIES:
        assert (pixels[name] == expected[name]).all()
    return report


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


def test_a_decoder_is_used_again_for_a_stream_alike(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    for gop in (5, 12, 48):
        check(nvdec, Clip(gop=gop).make(), Sampling())
    assert (nvdec.cache.created, nvdec.cache.reconfigured) == (1, 0)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_a_decoder_is_set_up_for_another_displayed_size_in_the_same_coded_size(nvc: ModuleType, codec: str) -> None:
    nvdec = plain(nvc)
    options = {"libx265": {"x265-params": X265}, "libsvtav1": {"preset": "12"}}.get(codec, {})
    for height in (64, 50, 52, 50, 64):
        check(nvdec, Clip(codec, width=160, height=height, gop=12, options=options).make(), Sampling())
    assert nvdec.cache.created == 1
    if codec == "libx264":  # 50 and 52 lines are 64 coded ones: each time there is a sample picture between them.
        assert nvdec.cache.reconfigured == 4
        assert nvc.resized.count((208, 176)) == 4


def test_a_decoder_is_reconfigured_for_another_size(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    for width, height in ((96, 64), (160, 120), (98, 66), (66, 98), (160, 120)):
        check(nvdec, Clip(width=width, height=height, gop=12).make(), Sampling())
    assert (nvdec.cache.created, nvdec.cache.reconfigured) == (1, 4)
    assert (208, 176) not in nvc.resized


def test_a_decoder_is_set_up_for_a_stream_that_keeps_more_frames(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    reconfigured = []
    for references in ("2", "1", "8", "1", "8"):
        check(nvdec, Clip(gop=24, options={"x264-params": f"ref={references}:bframes=0"}).make(), Sampling())
        reconfigured.append(nvdec.cache.reconfigured)
    assert nvdec.cache.created == 1
    assert reconfigured == [0, 0, 1, 1, 1]


def test_a_decoder_is_not_set_up_for_ever(nvc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_cache, "MAX_RESIZES", 2)
    nvdec = plain(nvc)
    for width in (96, 128, 160, 160, 192):
        check(nvdec, Clip(width=width, gop=12).make(), Sampling())
    assert (nvdec.cache.created, nvdec.cache.reconfigured) == (2, 2)


def test_a_request_that_cannot_be_met_costs_no_decoder(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    data = Clip(gop=12).make()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            decode_clips_with_nvdec(nvdec, data, GEOMETRIES, Sampling(start_seconds=100), Limits())
        check(nvdec, data, Sampling())
    assert nvdec.cache.created == 1


def test_a_stream_of_the_samples_size_gets_a_decoder(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    nvdec.warm_up()
    check(nvdec, Clip(width=208, height=176, gop=12).make(), Sampling())


def test_after_the_start_no_first_video_waits_for_a_decoder(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    kinds: list[str] = []
    summary = nvdec.warm_up(kinds.append)
    assert kinds == ["hevc of 10 bits", "hevc of 8 bits", "h264 of 8 bits"]
    assert re.fullmatch(
        "h264 of 8 bits ready, h264 of 10 bits left to CPUs, hevc of 8 bits ready, hevc of 10 bits ready,"
        r" av1 of 8 bits on demand, av1 of 10 bits on demand; after \d+\.\d\d s",
        summary,
    )
    assert len(nvc.made) == nvdec.cache.created == 3
    x265 = {"x265-params": X265}
    for clip in (
        Clip(gop=12),
        Clip("libx265", options=x265),
        Clip("libx265", pixel_format="yuv420p10le", options=x265),
        Clip(width=160, height=90),
        Clip(width=640, height=360),
    ):
        check(nvdec, replace(clip, frames=24).make(), Sampling())
    assert len(nvc.made) == 3


@pytest.mark.parametrize(
    ("fault", "expected", "taken"),
    [
        ("no decoder hevc", r"h264 of 8 bits ready, .*hevc of 8 bits left to CPUs,", {"h264"}),
        ("no answer hevc", r"h264 of 8 bits ready, .*hevc of 8 bits left to CPUs \(.*NOT_SUPPORTED\)", {"h264"}),
        ("wrong pixels hevc", r"h264 .*hevc of 8 bits left to CPUs \(its sample picture is wrong\)", {"h264"}),
        ("fail h264", r"h264 of 8 bits left to CPUs \(.*CUDA_ERROR_UNKNOWN\), .*hevc of 8 bits ready", {"hevc"}),
        ("lose a frame", r"(h264|.*hevc) of 8 bits left to CPUs \(.* gave 0 frames\)", set()),
        ("out of memory", r"(h264|.*hevc) of 8 bits not created ahead \(.* error 2\)", {"h264", "hevc"}),
    ],
)
def test_what_a_gpu_says_of_itself_is_tried_at_the_start(
    nvc: ModuleType, fault: str, expected: str, taken: set[str]
) -> None:
    nvc.faults.add(fault)
    nvdec = plain(nvc)
    assert re.match(expected, nvdec.warm_up())
    nvc.faults.clear()
    for codec, name in (("libx264", "h264"), ("libx265", "hevc")):
        data = Clip(codec, frames=12, gop=12, options={"x265-params": X265} if name == "hevc" else {}).make()
        if name in taken:
            check(nvdec, data, Sampling())
        else:
            with pytest.raises(Declined, match=name):
                decode_clips_with_nvdec(nvdec, data, GEOMETRIES, Sampling(), Limits())


def test_a_gpu_that_answers_nothing_does_not_start(nvc: ModuleType) -> None:
    nvc.faults.update(f"no answer {codec}" for codec in ("h264", "hevc", "av1"))
    with pytest.raises(RuntimeError, match=r"does not say what it decodes: .*NOT_SUPPORTED"):
        plain(nvc)


def test_sizes_that_may_be_one_to_the_driver_are_set_up_by_way_of_a_sample(nvc: ModuleType) -> None:
    """536 and 544 lines of HEVC may be the same number of blocks; PyNvVideoCodec then keeps what it was set up for."""
    nvdec = plain(nvc)
    sizes = [(320, 536), (320, 544), (320, 608), (320, 544)]
    for width, height in sizes:
        options = {"x265-params": X265}
        check(nvdec, Clip("libx265", width=width, height=height, frames=3, options=options).make(), Sampling())
    # To a sample ahead of 544 lines alone: the other two differ by more than a block.
    assert len(nvc.made) == 1
    assert nvc.resized == [(208, 176), (320, 544), (320, 608), (320, 544)]


def test_where_memory_is_short_the_most_common_kind_has_a_decoder(nvc: ModuleType) -> None:
    nvdec = plain(nvc, megabytes=250)
    nvdec.warm_up()
    assert nvc.made[-1]["codec"] == nvc.cudaVideoCodec.H264
    check(nvdec, Clip(gop=12, options={"x264-params": "ref=1:bframes=0"}).make(), Sampling())
    assert len(nvc.made) == 3


def test_a_kind_that_is_excluded_is_not_even_tried(nvc: ModuleType) -> None:
    nvdec = plain(nvc, excluded=["h264 of 8 bits"])
    kinds: list[str] = []
    nvdec.warm_up(kinds.append)
    assert kinds == ["hevc of 10 bits", "hevc of 8 bits"]
    with pytest.raises(Declined, match="h264"):
        decode_clips_with_nvdec(nvdec, Clip().make(), GEOMETRIES, Sampling(), Limits())


def test_neither_codec_takes_the_decoders_of_the_other(nvc: ModuleType) -> None:
    nvdec = plain(nvc)
    nvdec.warm_up()
    videos = [Clip(c, gop=12, options=o).make() for c, o in (("libx264", {}), ("libx265", {"x265-params": X265}))]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda video: check(nvdec, video, Sampling()), videos * 6))
    assert nvdec.cache.created <= 6


def test_decoders_share_their_memory_bound(nvc: ModuleType) -> None:
    nvdec = plain(nvc, megabytes=360)
    nvdec.warm_up()
    # The first ones are created for fewer frames than the others keep.
    options: list[tuple[str, dict[str, str]]] = [
        ("libx264", {"x264-params": "ref=1:bframes=0"}),
        ("libx264", {"x264-params": "ref=16:bframes=3"}),
        ("libx265", {"x265-params": X265}),
    ]
    videos = [Clip(codec, width=96 + 16 * i, gop=12, options=o).make() for i, (codec, o) in enumerate(options)]
    with ThreadPoolExecutor(6) as threads:
        answers = threads.map(lambda video: check(nvdec, video, Sampling()), videos * 4)
        assert all(report.decoder == "nvdec" for report in answers)
    assert 0 < nvdec.cache.megabytes <= 360
    with pytest.raises(Declined, match="MiB"):
        decode_clips_with_nvdec(plain(nvc, megabytes=90), videos[1], GEOMETRIES, Sampling(), Limits())


def test_the_bound_of_a_decoder_covers_the_frames_that_come_out_at_once() -> None:
    sequence = read_sample("h264", 8).sequence
    picture = 1920 * 1920 * 1.5 / 2**20
    for kept, surfaces in ((1, 1 + 6 + 8), (4, 4 + 6 + 8), (16, 16 + 16 + 8)):
        megabytes = estimate_megabytes(replace(sequence, kept_frames=kept), 1920)
        assert 0 <= megabytes - surfaces * picture < 1


def test_the_memory_of_the_networks_is_not_taken(nvc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nvdec = plain(nvc)
    monkeypatch.setenv("FAKE_GPU_MEGABYTES", "512")
    with pytest.raises(Declined, match="to spare"):
        decode_clips_with_nvdec(nvdec, Clip().make(), GEOMETRIES, Sampling(), Limits())
    assert "to spare" in nvdec.warm_up()
    assert nvc.made == []
    monkeypatch.delenv("FAKE_GPU_MEGABYTES")
    check(nvdec, Clip(options={"x264-params": "ref=1:bframes=0"}).make(), Sampling())
    # Nor by a decoder that would have to grow.
    monkeypatch.setenv("FAKE_GPU_MEGABYTES", "512")
    with pytest.raises(Declined, match="to spare"):
        decode_clips_with_nvdec(
            nvdec, Clip(options={"x264-params": "ref=16:bframes=0"}).make(), GEOMETRIES, Sampling(), Limits()
        )


def test_idle_decoders_make_room_for_one_of_another_codec(nvc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nvdec = plain(nvc)
    h264, hevc = Clip().make(), Clip("libx265", options={"x265-params": X265}).make()
    check(nvdec, h264, Sampling())
    taken = 90 * ctypes.CDLL(cuda.LIBRARY).fake_streams()
    monkeypatch.setenv("FAKE_DECODER_MEGABYTES", "90")
    monkeypatch.setenv("FAKE_GPU_MEGABYTES", f"{taken + 512}")
    with pytest.raises(Declined, match="to spare"):
        decode_clips_with_nvdec(nvdec, hevc, GEOMETRIES, Sampling(), Limits())
    assert nvdec.cache.megabytes > 0, "the idle one was discarded in vain"
    monkeypatch.setenv("FAKE_GPU_MEGABYTES", f"{taken + 512 + 20}")
    for data in (hevc, h264, h264):
        check(nvdec, data, Sampling())
    assert nvdec.cache.created == 3


@pytest.mark.parametrize("fault", ["fail", "lose a frame", "wrong pixels", "out of memory", "out of order"])
def test_after_any_fault_the_video_is_left_to_a_cpu_and_the_decoder_discarded(nvc: ModuleType, fault: str) -> None:
    nvdec = plain(nvc)
    data = Clip(gop=12).make()
    nvc.faults.add(fault)
    with pytest.raises(Declined):
        decode_clips_with_nvdec(nvdec, data, GEOMETRIES, Sampling(), Limits())
    assert nvdec.cache.megabytes == 0
    nvc.faults.clear()
    check(nvdec, data, Sampling())


def test_a_video_leaves_no_context_to_its_thread(nvc: ModuleType) -> None:
    nvdec, driver = plain(nvc), ctypes.CDLL(cuda.LIBRARY)
    for sampling in (Sampling(), Sampling(start_seconds=1.2, end_seconds=1.3)):
        check(nvdec, Clip(gop=48).make(), sampling)
        assert driver.fake_contexts() == 0


def test_a_decoder_that_cannot_be_created_leaves_nothing_on_the_gpu(nvc: ModuleType) -> None:
    nvdec, driver = plain(nvc), ctypes.CDLL(cuda.LIBRARY)
    before = driver.fake_streams()
    nvc.faults.add("out of memory")
    with pytest.raises(Declined, match="error 2"):
        decode_clips_with_nvdec(nvdec, Clip().make(), GEOMETRIES, Sampling(), Limits())
    assert driver.fake_streams() == before
    assert nvdec.cache.megabytes == 0


def test_a_driver_that_fails_costs_neither_the_video_nor_the_memory_bound(
    nvc: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvdec = plain(nvc)
    data = Clip(gop=12).make()
    monkeypatch.setenv("FAKE_GPU_LOST", "")  # So that the test's end removes it.
    monkeypatch.delenv("FAKE_GPU_LOST")
    nvc.faults.add("lose the gpu silently")
    with pytest.raises(Declined, match=r"could not be copied: cuMemcpyDtoHAsync_v2 returned 719"):
        decode_clips_with_nvdec(nvdec, data, GEOMETRIES, Sampling(), Limits())
    assert nvdec.is_lost
    assert nvdec.cache.megabytes == 0


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


def sei(payload: int) -> bytes:
    return b"\0\0\x01\x06" + bytes([payload, 1, 0x55, 0x80])


@pytest.mark.parametrize(("payload", "is_taken"), [(5, True), (19, False), (47, False)])
def test_sei_messages_that_change_pixels_are_for_a_cpu(payload: int, is_taken: bool) -> None:
    packet = Clip(container="h264", frames=1).make()
    bitstream = AnnexBStream("h264", b"", packet)
    if is_taken:
        assert sei(payload)[3:-1] in bitstream.convert(sei(payload) + packet)
    else:
        with pytest.raises(DependenciesUnknown):
            bitstream.convert(sei(payload) + packet)


def test_h264_that_keeps_no_frame_counts_as_one_that_does_not_state_it() -> None:
    """NVDEC's parser takes max_dec_frame_buffering 0 for the most that the level allows."""
    packet = Clip(container="h264", frames=1, options={"x264-params": "bframes=0:ref=1"}).make()
    unit = next(unit for unit in split_units(packet, 0) if unit[0] & 31 == 7)
    assert read_h264_parameters(unit).kept_frames == 1
    bits = f"{int.from_bytes(unit, 'big'):0{8 * len(unit)}b}".rstrip("0")
    assert bits.endswith("010" + "1"), "the number 1, and the end"
    bits = bits[:-4] + "1" + "1"
    bits += "0" * (-len(bits) % 8)
    assert read_h264_parameters(int(bits, 2).to_bytes(len(bits) // 8, "big")).kept_frames == 16


@pytest.mark.parametrize("hrd", ["", ":nal-hrd=vbr:vbv-bufsize=2000:vbv-maxrate=1000"])
@pytest.mark.parametrize(
    ("structure", "is_taken"),
    [("00000", True), ("011100", True), ("0000100", True), ("0000101", False), ("00010", False)],
)
def test_h264_pictures_that_are_shown_as_fields_are_for_a_cpu(hrd: str, structure: str, is_taken: bool) -> None:
    """pic_struct and ct_type of a picture timing message, in a stream whose pictures are frames (H.264, D.1.3)."""
    with av.open(io.BytesIO(Clip(options={"x264-params": f"pic-struct=1{hrd}"}).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packet = bytes(next(container.demux(video=0)))
    bitstream = AnnexBStream("h264", extradata, packet)
    assert bitstream.sequence.structure_offset is not None
    assert (bitstream.sequence.structure_offset > 0) == bool(hrd)
    bitstream.convert(packet)
    bits = "1" * bitstream.sequence.structure_offset + structure
    bits += "0" * (-len(bits) % 8)
    message = bytes([6, 1, len(bits) // 8]) + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\x80"
    with nullcontext() if is_taken else pytest.raises(DependenciesUnknown, match="shown as fields"):
        bitstream.convert(len(message).to_bytes(4, "big") + message + packet)


def test_hevc_that_may_be_interlaced_is_for_a_cpu() -> None:
    """general_progressive_source_flag and general_interlaced_source_flag, 7.3.3 of H.265."""
    units = split_units(read_sample("hevc", 8).data, 0)
    unit = bytearray(next(unescape(unit) for unit in units if unit[0] >> 1 == 33))
    assert read_hevc_parameters(bytes(unit)) == read_sample("hevc", 8).sequence
    assert unit[8] >> 6 == 0b10
    for flags in (0b00, 0b01, 0b11):
        unit[8] = unit[8] & 0x3F | flags << 6
        with pytest.raises(DependenciesUnknown, match="progressive"):
            read_hevc_parameters(bytes(unit))


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


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        ([(0, 0, 0), (5, 0, 0), (9, 0, 0)], ""),
        ([(0, 0, 0), (9, 0, 0), (5, 0, 0)], "not in the order of their blocks"),
        ([(0, 0, 0), (5, 0, 0), (5, 0, 0)], "not in the order of their blocks"),
        ([(0, 0, 0), (5, 1, 0)], "differ in their parameters"),
        ([(0, 0, 0), (5, 0, 1)], "differ in their parameters"),
    ],
)
def test_h264_slices_that_nvdecs_parser_takes_in_another_way_are_for_a_cpu(
    slices: list[tuple[int, int, int]], reason: str
) -> None:
    """Each slice: its first block, the number of its picture parameter set, and its frame number."""
    sample = read_sample("h264", 8)
    sequence = next(unit for unit in split_units(sample.data, 0) if unit[0] & 31 == 7)
    size = read_h264_sequence(BitReader(unescape(sequence[4:])), profile=sequence[1]).frame_number_bits
    packet = b""
    for block, picture, frame_number in slices:
        golomb = [f"{value + 1:b}" for value in (block, 7, picture)]
        bits = "".join("0" * (len(code) - 1) + code for code in golomb) + f"{frame_number:0{size}b}"
        bits += "1" * (-len(bits) % 8 + 8)
        packet += b"\0\0\x01\x65" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    with pytest.raises(DependenciesUnknown, match=reason) if reason else nullcontext():
        AnnexBStream("h264", b"", sample.data).convert(packet)


@pytest.mark.parametrize(("level", "is_taken"), [(30, False), (60, True), (120, True), (255, True)])
def test_hevc_that_keeps_more_frames_than_its_level_allows_is_for_a_cpu(level: int, is_taken: bool) -> None:
    """Level 1 has room for six frames of 320 x 256 pixels, level 2 for eight (H.265, A.4.2)."""
    options = {"x265-params": f"{X265}:bframes=8:b-adapt=0:ref=6"}
    with av.open(io.BytesIO(Clip("libx265", width=320, height=256, options=options).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
    unit = bytearray(next(unescape(unit) for unit in read_hvcc_sets(extradata) if unit[0] >> 1 == 33))
    assert read_hevc_parameters(bytes(unit)).kept_frames == 7
    unit[14] = level
    with nullcontext() if is_taken else pytest.raises(DependenciesUnknown, match="more than its level"):
        assert read_hevc_parameters(bytes(unit)).level == level


@pytest.mark.parametrize(("data", "is_taken"), [(b"\0\0\x03", True), (b"\0\0\x01", False), (b"\0\0\0", False)])
def test_a_unit_that_contains_a_start_code_is_for_a_cpu(data: bytes, is_taken: bool) -> None:
    with av.open(io.BytesIO(Clip(container="mp4", frames=1).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packet = bytes(next(container.demux(video=0)))
    bitstream = AnnexBStream("h264", extradata, packet)
    unit = b"\x0c" + data + b"\xff"  # Filler data.
    damaged = packet + len(unit).to_bytes(4, "big") + unit
    if is_taken:
        assert unit in bitstream.convert(damaged)
    else:
        with pytest.raises(DependenciesUnknown, match="start code"):
            bitstream.convert(damaged)


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
