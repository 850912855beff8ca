"""What a server says about the GPUs that it uses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clipserve import VideoClassifier
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.gpu import describe_use, read_placement
from clipserve_server.options import Decoder
from clipserve_server.triton import Triton
from tests.gpu_machine import pretend_gpu
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton

NVDEC_FOUND = 'I1127 model.py:95] "NVDEC and CPUs decode videos; GPUs: 0, 1"\n'
NVDEC_LOG = NVDEC_FOUND + 'I1127 nvdec.py:147] "NVDEC of GPU 1: h264 of 8 bits ready, h264 of 10 bits left to CPUs"\n'
CPU_LOG = 'I1127 model.py:95] "CPUs decode videos: the package PyNvVideoCodec is not installed"\n'


@pytest.mark.parametrize(
    ("placement", "log", "use"),
    [
        ({"motion_net": ()}, CPU_LOG, None),
        ({"motion_net": (0,)}, CPU_LOG, "motion on 0; the CPU decodes"),
        ({"motion_net": (0, 1), "x3d_m_net": (0, 1)}, NVDEC_LOG, "motion, x3d_m on 0, 1; NVDEC decodes beside the CPU"),
        ({"motion_net": (1,), "x3d_m_net": ()}, NVDEC_LOG, "motion on 1; NVDEC decodes beside the CPU"),
        ({"motion_net": ()}, NVDEC_LOG, "NVDEC decodes beside the CPU"),
        # Found, but none of its processes has started.
        ({"motion_net": (0,)}, NVDEC_FOUND, "motion on 0; the CPU decodes"),
        ({"motion_net": ()}, NVDEC_FOUND, None),
    ],
)
def test_the_use_of_gpus_in_words(placement: dict[str, tuple[int, ...]], log: str, use: str | None) -> None:
    assert describe_use(placement, log) == use


def test_triton_says_where_a_network_runs(motion_server: Triton) -> None:
    placement = read_placement(motion_server.grpc_url, ["motion_net"])
    assert bool(placement["motion_net"]) == torch.cuda.is_available()
    assert bool(motion_server.gpu_use()) == torch.cuda.is_available()


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_server_with_nvdec_says_so_and_its_answers_are_those_of_the_cpu(
    motion_url: str, repositories: Callable[[FormatName], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in pretend_gpu(tmp_path).items():
        monkeypatch.setenv(name, value)
    video = tmp_path / "video.mp4"
    write_motion_video(video, "bouncing", UNSEEN_SEED)
    with (
        KilledTriton(repositories("onnx"), models=["motion"], decoder=Decoder.NVDEC, **ANY_PORTS) as triton,
        VideoClassifier("motion", url=triton.grpc_url) as by_nvdec,
        VideoClassifier("motion", url=motion_url) as by_cpu,
    ):
        assert triton.gpu_use() == "NVDEC decodes beside the CPU"
        expected = by_cpu.classify(video, report=True)
        answers = [by_nvdec.classify(video, report=True) for _ in range(10)]
    decoders = [(answer.report or {})["decoder"] for answer in answers]
    # On a busy machine none of NVDEC's threads may be ready to take a video, and then a CPU does.
    assert "nvdec" in decoders
    assert (expected.report or {})["decoder"] == "cpu"
    assert all([*answer] == [*expected] for answer in answers)


@pytest.mark.needs("gpu")
def test_on_a_gpu_the_packages_can_use_it() -> None:
    done = subprocess.run([sys.executable, "-m", "clipserve_server.gpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime-gpu" in done.stdout


def test_without_a_gpu_the_module_says_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([sys.executable, "-m", "clipserve_server.gpu"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "build without CUDA" in done.stderr or "finds no GPU" in done.stderr
