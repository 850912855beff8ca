"""NVDEC's decoders: created ahead, used again, set up for other videos, within a bound, discarded after a fault."""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType

import pytest

from clip_decode import Limits, Sampling
from clip_decode.decode.nvdec import cuda, decoder_cache
from clip_decode.decode.nvdec.decoder_cache import estimate_megabytes
from clip_decode.decode.nvdec.sample_pictures import read_sample
from clip_decode.engine import decode_clips_with_nvdec
from clip_decode.errors import Declined, InvalidRequest
from tests.decode.both_decoders import GEOMETRIES, check, plain
from tests.decode.streams import X265
from tests.decode.synthesis import Clip


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
