"""The substitute backends share memory with Triton and their runtimes. No answer is overwritten, and nothing leaks."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.clips import random_clips
from clipserve_export.formats import FORMATS, FormatName, Run
from clipserve_export.specs import SPECS
from clipserve_server.backends.onnxruntime_gpu import BoundSession
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton, change_config, infer
from tests.watching import stubs

MOTION = SPECS["motion"]
CLIENTS, ROUNDS = 6, 8


@pytest.fixture(scope="module", params=["onnx", "torchscript"])
def exported(
    request: pytest.FixtureRequest,
    repositories: Callable[[FormatName], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """`motion` alone, in one format."""
    return copy_model(repositories(request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Triton]:
    with serve(exported) as triton:
        yield triton


def load(repository: Path) -> Run:
    """The exported file, run without Triton."""
    (file,) = (repository / "motion_net" / "1").glob("model.*")
    return next(form for form in FORMATS.values() if form.filename == file.name).load(file)


def serve(repository: Path) -> Triton:
    return KilledTriton(repository, models=["motion"], **ANY_PORTS)


def test_no_answer_is_written_over_by_a_later_run(exported: Path, served: Triton) -> None:
    """Many at once, batched as they come, every one another clip: each gets the answer to its own."""
    run = load(exported)
    clips = random_clips(MOTION.geometry, batch=CLIENTS * ROUNDS, views=1, seed=7).numpy()
    expected, answers = run(clips)[1], np.zeros((len(clips), MOTION.feature_size), np.float32)
    with triton_grpc.InferenceServerClient(served.grpc_url) as client:

        def ask(first: int) -> None:
            kept = [(at, infer(client, clips[at : at + 1])[1]) for at in range(first, len(clips), CLIENTS)]
            for at, features in kept:
                answers[at] = features[0]

        threads = [threading.Thread(target=ask, args=(first,)) for first in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert np.abs(expected[:, None] - expected[None]).max(-1)[~np.eye(len(clips), dtype=bool)].min() > 0.01
    np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-4)


def test_a_process_does_not_grow_with_the_requests_it_has_answered(served: Triton) -> None:
    """Were each request's clip kept, 150 of them would be 110 MiB."""
    clip = random_clips(MOTION.geometry, batch=1, views=8, seed=1).numpy()
    (pid,) = stubs(served, "motion_net")
    with triton_grpc.InferenceServerClient(served.grpc_url) as client:
        for _ in range(20):
            infer(client, clip)
        before = resident_megabytes(pid)
        for _ in range(150):
            infer(client, clip)
        assert resident_megabytes(pid) - before < 20


def resident_megabytes(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.long
@pytest.mark.parametrize("exported", ["torchscript"], indirect=True)
def test_libtorch_takes_the_threads_that_its_config_grants(exported: Path, tmp_path: Path) -> None:
    repository = shutil.copytree(exported, tmp_path / "repository")
    clip = random_clips(MOTION.geometry, batch=2, views=2, seed=1).numpy()
    threads = {}
    for granted in (1, 4):

        def grant(config: pb.ModelConfig, granted: int = granted) -> None:
            config.parameters["INTRA_OP_THREAD_COUNT"].string_value = str(granted)

        change_config(repository, "motion_net", grant)
        with serve(repository) as triton, triton_grpc.InferenceServerClient(triton.grpc_url) as client:
            (pid,) = stubs(triton, "motion_net")
            infer(client, clip)
            threads[granted] = len(list(Path(f"/proc/{pid}/task").iterdir()))
    assert threads[4] - threads[1] >= 3


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_onnx_runtime_bound_to_a_device_gives_tensors_that_outlive_the_next_run(exported: Path) -> None:
    """The CPU is such a device, too, so the binding by DLPack is checked where there is no GPU."""
    file = exported / "motion_net" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    on_device = BoundSession(session, ["SCORES", "FEATURES"], torch.device("cpu"))
    clips = [random_clips(MOTION.geometry, batch=2, views=1, seed=seed) for seed in range(3)]
    given = [on_device.run({"CLIP": clip}) for clip in clips]
    run = load(exported)
    for clip, (scores, features) in zip(clips, given, strict=True):
        expected = run(clip.numpy())
        np.testing.assert_array_equal(scores.numpy(), expected[0])
        np.testing.assert_array_equal(features.numpy(), expected[1])


@pytest.mark.needs("gpu")
@pytest.mark.parametrize("forced_to_the_host", ["yes", "no"])
def test_on_a_gpu_clips_may_come_from_the_host_or_stay_where_they_are(
    exported: Path, tmp_path: Path, forced_to_the_host: str
) -> None:
    repository = shutil.copytree(exported, tmp_path / "repository")

    def place(config: pb.ModelConfig) -> None:
        config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_GPU
        config.instance_group[0].gpus.append(0)
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = forced_to_the_host

    change_config(repository, "motion_net", place)
    clip = random_clips(MOTION.geometry, batch=3, views=2, seed=2).numpy()
    expected, _ = load(repository)(clip)
    with serve(repository) as triton, triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        for _ in range(3):
            np.testing.assert_allclose(infer(client, clip)[0], expected, atol=1e-3)
