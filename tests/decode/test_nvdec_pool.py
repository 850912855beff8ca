"""NVDEC beside the decode workers: whatever becomes of its process, no request is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.engine import decode_clips
from clip_decode.errors import InvalidRequest, NotAVideo
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling
from decode_pool import nvdec, nvdec_comparison
from decode_pool.messages import Decoded, Job
from decode_pool.nvdec import Gpus, find_gpus, nvdec_processes
from decode_pool.nvdec_comparison import Comparison, compare_decoders
from decode_pool.pool import DecodePool
from decode_pool.process import START_SECONDS
from decode_pool.settings import PoolSettings
from tests.decode.streams import X265
from tests.decode.synthesis import Clip
from tests.gpu_machine import FAKE_GPU
from tests.watching import HANG_SECONDS, wait_for

# Of Decode, at the start: three kinds, each with a sample picture 16 times and once more, and an end after each.
START_CALLS = 3 * (16 + 1) * 2
GEOMETRIES = {"CLIP": Geometry(8, 8, 64, 64)}


@pytest.fixture(scope="module")
def video() -> bytes:
    return Clip(frames=60).make()


@pytest.fixture
def log() -> list[str]:
    """The lines that pools have logged."""
    return []


@pytest.fixture
def declined() -> list[None]:
    """One for each video that NVDEC left to a CPU."""
    return []


def worker_program(fake_driver: str, code: str = "") -> list[str]:
    """The program of an NVDEC process, which runs this code first."""
    return [
        *(sys.executable, "-X", "faulthandler", "-c"),
        f"""
import ctypes, os, sys, threading
sys.path.insert(0, {str(FAKE_GPU)!r})
import PyNvVideoCodec as nvc
from clip_decode.decode.nvdec import cuda
from decode_pool import nvdec_comparison, nvdec_worker
cuda.LIBRARY = {fake_driver!r}
{code}
nvdec_worker.main()
""",
    ]


@pytest.fixture
def start(fake_driver: str, log: list[str], declined: list[None]) -> Iterator[Callable[..., DecodePool]]:
    pools: list[DecodePool] = []

    def start(code: str = "", *, wait: bool = True, **settings: int) -> DecodePool:
        chosen = PoolSettings(**{"workers": 1, "nvdec_processes": 1, "nvdec_streams": 3, **settings})
        processes = nvdec_processes(chosen, Gpus(("0",)), worker_program(fake_driver, code), log=log.append)
        pools.append(
            DecodePool(chosen, Limits(), nvdec=processes, on_decline=lambda: declined.append(None), log=log.append)
        )
        if wait:
            pools[-1].wait_until_ready(HANG_SECONDS)
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def job(video: bytes, sampling: Sampling | None = None) -> Job:
    return Job(video, GEOMETRIES, sampling or Sampling())


def submit_to_nvdec(pool: DecodePool, video: bytes) -> Future[Decoded]:
    """Submit a video while NVDEC waits for one. On a busy machine it may not be there yet, and then a CPU takes it."""
    assert wait_for(lambda: pool._queue._free_nvdec)
    return pool.submit(job(video))


def test_both_decoders_answer_alike_and_say_who_they_are(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    expected, _ = decode_clips(video, GEOMETRIES, Sampling(), Limits())
    answers = [future.result(HANG_SECONDS) for future in [pool.submit(job(video)) for _ in range(24)]]
    for decoded in answers:
        np.testing.assert_array_equal(decoded.clips["CLIP"], expected["CLIP"])
        assert json.loads(decoded.report)["decoder"] == decoded.decoder
    # Neither stood by while there was work.
    assert {decoded.decoder for decoded in answers} == {"cpu", "nvdec"}


def test_a_video_alone_goes_to_a_free_nvdec(
    start: Callable[..., DecodePool], video: bytes, declined: list[None]
) -> None:
    pool = start()
    by_nvdec = [submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder for _ in range(15)].count("nvdec")
    assert by_nvdec > 7
    assert not declined


def test_before_the_first_video_there_are_decoders_and_the_log_says_so(
    start: Callable[..., DecodePool], video: bytes, declined: list[None], log: list[str]
) -> None:
    pool = start(
        """
create = nvc.CreateDecoder
def create_three(**options):
    assert len(nvc.made) < 3, "a fourth decoder"
    return create(**options)
nvc.CreateDecoder = create_three
"""
    )
    assert log[0].startswith("NVDEC of GPU 0: h264 of 8 bits ready, ")
    clip = Clip("libx265", frames=12, gop=12, options={"x265-params": X265})
    for each in (video, clip.make(), replace(clip, pixel_format="yuv420p10le").make()):
        assert "nvdec" in [submit_to_nvdec(pool, each).result(HANG_SECONDS).decoder for _ in range(6)]
    assert not declined


def test_a_kind_that_kills_the_process_is_left_to_cpus(
    start: Callable[..., DecodePool], video: bytes, log: list[str]
) -> None:
    pool = start("nvc.faults.add('die hevc')")
    assert wait_for(lambda: bool(pool.nvdec_pids))
    before = pool.nvdec_pids
    assert len([line for line in log if "it was trying hevc of 8 bits" in line]) == 2
    hevc = Clip("libx265", frames=12, gop=12, options={"x265-params": X265}).make()
    assert pool.submit(job(hevc)).result(HANG_SECONDS).decoder == "cpu"
    assert "nvdec" in [submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder for _ in range(6)]
    assert pool.nvdec_pids == before


def test_a_kind_is_not_left_out_because_somebody_kills_the_process(
    start: Callable[..., DecodePool], video: bytes, tmp_path: Path
) -> None:
    deaths = tmp_path / "deaths"
    deaths.touch()
    pool = start(
        f"""
import signal
from pathlib import Path
deaths, create = Path({str(deaths)!r}), nvc.CreateDecoder
def create_or_die(**options):
    if (count := deaths.stat().st_size) < 2:
        deaths.write_text("x" * (count + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return create(**options)
nvc.CreateDecoder = create_or_die
"""
    )
    assert wait_for(lambda: bool(pool.nvdec_pids))
    assert "nvdec" in [submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder for _ in range(6)]


def test_where_there_is_no_memory_at_the_start_cpus_decode(
    start: Callable[..., DecodePool], video: bytes, log: list[str]
) -> None:
    pool = start("os.environ['FAKE_GPU_MEGABYTES'] = '512'")
    assert "h264 of 8 bits not created ahead" in log[0]
    before = pool.nvdec_pids
    assert pool.submit(job(video)).result(HANG_SECONDS).decoder == "cpu"
    assert pool.nvdec_pids == before != []


def test_what_nvdec_can_not_do_a_cpu_does(start: Callable[..., DecodePool], video: bytes, declined: list[None]) -> None:
    pool = start()
    before = pool.nvdec_pids
    other = Clip("libvpx-vp9", "webm", frames=20, options={"deadline": "realtime", "cpu-used": "8"}).make()
    assert submit_to_nvdec(pool, other).result(HANG_SECONDS).decoder == "cpu"
    assert len(declined) == 1
    # That is no failure: the process goes on.
    assert submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder == "nvdec"
    assert pool.nvdec_pids == before


def test_small_pictures_can_be_kept_for_cpus(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(nvdec_min_pixels=96 * 64 + 1)
    assert pool.submit(job(video)).result(HANG_SECONDS).decoder == "cpu"


@pytest.mark.parametrize(
    ("code", "expected", "is_taken"),
    [
        (
            "nvc.faults.add('slow'); nvdec_comparison.FRAMES = 24; nvdec_comparison.MAX_SECONDS = 25",
            r"24 frames of 256 x 144 and 640 x 360 take .* from 230400 pixels on",
            False,
        ),
        (
            "nvdec_comparison.MAX_SECONDS = 0",
            r"could not be compared \(TimeoutError: it takes longer than 0 s\); NVDEC takes all sizes",
            True,
        ),
        (
            f"nvc.faults.add('fail'); nvc.good_calls = {START_CALLS}",
            r"could not be compared \(Declined: NVDEC failed: .*takes all sizes",
            False,
        ),
    ],
    ids=["slow", "no time", "fails"],
)
def test_the_start_can_measure_which_pictures_nvdec_takes(
    start: Callable[..., DecodePool], video: bytes, log: list[str], code: str, expected: str, is_taken: bool
) -> None:
    pool = start(code, nvdec_min_pixels=0)
    assert re.search(expected, log[0])
    assert "\n" not in log[0]
    decoders = {submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder for _ in range(6)}
    assert ("nvdec" in decoders) == is_taken


def test_both_decoders_are_measured(nvc: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdec_comparison, "MAX_SECONDS", 60)
    comparison = compare_decoders(Nvdec(nvc, Cuda(), megabytes=1000))
    assert min(*comparison.cpu, *comparison.nvdec) > 0
    assert f"from {comparison.least_pixels} pixels on" in str(comparison)


@pytest.mark.parametrize(
    ("cpu", "nvdec_seconds", "expected"),
    [
        ((0.01, 0.05), (0.01, 0.02), 1),
        ((0.01, 0.05), (0.02, 0.05), 640 * 360),
        ((0.01, 0.05), (0.02, 0.06), 640 * 360),
        ((0.01, 0.05), (0.02, 0.04), (256 * 144 + 640 * 360) // 2),
    ],
)
def test_the_least_pixels_are_where_both_decoders_take_the_same_time(
    cpu: tuple[float, float], nvdec_seconds: tuple[float, float], expected: int
) -> None:
    assert Comparison(cpu=cpu, nvdec=nvdec_seconds).least_pixels == expected


def test_a_comparison_that_kills_the_process_is_left_out(
    start: Callable[..., DecodePool], video: bytes, log: list[str]
) -> None:
    pool = start(
        f"nvc.faults.add('die'); nvc.good_calls = {START_CALLS}; nvdec_comparison.FRAMES = 24", nvdec_min_pixels=0
    )
    assert wait_for(lambda: bool(pool.nvdec_pids))
    assert len([line for line in log if "it was trying the comparison of decoders" in line]) == 2
    assert "take" not in log[-1]
    assert pool.submit(job(video)).result(HANG_SECONDS).decoder == "cpu"


def test_errors_of_a_video_or_a_request_are_final(
    start: Callable[..., DecodePool], video: bytes, declined: list[None]
) -> None:
    pool = start()
    with pytest.raises(NotAVideo):
        pool.submit(job(b"no video")).result(HANG_SECONDS)
    with pytest.raises(InvalidRequest):
        pool.submit(job(video, Sampling(start_seconds=100))).result(HANG_SECONDS)
    assert not declined


@pytest.mark.parametrize(
    "fault",
    [
        *("die", "wrong pixels", "print"),
        *(pytest.param(fault, marks=pytest.mark.long) for fault in ("fail", "out of memory", "lose a frame")),
    ],
)
def test_whatever_nvdec_does_every_video_is_answered(
    start: Callable[..., DecodePool], video: bytes, declined: list[None], fault: str
) -> None:
    expected, _ = decode_clips(video, GEOMETRIES, Sampling(), Limits())
    pool = start(f"nvc.faults.add({fault!r}); nvc.good_calls = {START_CALLS}")
    for future in [pool.submit(job(video)) for _ in range(8)]:
        decoded = future.result(HANG_SECONDS)
        assert decoded.decoder == "cpu"
        np.testing.assert_array_equal(decoded.clips["CLIP"], expected["CLIP"])
    assert declined


@pytest.mark.parametrize(
    ("fault", "expected"), [("lose the gpu", "NVDEC failed"), ("lose the gpu silently", "a frame could not be copied")]
)
def test_a_process_that_has_lost_its_gpu_is_replaced(
    start: Callable[..., DecodePool], video: bytes, log: list[str], fault: str, expected: str
) -> None:
    pool = start(f"nvc.faults.add({fault!r}); nvc.good_calls = {START_CALLS}")
    before = pool.nvdec_pids
    assert submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder == "cpu"
    assert wait_for(lambda: pool.nvdec_pids not in ([], before))
    assert any(f"the GPU is lost: {expected}" in line for line in log)


def test_a_process_that_hangs_is_replaced(start: Callable[..., DecodePool], video: bytes, log: list[str]) -> None:
    pool = start(f"nvc.faults.add('hang'); nvc.good_calls = {START_CALLS}", max_decode_seconds=6)
    before = pool.nvdec_pids
    assert submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder == "cpu"
    assert any("[timed-out]" in line for line in log)
    assert wait_for(lambda: pool.nvdec_pids not in ([], before))


def test_closing_does_not_wait_for_a_process_that_starts(start: Callable[..., DecodePool]) -> None:
    pool = start("threading.Event().wait()", wait=False)
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < START_SECONDS / 2


def test_connections_that_nobody_has_taken_are_closed(fake_driver: str) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    settings = PoolSettings(nvdec_processes=1, nvdec_streams=3)
    (process,) = nvdec_processes(settings, Gpus(("0",)), worker_program(fake_driver))
    for _ in range(2):
        first = process.start(Limits())
        taken = process.take(1)
        assert taken is not None
        assert process.take(1) is None
        first.kill()
        for each in (first, taken):
            each.end()
    process.close_free()
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.long
def test_a_process_killed_under_load_costs_no_request(start: Callable[..., DecodePool], video: bytes) -> None:
    expected, _ = decode_clips(video, GEOMETRIES, Sampling(), Limits())
    pool = start()
    done = 0
    by_nvdec = 0
    for _ in range(4):
        futures = [pool.submit(job(video)) for _ in range(12)]
        for pid in pool.nvdec_pids:
            os.kill(pid, signal.SIGKILL)
        for future in futures:
            decoded = future.result(HANG_SECONDS)
            np.testing.assert_array_equal(decoded.clips["CLIP"], expected["CLIP"])
            done += 1
        assert wait_for(lambda: bool(pool.nvdec_pids))
        by_nvdec += submit_to_nvdec(pool, video).result(HANG_SECONDS).decoder == "nvdec"
    assert done == 48
    assert by_nvdec > 0


@pytest.mark.needs("nvdec")
def test_a_gpus_process_killed_under_load_costs_no_request() -> None:
    video = Clip(frames=120, width=640, height=360, gop=30).make()
    expected, _ = decode_clips(video, GEOMETRIES, Sampling(), Limits())
    settings = PoolSettings(workers=2)
    with DecodePool(settings, Limits(), nvdec=nvdec_processes(settings, find_gpus())) as pool:
        pool.wait_until_ready(HANG_SECONDS)
        for _ in range(3):
            futures = [pool.submit(job(video)) for _ in range(40)]
            futures[0].result(HANG_SECONDS)
            for pid in pool.nvdec_pids:
                os.kill(pid, signal.SIGKILL)
            for future in futures:
                np.testing.assert_array_equal(future.result(HANG_SECONDS).clips["CLIP"], expected["CLIP"])
            assert wait_for(lambda: len(pool.nvdec_pids) == settings.nvdec_processes)


def test_where_nvdec_does_not_start_cpus_decode(start: Callable[..., DecodePool], video: bytes, log: list[str]) -> None:
    pool = start("raise OSError('no GPU today')")
    assert pool.submit(job(video)).result(HANG_SECONDS).decoder == "cpu"
    assert any("no GPU today" in line for line in log)
    assert len([line for line in log if "could not start" in line]) <= 3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", (1, "")),
        (
            "raise RuntimeError('Driver version is too old\\n=== TROUBLESHOOTING')",
            (0, "PyNvVideoCodec cannot be imported: Driver version is too old"),
        ),
    ],
)
def test_a_package_that_the_driver_is_too_old_for_is_found_before_the_start(
    fake_driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: tuple[int, str]
) -> None:
    (tmp_path / "PyNvVideoCodec.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(nvdec, "LIBRARIES", (fake_driver,) * 3)
    monkeypatch.delitem(sys.modules, "PyNvVideoCodec", raising=False)
    try:
        assert nvdec.probe() == expected
    finally:
        sys.modules.pop("PyNvVideoCodec", None)


def test_a_driver_that_does_not_work_is_named(
    fake_driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PyNvVideoCodec.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(nvdec, "LIBRARIES", (fake_driver,) * 3)
    monkeypatch.setenv("FAKE_GPU_LOST", "1")
    monkeypatch.delitem(sys.modules, "PyNvVideoCodec", raising=False)
    try:
        count, missing = nvdec.probe()
    finally:
        sys.modules.pop("PyNvVideoCodec", None)
    assert count == 0
    assert "CUDA error 803; does nvidia-smi?" in missing


def test_a_machine_without_a_gpu_says_what_is_missing() -> None:
    gpus = find_gpus()
    if not gpus.devices:
        assert "PyNvVideoCodec is not installed" in gpus.missing or "driver" in gpus.missing


@pytest.mark.parametrize("value", ["gpu", "", "CPU"])
def test_decoders_have_three_names(value: str) -> None:
    with pytest.raises(ValueError, match="auto, cpu, nvdec are allowed"):
        PoolSettings.from_config({"decoder": value})
    assert PoolSettings.from_config({"decoder": "cpu", "nvdec_streams": "3"}).nvdec_streams == 3
