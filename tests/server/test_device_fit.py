"""A network on another kind of device than it was exported for is reported; configs switch parts of LibTorch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clipserve_export.configs import net_config
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.specs import SPECS
from clipserve_host.device_fit import find_misfit, read_misfits
from tests.exports import export_torchscript
from tests.motion_repository import ANY_PORTS, KilledTriton

MOTION = SPECS["motion"]
SLOWLY = "motion_net version 3 was exported for a {} and runs on a {}, slowly: clipserve export motion --target {}"


def record(folder: Path, **facts: str | None) -> Path:
    version = folder / "motion_net" / "3"
    version.mkdir(parents=True)
    (version / "export.json").write_text(json.dumps(facts))
    return version / "model.pt"


@pytest.mark.parametrize(
    ("target", "precision", "layout", "on_cpu", "on_gpu"),
    [
        ("cpu", "fp32", "channels_last_3d", False, True),
        ("gpu", "fp32", "contiguous", True, False),
        ("gpu", "fp16", "contiguous", True, False),
        ("cpu", "fp32", None, False, False),
        ("gpu", "fp32", None, False, False),
        ("gpu", "fp16", None, True, False),
    ],
)
def test_a_file_for_another_kind_of_device_is_told(
    tmp_path: Path, target: str, precision: str, layout: str | None, on_cpu: bool, on_gpu: bool
) -> None:
    file = record(tmp_path, target=target, precision=precision, layout=layout)
    assert find_misfit(file, "cpu") == (SLOWLY.format("GPU", "CPU", "cpu") if on_cpu else None)
    assert find_misfit(file, "gpu") == (SLOWLY.format("CPU", "GPU", "gpu") if on_gpu else None)


@pytest.mark.parametrize("text", [None, "", "[]", '{"target": "gpu"}', "null"])
def test_a_record_that_does_not_tell_is_no_reason_to_say_anything(tmp_path: Path, text: str | None) -> None:
    file = record(tmp_path)
    if text is None:
        file.with_name("export.json").unlink()
    else:
        file.with_name("export.json").write_text(text)
    assert find_misfit(file, "cpu") is None


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`motion` as TorchScript for a GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    export_torchscript(folder, "gpu")
    return folder


@pytest.mark.long
def test_a_server_says_once_which_of_its_networks_run_on_the_wrong_device(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with KilledTriton(repository, **ANY_PORTS) as triton:
        told = triton.notices()
        log = triton.log_path.read_text()
    assert told == [SLOWLY.format("GPU", "CPU", "cpu").replace("version 3", "version 1")]
    assert read_misfits(log * 2) == told
    assert read_misfits("I1126 model.py:1] fine\n") == []


# Triton's module, as far as a substitute backend needs it to load a model. The real one exists only inside Triton.
LOAD = """
import json, sys, types
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    Logger=types.SimpleNamespace(log_warn=print, log_info=print)
)
from clipserve_server.backends.libtorch_backend import TritonPythonModel
import torch
repository, config = sys.argv[1:]
arguments = {"model_config": config, "model_repository": repository, "model_version": "1"}
TritonPythonModel().initialize({**arguments, "model_instance_kind": "CPU", "model_instance_device_id": "0"})
# Setting one gives what was set before.
print("set", torch._C._jit_set_profiling_mode(True), torch._C._jit_set_profiling_executor(True))
"""


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, "set True True"),
        ({"ENABLE_JIT_PROFILING": "false"}, "set False True"),
        ({"ENABLE_JIT_EXECUTOR": "false"}, "set True False"),
    ],
)
def test_the_libtorch_backend_takes_the_switches_of_its_config(
    repository: Path, parameters: dict[str, str], found: str
) -> None:
    config = {
        "name": "motion_net",
        "input": [{"name": "CLIP"}],
        "output": [{"name": "SCORES"}, {"name": "FEATURES"}],
        "default_model_filename": "model.pt",
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(repository / "motion_net"), json.dumps(config)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert loaded.stdout.splitlines()[-1] == found


# As where CUDA's libraries are missing: ONNX Runtime has CUDA, warns, and makes a session on the CPU.
LOAD_ON_GPU = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.SimpleNamespace()
import onnxruntime
onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider"]
from clipserve_server.backends.onnxruntime_backend import TritonPythonModel
model = TritonPythonModel()
model.instance = types.SimpleNamespace(model_file=sys.argv[1], threads=1, parameters={})
model.load_on_gpu(0)
"""


def test_a_network_that_onnx_runtime_would_move_from_a_gpu_to_the_cpu_does_not_load(
    repositories: Callable[[FormatName], Path],
) -> None:
    file = repositories("onnx") / "motion_net" / "1" / "model.onnx"
    loaded = subprocess.run([sys.executable, "-c", LOAD_ON_GPU, file], capture_output=True, text=True, timeout=300)
    assert loaded.returncode == 1
    assert "cannot load CUDA" in loaded.stderr.splitlines()[-1]


def test_torchscript_is_served_without_compiling_for_each_shape() -> None:
    """The C++ backend takes this parameter as the substitute does: src/model_state.cc of Triton's PyTorch backend."""
    assert (
        net_config(MOTION, FORMATS["torchscript"], classes=12).parameters["ENABLE_JIT_PROFILING"].string_value
        == "false"
    )
    assert "ENABLE_JIT_PROFILING" not in net_config(MOTION, FORMATS["onnx"], classes=12).parameters
