"""What differs between an export for a GPU and one for a CPU."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipserve_export import capacity
from clipserve_export.clips import random_clips
from clipserve_export.configs import decode_config, ensemble_config, net_config
from clipserve_export.errors import ServingError
from clipserve_export.exporting import comparing_device, export_network
from clipserve_export.formats import FORMATS
from clipserve_export.moves import replace_texts
from clipserve_export.repository import Chosen, find_spec, model_configs, read_chosen, read_config, write_configs
from clipserve_export.serving.changes import fit_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.serving.config import read_serving
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import OWN, SPECS
from clipserve_export.target import Precision, Target, choose_target
from tests.export.conftest import MOTION, Run
from tests.exports import export_torchscript

TORCHSCRIPT = FORMATS["torchscript"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[Target, Path]:
    """`motion` as TorchScript, for each target."""
    folders: dict[Target, Path] = {}
    for target in ("cpu", "gpu"):
        folder = tmp_path_factory.mktemp(target)
        export_torchscript(folder, target)
        folders[target] = folder / "motion_net" / "1"
    return folders


def test_files_for_both_targets_answer_alike_and_differ_in_layout(exports: dict[Target, Path]) -> None:
    clip = random_clips(MOTION.geometry, batch=3, views=2, seed=5).numpy()
    answers = {target: TORCHSCRIPT.load(folder / "model.pt")(clip) for target, folder in exports.items()}
    for one, other in zip(*answers.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    channels_last = {
        target: weights_are_channels_last(torch.jit.load(folder / "model.pt")) for target, folder in exports.items()
    }
    assert channels_last == {"cpu": True, "gpu": False}
    for target, folder in exports.items():
        record = json.loads((folder / "export.json").read_text())
        assert record["target"] == target
        assert record["layout"] == {"cpu": "channels_last_3d", "gpu": "contiguous"}[target]
        assert record["checked_on"] == ("gpu" if target == "gpu" and torch.cuda.is_available() else "cpu")


def weights_are_channels_last(module: torch.jit.ScriptModule) -> bool:
    """Freezing makes constants of the weights. Strides tell where channels and a window are more than one."""
    constants = (node for node in module.graph.findAllNodes("prim::Constant") if node.hasAttribute("value"))
    tensors = [node.t("value") for node in constants if node.kindOf("value") == "t"]
    spatial = [value for value in tensors if value.dim() == 5 and value.shape[1] > 1 and value[0, 0].numel() > 1]
    assert spatial
    return all(value.is_contiguous(memory_format=torch.channels_last_3d) for value in spatial)


def test_in_a_file_no_convolution_may_round_float32_to_tf32(exports: dict[Target, Path]) -> None:
    """A traced convolution carries `allow_tf32`, its last argument, wherever it runs."""
    for folder in exports.values():
        graph = torch.jit.load(folder / "model.pt").graph
        convolutions = graph.findAllNodes("aten::_convolution")
        assert {list(node.inputs())[-1].toIValue() for node in convolutions} == {False}


@pytest.mark.parametrize(
    ("model", "precision", "gigabytes", "videos"),
    [
        ("x3d_m", "fp16", 24, 8),
        ("x3d_m", "fp32", 24, 4),
        ("x3d_m", "fp16", 80, 32),
        ("x3d_m", "fp32", 80, 16),
        ("mvit_base_32x3", "fp16", 24, 2),
        ("motion", "fp32", 24, 32),
        ("x3d_l", "fp32", 8, 0),
    ],
)
def test_a_run_on_a_gpu_holds_what_its_memory_does(
    model: str, precision: Precision, gigabytes: int, videos: int
) -> None:
    spec = SPECS[model]
    serving = Serving(target="gpu", precision=precision, gpu_gigabytes=gigabytes)
    assert serving.largest_batch(spec) == videos
    taken = videos * capacity.max_clips(spec) * capacity.gpu_clip_megabytes(spec, precision)
    assert taken <= (gigabytes - capacity.GPU_RESERVED_GIGABYTES) * 1024
    if not videos:
        with pytest.raises(ServingError, match="give more"):
            serving.require_possible(spec, "pytorch")


@pytest.mark.parametrize(
    ("model", "gigabytes", "chosen", "instances", "videos"),
    [
        ("x3d_m", 24, {}, 2, 4),
        ("x3d_m", 40, {}, 2, 8),
        ("x3d_m", 80, {}, 2, 16),
        ("x3d_m", 24, {"instances": 1}, 1, 8),
        ("x3d_m", 24, {"max_batch": 8}, 1, 8),
        ("x3d_m", 80, {"instances": 3}, 3, 8),
        ("mvit_base_32x3", 24, {}, 1, 2),
    ],
)
def test_two_instances_of_torchscript_share_a_gpu_where_it_holds_both(
    model: str, gigabytes: int, chosen: dict[str, Any], instances: int, videos: int
) -> None:
    spec = SPECS[model]
    serving = Serving(target="gpu", gpu_gigabytes=gigabytes, **chosen)
    serving = fit_serving(spec, TORCHSCRIPT, serving, precision="fp16")
    config = net_config(spec, TORCHSCRIPT, classes=5, serving=serving)
    assert (config.instance_group[0].count, config.max_batch_size) == (instances, videos)
    taken = videos * capacity.max_clips(spec) * capacity.gpu_clip_megabytes(spec, "fp16")
    assert instances * (taken + capacity.GPU_RESERVED_GIGABYTES * 1024) <= gigabytes * 1024
    decode = decode_config([spec], {spec.name: serving}, {})
    assert read_serving(spec, config, ensemble_config(spec, classes=5, serving=serving), decode) == serving
    onnx = fit_serving(spec, FORMATS["onnx"], replace(serving, instances=None, max_batch=None), precision="fp16")
    assert onnx.instances_for(spec) == 1
    assert fit_serving(spec, TORCHSCRIPT, Serving(), precision="fp32").instances_for(spec) == 1


def test_a_head_takes_as_much_of_a_gpu_as_the_model_below_it(tmp_path: Path) -> None:
    """A repository that has only configs of the head knows what its clips take on a GPU."""
    trunk = SPECS["x3d_m"]
    contract = replace(trunk.contract, classes=3)
    spec = replace(trunk, name="mine", family=OWN, labels="", contract=contract)
    serving = fit_serving(spec, TORCHSCRIPT, Serving(target="gpu"), precision="fp16")
    chosen = Chosen(form=TORCHSCRIPT, contract=contract, serving=serving)
    replace_texts(tmp_path, model_configs(tmp_path, spec, chosen))
    found = find_spec(tmp_path, "mine")
    assert found == replace(spec, gpu_clip_megabytes={"fp16": trunk.gpu_clip_megabytes["fp16"]})
    assert read_chosen(tmp_path, found) == chosen
    assert model_configs(tmp_path, found, chosen) == model_configs(tmp_path, spec, chosen)


def test_instances_that_a_gpu_does_not_hold_are_refused() -> None:
    serving = Serving(target="gpu", instances=2)
    with pytest.raises(ServingError, match="2 instances; give more, or choose fewer --instances"):
        fit_serving(SPECS["mvit_base_32x3"], TORCHSCRIPT, serving, precision="fp16")


def test_a_network_for_a_gpu_is_shown_every_batch_that_traffic_brings_before_it_is_ready() -> None:
    for most in (8, 6, 1):
        serving = Serving(target="gpu", precision="fp16", max_batch=most)
        config = net_config(SPECS["x3d_m"], TORCHSCRIPT, classes=5, serving=serving)
        assert [entry.batch_size for entry in config.model_warmup] == list(range(1, most + 1))
        assert {entry.inputs["CLIP"].dims[0] for entry in config.model_warmup} == {1}, "one view"
    assert not net_config(SPECS["x3d_m"], TORCHSCRIPT, classes=5, serving=Serving()).model_warmup


def test_the_target_is_an_option_and_half_precision_that_no_gpu_has_checked_is_told(tmp_path: Path, run: Run) -> None:
    write_configs(tmp_path)
    options = ("export", "motion", "--format", "torchscript", "--repository", tmp_path, "--reuse")
    said = run(*options, "--target", "gpu", "--gpu-memory", "80", "--max-batch", "16")[1]
    assert "for a GPU" in said
    assert f"{'fp16' if torch.cuda.is_available() else 'fp32'}, because " in said
    net = read_config(tmp_path, "motion_net")
    assert net.parameters["target"].string_value == "gpu"
    assert net.parameters["gpu_gigabytes"].string_value == "80"
    assert net.max_batch_size == 16
    assert read_config(tmp_path, "motion").max_batch_size == 8, "more than decoding takes"
    assert run("export", "--check", "--repository", tmp_path)[0] == 0
    status, said = run(*options, "--target", "gpu", "--precision", "fp16")
    assert status == 0, said
    assert ("fp16 was not checked on a GPU" in said) != torch.cuda.is_available()
    assert read_config(tmp_path, "motion_net").max_batch_size == 16, "chosen before"
    status, said = run(*options, "--target", "cpu", "--gpu-memory", "80")
    assert status == 1
    assert "--target gpu" in said
    said = run(*options, "--target", "cpu")[1]
    assert "for a CPU" in said, "made for a GPU is not the same"
    assert "because" not in said
    net = read_config(tmp_path, "motion_net")
    assert "target" not in net.parameters
    assert net.max_batch_size == 8
    assert not net.model_warmup


def test_options_chosen_for_one_target_are_kept_for_the_other_unless_they_are_about_memory_or_gpus() -> None:
    serving = Serving(target="gpu", gpu_gigabytes=80, max_batch=16, instances=2, queue_delay=500, warm_up=False)
    assert serving.for_target("gpu") == serving
    assert serving.for_target("cpu") == Serving(instances=2, queue_delay=500, warm_up=False)
    on_gpus = Serving(target="gpu", gpus=(0, 1), accelerator="tensorrt", keep="all")
    assert on_gpus.for_target("cpu") == Serving(keep="all"), "a machine without GPUs does not load it"
    assert replace(on_gpus, target="cpu").for_target("gpu") == on_gpus
    assert Serving(target="gpu").warms_up
    assert not replace(serving, warm_up=None, target="cpu").warms_up


def test_auto_is_what_this_machine_has() -> None:
    here: Target = "gpu" if torch.cuda.is_available() else "cpu"
    assert choose_target("auto") == here
    assert choose_target("gpu") == "gpu"
    assert comparing_device(FORMATS["onnx"], "gpu") == "cpu", "ONNX Runtime of this environment has no CUDA"


@pytest.mark.needs("gpu")
def test_float32_is_float32_on_a_gpu(tmp_path: Path) -> None:
    record = export_network(
        PublishedSource(MOTION), format_name="torchscript", precision="fp32", target="gpu", repository=tmp_path
    )
    assert record is not None
    assert (record.checked_on, record.parity.holds) == ("gpu", True)


@pytest.mark.needs("gpu")
def test_half_precision_is_taken_where_the_gpu_shows_that_it_holds(tmp_path: Path) -> None:
    record = export_network(
        PublishedSource(MOTION), format_name="torchscript", precision="auto", target="gpu", repository=tmp_path
    )
    assert record is not None
    assert (record.precision, record.checked_on) == ("fp16", "gpu")
    assert record.parity.holds
