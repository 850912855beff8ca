"""The options that an operator chooses are in the configs, stay there, and are no drift."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clipserve_export.capacity import max_clips, max_videos, max_waiting
from clipserve_export.configs import decode_config, ensemble_config, net_config, parse_config, print_config
from clipserve_export.errors import PrecisionError, ServingError
from clipserve_export.formats import FORMATS
from clipserve_export.precision import require_writable
from clipserve_export.repository import find_drift, read_chosen, read_config, write_configs, write_serving
from clipserve_export.serving.changes import change_serving
from clipserve_export.serving.choices import Serving, choose_versions, parse_gpus, parse_keep
from clipserve_export.serving.config import read_serving
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.versions import serve_versions
from tests.export.conftest import MOTION, Run

CHOICES = {
    "defaults": Serving(),
    "instances": Serving(instances=2, gpus=(0, 3)),
    "batching": Serving(max_batch=1, queue_delay=2_000, max_queue=7),
    "few clips": Serving(max_clips=2),
    "in flight": Serving(max_inflight=4),
    "no openvino": Serving(cpu_accelerator="none"),
    "cuda": Serving(accelerator="cuda"),
    "tensorrt": Serving(accelerator="tensorrt", precision="fp16", warm_up=True),
    "cache": Serving(cache=True, warm_up=True),
    "gpu": Serving(target="gpu", precision="fp16", gpu_gigabytes=80),
    "gpu, smaller": Serving(target="gpu", max_batch=1, warm_up=False),
    "gpu, three instances": Serving(target="gpu", precision="fp16", gpu_gigabytes=240, instances=3),
    "two newest": Serving(keep="latest:2"),
    "all": Serving(keep="all"),
    "named": Serving(keep="1,3"),
}
# Of src/onnxruntime.cc in Triton's ONNX Runtime backend, which refuses to load a model with any other.
TENSORRT_PARAMETERS = {
    "precision_mode",
    "max_workspace_size_bytes",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_layer_norm_fp32_fallback",
}
every_model = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)


@every_model
@pytest.mark.parametrize("serving", CHOICES.values(), ids=CHOICES)
def test_a_choice_is_read_back_from_the_text_it_was_written_as(spec: ModelSpec, serving: Serving) -> None:
    net = parse_config(print_config(net_config(spec, FORMATS["onnx"], classes=5, serving=serving)))
    ensemble = parse_config(print_config(ensemble_config(spec, classes=5, serving=serving)))
    decode = parse_config(print_config(decode_config(SPECS.values(), {spec.name: serving}, {})))
    same = None if serving.max_batch == max_videos(spec) else serving.max_batch
    assert read_serving(spec, net, ensemble, decode) == replace(serving, max_batch=same)


@pytest.mark.parametrize("serving", CHOICES.values(), ids=CHOICES)
def test_a_choice_is_no_drift_and_is_not_reset(repository: Path, serving: Serving) -> None:
    write_configs(repository)
    write_serving(repository, MOTION, serving)
    assert find_drift(repository) == []
    assert write_configs(repository) == []
    chosen = read_chosen(repository, MOTION)
    assert chosen is not None
    assert chosen.serving == serving


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("motion_net", ("max_batch_size: 8", "max_batch_size: 9")),
        ("motion_net", ("count: 1", "count: 1\n  kind: KIND_GPU")),
        ("motion_net", ('name: "openvino"', 'name: "openvino"\n  parameters { key: "device" value: "GPU" }')),
        ("motion_net", ("dynamic_batching {", "dynamic_batching { default_queue_policy { max_queue_size: 9 }")),
        ("motion", ("max_batch_size: 8", "max_batch_size: 4")),
        ("motion", ("max_batch_size: 8", "max_batch_size: 8\nresponse_cache { enable: true }")),
        ("decode", ("max_batch_size: 8", "max_batch_size: 8\nresponse_cache { enable: true }")),
    ],
)
def test_what_no_choice_gives_is_drift(repository: Path, model: str, change: tuple[str, str]) -> None:
    write_configs(repository)
    path = repository / model / "config.pbtxt"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    assert len(find_drift(repository)) == 1


@every_model
@pytest.mark.parametrize(
    "serving", [Serving(target="gpu"), Serving(gpus=(0,)), Serving(accelerator="cuda"), Serving(accelerator="tensorrt")]
)
def test_what_is_for_gpus_names_no_accelerator_of_cpus(spec: ModelSpec, serving: Serving) -> None:
    """Triton's ONNX Runtime backend appends it on GPU instances, too."""
    config = net_config(spec, FORMATS["onnx"], classes=5, serving=serving)
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator


@every_model
def test_the_ensemble_takes_as_many_videos_as_the_network_and_one_where_answers_are_cached(spec: ModelSpec) -> None:
    for most in (1, max_videos(spec)):
        serving = Serving(max_batch=most)
        assert net_config(spec, FORMATS["onnx"], classes=5, serving=serving).max_batch_size == most
        assert ensemble_config(spec, classes=5, serving=serving).max_batch_size == most
        cached = replace(serving, cache=True)
        assert net_config(spec, FORMATS["onnx"], classes=5, serving=cached).max_batch_size == most
        assert ensemble_config(spec, classes=5, serving=cached).max_batch_size == 1


@every_model
def test_tensorrt_is_given_what_its_backend_knows_and_is_shown_every_shape(spec: ModelSpec) -> None:
    serving = CHOICES["tensorrt"]
    config = net_config(spec, FORMATS["onnx"], classes=5, serving=serving)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert set(accelerator.parameters) == TENSORRT_PARAMETERS
    assert accelerator.parameters["precision_mode"] == "FP16"
    shown = [(entry.batch_size, *entry.inputs["CLIP"].dims) for entry in config.model_warmup]
    clip = (spec.geometry.frames, spec.geometry.crop, spec.geometry.crop, 3)
    assert shown == [(1, 1, *clip), (max_videos(spec), max_clips(spec), *clip)]


def test_options_come_one_by_one_and_stay_until_they_are_reset(repository: Path, run: Run) -> None:
    def configs(*options: str) -> str:
        status, said = run("export", "motion", "--configs", "--repository", repository, *options)
        assert status == 0, said
        return (repository / "motion_net" / "config.pbtxt").read_text()

    before = configs()
    configs("--instances", "2", "--max-batch", "4")
    configs("--queue-delay", "500")
    text = configs("--warm-up", "--gpus", "0,1")
    for line in ("count: 2", "max_batch_size: 4", "max_queue_delay_microseconds: 500", "gpus: 1", "batch_size: 4"):
        assert line in text
    assert read_config(repository, "motion").max_batch_size == 4
    assert run("export", "--check", "--repository", repository)[0] == 0
    assert "warmup" not in configs("--no-warm-up")
    assert configs("--reset") == before
    rolled_back = configs("--keep", "1")
    configs("--instances", "2")
    assert configs("--reset") == rolled_back, "a reset undoes no rollback"
    assert configs("--reset", "--keep", "latest:1") == before


@pytest.mark.long
def test_a_bound_on_what_waits_is_the_decode_steps_and_leaves_that_of_other_networks(
    repository: Path, run: Run
) -> None:
    for model, bound in (("motion", "7"), ("x3d_s", "9")):
        run("export", model, "--configs", "--repository", repository, "--max-queue", bound)
    bounds = read_config(repository, "decode").parameters
    assert json.loads(bounds["QUEUE_CLIP_8X8_64_64"].string_value)["requests"] == 7
    assert json.loads(bounds["QUEUE_CLIP_13X6_182_182"].string_value)["requests"] == 9
    assert "already exported" in run("export", "motion", "--reuse", "--repository", repository)[1]
    assert "already exported" not in run("export", "motion", "--reuse", "--repository", repository, "--reset")[1]
    bounds = read_config(repository, "decode").parameters
    assert json.loads(bounds["QUEUE_CLIP_8X8_64_64"].string_value)["requests"] == max_waiting(8)
    assert json.loads(bounds["QUEUE_CLIP_13X6_182_182"].string_value)["requests"] == 9


def test_a_bound_on_clips_is_lifted_where_another_network_takes_the_same_clips(repository: Path) -> None:
    write_configs(repository)
    one, other = SPECS["c2d_r50"], SPECS["i3d_r50"]
    name = f"MAX_{one.geometry.output_name}"
    assert one.geometry == other.geometry
    write_serving(repository, one, Serving(max_clips=5))
    write_serving(repository, other, Serving(instances=2))
    assert read_config(repository, "decode").parameters[name].string_value == "5"
    assert find_drift(repository) == []
    for spec, serving in ((one, Serving(max_clips=5)), (other, Serving(instances=2))):
        chosen = read_chosen(repository, spec)
        assert chosen is not None
        assert chosen.serving == serving
    write_serving(repository, one, Serving())
    assert name not in read_config(repository, "decode").parameters


def test_an_export_keeps_what_was_chosen_and_reuse_asks_for_it_too(repository: Path, run: Run) -> None:
    options = ("export", "motion", "--reuse", "--repository", repository)
    assert "already exported" in run(*options)[1]
    assert "already exported" not in run(*options, "--instances", "2")[1], "served otherwise is not the same"
    assert "already exported" in run(*options)[1]
    assert read_config(repository, "motion_net").instance_group[0].count == 2


def test_reuse_makes_the_decode_step_of_an_older_clipserve_new(repository: Path, run: Run) -> None:
    code = repository / "decode" / "1" / "model.py"
    text = code.read_text()
    code.write_text("# of an older clipserve\n")
    options = ("export", "motion", "--reuse", "--repository", repository)
    assert "already exported" not in run(*options)[1]
    assert code.read_text() == text
    assert "already exported" in run(*options)[1]


def test_tensorrt_brings_its_warm_up_along_unless_told_not_to(repository: Path, run: Run) -> None:
    options = ("export", "motion", "--configs", "--repository", repository, "--accelerator")
    record = repository / "motion_net" / "1" / "export.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"tensor_suffix": None}))
    status, said = run(*options, "tensorrt")
    assert status == 1, "a file from before its tensors were told apart"
    assert "--version 1" in said
    run("export", "motion", "--repository", repository)
    assert run(*options, "tensorrt")[0] == 0
    assert len(read_config(repository, "motion_net").model_warmup) == 2
    assert run(*options, "tensorrt", "--no-warm-up")[0] == 0
    assert not read_config(repository, "motion_net").model_warmup


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("motion", "--max-batch", "9"), "motion takes 1 to 8 videos in a run"),
        (("x3d_l", "--max-batch", "8"), "x3d_l takes 1 to 2 videos in a run"),
        (("motion", "--max-clips", "31"), "motion takes 1 to 30 of one video"),
        (("motion", "--gpus", "0,0"), "each once"),
        (("motion", "--keep", "newest"), "latest:K"),
        (("motion", "--keep", "2"), "motion has no version 2; there are 1"),
        (("motion", "--keep", "latest:99999999999"), "K has at most 9 digits"),
        (("x3d_s", "--keep", "9" * 19), "a version 18"),
        (("motion", "--gpus", "99999999999"), "0 to 999"),
        (("motion", "--max-inflight", "99999999999"), "0<=x<=4294967295"),
        (("motion", "--format", "onnx", "--version", "9" * 19), "x<=999999999999999999"),
        (("--instances", "2"), "name the models"),
        (("motion", "--format", "torchscript", "--accelerator", "tensorrt"), "--format onnx"),
        (("motion", "--precision", "bf16"), "--format torchscript"),
    ],
)
def test_an_impossible_choice_is_told_what_is_allowed_and_changes_nothing(
    repository: Path, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    write_configs(repository)
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    configs = [] if {"--format", "--precision"} & set(arguments) else ["--configs"]
    status, output = run("export", *arguments, *configs, "--repository", repository)
    assert status in (1, 2)
    assert said in output
    assert before == {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "choose",
    [
        lambda repository: change_serving(repository, MOTION, lambda present: replace(present, keep="all")),
        lambda repository: serve_versions(repository, MOTION, "all"),
    ],
    ids=["options", "versions"],
)
def test_two_programs_that_change_a_model_at_once_both_do(repository: Path, choose: Callable[[Path], object]) -> None:
    write_configs(repository)
    other = threading.Thread(target=choose, args=(repository,))

    def change(present: Serving) -> Serving:
        other.start()
        other.join(0.2)  # it waits
        return replace(present, instances=2)

    change_serving(repository, MOTION, change)
    other.join()
    chosen = read_chosen(repository, MOTION)
    assert chosen is not None
    assert chosen.serving == Serving(instances=2, keep="all")


def test_accelerators_do_not_outlive_the_format_they_were_chosen_for() -> None:
    serving = Serving(instances=3, accelerator="cuda", cpu_accelerator="none")
    assert serving.for_format("onnxruntime", before="onnxruntime") == serving
    assert serving.for_format("pytorch", before="onnxruntime") == Serving(instances=3)
    with pytest.raises(ServingError, match="LibTorch runs it on the GPU all the same"):
        serving.require_possible(MOTION, "pytorch")
    with pytest.raises(PrecisionError, match="opset"):
        require_writable(FORMATS["onnx"], "bf16")


def test_version_policies_mean_what_triton_takes_them_for() -> None:
    published = [1, 2, 5]
    meant = {"latest": [5], "latest:2": [2, 5], "all": published, "1": [1], "5,1": [1, 5], "3": []}
    assert {keep: choose_versions(parse_keep(keep), published) for keep in meant} == meant
    assert parse_gpus("all") == ()
    for wrong in ("latest:0", "0", "1;2", "", "1,"):
        with pytest.raises(ServingError):
            parse_keep(wrong)
