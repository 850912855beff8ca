"""The substitute backends do what the config asks of Triton's C++ backends."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.clips import random_clips
from clipserve_export.configs import parse_config
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.specs import SPECS
from clipserve_server.errors import ModelLoadError, ServerStartError
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton, change_config, infer
from tests.watching import stubs, wait_for

MOTION = SPECS["motion"]


@pytest.fixture(params=["onnx", "torchscript"])
def repository(request: pytest.FixtureRequest, repositories: Callable[[FormatName], Path], tmp_path: Path) -> Path:
    """`motion` in one format, with a config to change."""
    return copy_model(repositories(request.param), tmp_path)


def format_of(repository: Path) -> FormatName:
    config = parse_config((repository / "motion_net" / "config.pbtxt").read_text())
    return next(form.name for form in FORMATS.values() if form.backend == config.backend)


def test_the_batcher_puts_requests_together_and_each_gets_its_own_answer(repository: Path) -> None:
    """Different batches and, among them, different view counts, which cannot share a run."""

    def wait_for_company(config: pb.ModelConfig) -> None:
        config.dynamic_batching.max_queue_delay_microseconds = 300_000
        config.dynamic_batching.preferred_batch_size.append(8)

    change_config(repository, "motion_net", wait_for_company)
    form = FORMATS[format_of(repository)]
    run = form.load(repository / "motion_net" / "1" / form.filename)
    clips = [
        random_clips(MOTION.geometry, batch=batch, views=views, seed=seed).numpy()
        for seed, (batch, views) in enumerate([(1, 1), (2, 1), (1, 1), (3, 1), (1, 2), (1, 2), (1, 1)])
    ]
    answers: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # type: ignore[type-arg]
    with KilledTriton(repository, **ANY_PORTS) as triton, triton_grpc.InferenceServerClient(triton.grpc_url) as client:

        def ask(number: int) -> None:
            answers[number] = infer(client, clips[number])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(clips))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        def counts() -> tuple[int, int]:
            """Clips and runs. Triton counts a run after its answers have left."""
            (statistics,) = client.get_inference_statistics("motion_net").model_stats
            return statistics.inference_count, statistics.execution_count

        assert wait_for(lambda: counts()[0] == sum(len(clip) for clip in clips))
        assert counts()[1] < len(clips), "no two requests shared a run"
    for number, clip in enumerate(clips):
        scores, features = run(clip)
        np.testing.assert_allclose(answers[number][0], scores, atol=1e-5)
        np.testing.assert_allclose(answers[number][1], features, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module", params=["onnx", "torchscript"])
def four_at_once(
    request: pytest.FixtureRequest,
    repositories: Callable[[FormatName], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Triton]:
    """A server whose network takes four clips at once."""
    repository = copy_model(repositories(request.param), tmp_path_factory.mktemp(request.param))
    change_config(repository, "motion_net", bound_to(4))
    with KilledTriton(repository, **ANY_PORTS) as triton:
        yield triton


def test_a_run_is_taken_in_parts_and_each_video_gets_the_answer_of_the_whole(four_at_once: Triton) -> None:
    """By videos where those fit into a part, by views where not even one does, and evenly or not."""
    form = FORMATS[format_of(four_at_once.repository)]
    run = form.load(four_at_once.repository / "motion_net" / "1" / form.filename)
    shapes = [(5, 1), (3, 2), (2, 3), (2, 4), (1, 9), (3, 6)]
    with triton_grpc.InferenceServerClient(four_at_once.grpc_url) as client:
        for batch, views in shapes:
            clip = random_clips(MOTION.geometry, batch=batch, views=views, seed=batch * views).numpy()
            expected, given = run(clip), infer(client, clip)
            np.testing.assert_allclose(given[0], expected[0], atol=1e-5)
            np.testing.assert_allclose(given[1], expected[1], rtol=1e-3, atol=1e-4)


def test_the_memory_of_a_run_is_that_of_its_parts(four_at_once: Triton) -> None:
    """240 clips are what eight requests of 10 views x 3 crops give the network at once."""
    clip = random_clips(MOTION.geometry, batch=8, views=30, seed=1).numpy()
    (pid,) = stubs(four_at_once, "motion_net")
    with triton_grpc.InferenceServerClient(four_at_once.grpc_url) as client:
        infer(client, clip[:1, :4])
        before = peak_megabytes(pid)
        infer(client, clip)
        grown = peak_megabytes(pid) - before
    # The clips themselves, as they come in, are 23 MiB; in one run 240 of them take over 200 more.
    assert grown < 80


# An instance on GPU 0 whose network only says how many clips it gets. Triton's module exists only inside Triton.
RUN_ON_GPU = """
import json, sys, types
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace()
import numpy as np
from clipserve_server.backends.substitute import SubstituteBackend

class Counter(SubstituteBackend):
    instance = types.SimpleNamespace(
        device_id=0, parameters={"max_clips_at_once": "1", "max_gpu_clips_at_once": sys.argv[1]}
    )

    def run(self, inputs):
        sizes.append(inputs[0].shape[0] * inputs[0].shape[1])
        return [inputs[0].mean(1)]

sizes = []
(means,) = Counter().run_in_parts([np.arange(12.0).reshape(2, 6, 1)])
print(json.dumps([sizes, means.tolist()]))
"""


@pytest.mark.parametrize(
    ("most", "sizes"), [(12, [12]), (11, [6, 6]), (4, [4, 2, 4, 2]), (0, [12])], ids=["all", "videos", "views", "none"]
)
def test_a_run_on_a_gpu_has_a_limit_of_its_own(most: int, sizes: list[int]) -> None:
    done = subprocess.run([sys.executable, "-c", RUN_ON_GPU, str(most)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [sizes, [[2.5], [8.5]]]


# A run fails on a GPU, which works afterwards or not.
FAIL_ON_GPU = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    get_input_tensor_by_name=lambda request, name: request,
    TritonError=type("TritonError", (str,), {"__new__": lambda cls, text, code: str(text), "INTERNAL": 13}),
    InferenceResponse=lambda error: error,
    Logger=types.SimpleNamespace(log_error=print),
)
import torch
from clipserve_server.backends.substitute import SubstituteBackend
from clipserve_server.backends.torch_memory import TorchMemory

def synchronize(device):
    if sys.argv[1] == "lost":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

class Memory(TorchMemory):
    def read(self, tensor):
        return tensor

    def join(self, arrays):
        return arrays[0]

class Failing(SubstituteBackend):
    instance = types.SimpleNamespace(inputs=("CLIP",), model_file=types.SimpleNamespace(name="model.pt"))
    memory = Memory(torch.device("cuda", 0))

    def run_in_parts(self, inputs):
        raise RuntimeError("CUDA error")

torch.cuda.synchronize = synchronize
print(Failing().execute(["clip"]), flush=True)
"""


@pytest.mark.parametrize(("state", "status"), [("lost", 1), ("well", 0)])
def test_the_process_of_a_lost_gpu_ends_so_that_triton_is_started_again(state: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", FAIL_ON_GPU, state], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("model.pt: CUDA error" in done.stdout) == (state == "well")


def bound_to(clips: int) -> Callable[[pb.ModelConfig], object]:
    def change(config: pb.ModelConfig) -> None:
        config.parameters["max_clips_at_once"].string_value = str(clips)

    return change


def peak_megabytes(pid: int) -> float:
    """Of the process's own memory at any time."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.long
def test_an_instance_group_runs_as_many_processes_as_it_says(repository: Path) -> None:
    def set_count(config: pb.ModelConfig) -> None:
        config.instance_group[0].count = 3

    change_config(repository, "motion_net", set_count)
    with KilledTriton(repository, **ANY_PORTS) as triton:
        assert len(stubs(triton, "motion_net")) == 3


def test_a_gpu_that_the_config_asks_for_and_is_not_there_is_an_error(repository: Path, tmp_path: Path) -> None:
    """Never the CPU in silence."""
    change_config(repository, "motion_net", place_on_gpu)
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises((ModelLoadError, ServerStartError), match=r"(?i)gpu"):
        Triton(repository, log=tmp_path / "triton.log", **ANY_PORTS).start()


def place_on_gpu(config: pb.ModelConfig) -> None:
    config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_GPU
    config.instance_group[0].gpus.append(0)


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/gpus").is_dir()


@pytest.mark.needs("gpu")
def test_on_a_gpu_the_answers_are_those_of_the_cpu(repository: Path) -> None:
    form = FORMATS[format_of(repository)]
    clip = random_clips(MOTION.geometry, batch=2, views=1, seed=1).numpy()
    expected, _ = form.load(repository / "motion_net" / "1" / form.filename)(clip)
    change_config(repository, "motion_net", place_on_gpu)
    with KilledTriton(repository, **ANY_PORTS) as triton, triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        scores, _ = infer(client, clip)
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_configs_survive_the_round_trip(repository: Path) -> None:
    text = (repository / "motion_net" / "config.pbtxt").read_text()
    assert text_format.MessageToString(parse_config(text)) in text
