"""Serving options in config.pbtxt: written into its messages, and read back.

The parameter names of the accelerators are those of Triton's ONNX Runtime backend (its README and src/onnxruntime.cc).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.capacity import (
    GPU_GIGABYTES,
    GPU_RESERVED_GIGABYTES,
    MAX_CLIPS,
    MAX_VIDEOS,
    WAITING_MEGABYTES,
    gpu_part_clips,
    max_clips,
    max_waiting,
)
from clipserve_export.serving.choices import NEWEST, Serving
from clipserve_export.specs import Geometry, ModelSpec
from clipserve_export.target import Precision, Target

# The container may write there. Engines take minutes to build, and fit one kind of GPU.
ENGINE_FOLDER = "/cache"
TENSORRT = {
    "max_workspace_size_bytes": str(4 * 2**30),
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
    # Otherwise a sum of squares leaves the range of fp16, and MViT's answers are NaN.
    "trt_layer_norm_fp32_fallback": "1",
}
# Views make many shapes. By default ONNX Runtime tries every algorithm of cuDNN for each new shape (0, EXHAUSTIVE), and
# memory grows in powers of two. These are parameters and no `gpu_execution_accelerator` named cuda: in a config with
# parameters the backend overwrites the accelerator's values with its defaults for these two.
CUDA = {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}
# Parameters from which the spec of a model is read that is not in SPECS, such as a head on one that is.
CLIP_MEGABYTES, GPU_CLIP_MEGABYTES = "clip_megabytes", "gpu_clip_megabytes"
# On a GPU a config may have one instance because that was chosen, or because of a large --max-batch.
CHOSEN_INSTANCES = "chosen_instances"
# A parameter that tells why a config does not name OpenVINO though it is chosen.
LACKING_OPENVINO = "openvino_does_not_run_versions"


def write_net_options(
    config: pb.ModelConfig, spec: ModelSpec, serving: Serving, lacking_openvino: Sequence[int]
) -> None:
    """Write the options into a network's config. `serving` must be possible.

    lacking_openvino: loaded versions that OpenVINO does not run. The container's ONNX Runtime would give OpenVINO parts
        of the graph, and not load the model.
    """
    config.max_batch_size = serving.batch_for(spec)
    # Without an instance group the CPU gets two instances, which compete for its cores.
    group = config.instance_group.add(count=serving.instances_for(spec))
    if serving.gpus:
        group.kind = pb.ModelInstanceGroup.KIND_GPU
        group.gpus.extend(serving.gpus)
    config.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay
    if config.backend == "onnxruntime":
        _write_accelerators(config, serving, lacking_openvino)
    if serving.target == "gpu":
        facts = {"target": "gpu", "gpu_gigabytes": str(serving.gpu_gigabytes), "precision": serving.precision}
        if measured := spec.gpu_clip_megabytes.get(serving.precision):
            facts[GPU_CLIP_MEGABYTES] = str(measured)
        if serving.instances:
            facts[CHOSEN_INSTANCES] = str(serving.instances)
        # For the substitute backends, as max_clips_at_once is.
        facts["max_gpu_clips_at_once"] = str(gpu_part_clips(spec, serving.precision))
        for key, value in facts.items():
            config.parameters[key].string_value = value
    if serving.warms_up:
        config.model_warmup.extend(_warm_ups(spec, serving))
    if serving.cache:
        config.response_cache.enable = True
    _write_versions(config, serving.keep)


def _write_accelerators(config: pb.ModelConfig, serving: Serving, lacking_openvino: Sequence[int]) -> None:
    accelerators = config.optimization.execution_accelerators
    if serving.cpu_accelerator == "openvino" and not serving.is_for_gpus:
        # OpenVINO runs these networks two to four times as fast on a CPU. On a GPU it would run parts beside CUDA.
        if lacking_openvino:
            config.parameters[LACKING_OPENVINO].string_value = ",".join(map(str, lacking_openvino))
        else:
            accelerators.cpu_execution_accelerator.add(name="openvino")
    if serving.accelerator == "tensorrt":
        # No explicit shape profiles: they must name the inputs of every part into which ONNX Runtime splits the graph,
        # and a missing name keeps the model from loading. The warm-up shows TensorRT the range instead.
        tensorrt = accelerators.gpu_execution_accelerator.add(name="tensorrt")
        folders = {"trt_engine_cache_path": ENGINE_FOLDER, "trt_timing_cache_path": ENGINE_FOLDER}
        for key, value in {"precision_mode": serving.precision.upper(), **TENSORRT, **folders}.items():
            tensorrt.parameters[key] = value
    if serving.accelerator == "cuda":
        for key, value in CUDA.items():
            config.parameters[key].string_value = value
    if not accelerators.ByteSize():
        config.ClearField("optimization")


def _warm_ups(spec: ModelSpec, serving: Serving) -> list[pb.ModelWarmup]:
    """The runs ahead of the first request: the smallest, and a full one of single clips.

    TensorRT gets the largest, because it builds engines for it. For the target gpu all batch sizes run, because a GPU
    allocates memory and chooses kernels for each.
    """
    most = serving.batch_for(spec)
    if serving.accelerator == "tensorrt":
        shapes = [(1, 1), (most, serving.clips_for(spec))]
    elif serving.target == "gpu":
        shapes = [(batch, 1) for batch in range(1, most + 1)]
    else:
        shapes = [(1, 1), (most, 1)]
    return [_warm_up(spec.geometry, batch, views) for batch, views in dict.fromkeys(shapes)]


def _warm_up(geometry: Geometry, batch: int, views: int) -> pb.ModelWarmup:
    dims = [views, geometry.frames, geometry.crop, geometry.crop, 3]
    clip = pb.ModelWarmup.Input(data_type=pb.TYPE_UINT8, dims=dims, random_data=True)
    return pb.ModelWarmup(name=f"{batch} of {views} clips", batch_size=batch, inputs={"CLIP": clip})


def _write_versions(config: pb.ModelConfig, keep: str) -> None:
    if keep == NEWEST:
        return
    if keep == "all":
        config.version_policy.all.SetInParent()
    elif keep.startswith("latest:"):
        config.version_policy.latest.num_versions = int(keep.partition(":")[2])
    else:
        config.version_policy.specific.versions.extend(map(int, keep.split(",")))


def write_ensemble_options(config: pb.ModelConfig, spec: ModelSpec, serving: Serving) -> None:
    """Write the options into an ensemble's config."""
    # The cache's key has the bytes of the clips and not their shape: two videos with one clip look like one video with
    # two. An ensemble may not take more than its steps do: decoding takes MAX_VIDEOS in a request.
    config.max_batch_size = 1 if serving.cache else min(MAX_VIDEOS, serving.batch_for(spec))
    if serving.max_inflight:
        config.ensemble_scheduling.max_inflight_requests = serving.max_inflight


def write_clips(decode: pb.ModelConfig, specs: Iterable[ModelSpec], servings: Mapping[str, Serving]) -> None:
    """Write the limits of clips into the decode step's config, for networks that take fewer than it allows."""
    for spec in specs:
        name, most = f"MAX_{spec.geometry.output_name}", servings.get(spec.name, Serving()).clips_for(spec)
        bound = decode.parameters[name].string_value if name in decode.parameters else MAX_CLIPS
        if most < int(bound):
            decode.parameters[name].string_value = str(most)


def _read_max_clips(decode: pb.ModelConfig, spec: ModelSpec) -> int | None:
    output = spec.geometry.output_name
    chosen = _read_queue(decode, output).get("chosen_clips")
    if isinstance(chosen, dict):
        most = chosen.get(spec.net_name)
        return most if isinstance(most, int) and 1 <= most < max_clips(spec) else None
    name = f"MAX_{output}"
    text = decode.parameters[name].string_value if name in decode.parameters else ""
    return int(text) if text.isdecimal() and 1 <= int(text) < max_clips(spec) else None


def write_queues(decode: pb.ModelConfig, specs: Iterable[ModelSpec], servings: Mapping[str, Serving]) -> None:
    """Write into the decode step's config how much may wait for each network, or for those that share an output.

    servings: options by the model's name. A model without an entry has the defaults.
    """
    by_output: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        by_output.setdefault(spec.geometry.output_name, []).append(spec)
    for output, sharing in by_output.items():
        bound = {
            "networks": [spec.net_name for spec in sharing],
            "requests": min(servings.get(spec.name, Serving()).waiting_for(spec) for spec in sharing),
            "megabytes": WAITING_MEGABYTES,
        }
        if len(sharing) > 1:
            # The smallest bounds, of requests and of clips, hold for all of them, so they do not tell who chose them.
            # The decode step ignores this.
            known = {spec.net_name: servings[spec.name] for spec in sharing if spec.name in servings}
            bound["chosen"] = {name: serving.max_queue for name, serving in known.items() if serving.max_queue}
            bound["chosen_clips"] = {name: serving.max_clips for name, serving in known.items() if serving.max_clips}
        decode.parameters[f"QUEUE_{output}"].string_value = json.dumps(bound)


def _read_max_queue(decode: pb.ModelConfig, spec: ModelSpec, net: pb.ModelConfig) -> int | None:
    bound = _read_queue(decode, spec.geometry.output_name)
    chosen = bound.get("chosen")
    requests = chosen.get(spec.net_name) if isinstance(chosen, dict) else bound.get("requests")
    return requests if isinstance(requests, int) and 0 < requests != max_waiting(net.max_batch_size) else None


def _read_queue(decode: pb.ModelConfig, output: str) -> dict[str, Any]:
    name = f"QUEUE_{output}"
    try:
        bound = json.loads(decode.parameters[name].string_value) if name in decode.parameters else {}
    except ValueError:
        return {}
    return bound if isinstance(bound, dict) else {}


def read_serving(spec: ModelSpec, net: pb.ModelConfig, ensemble: pb.ModelConfig, decode: pb.ModelConfig) -> Serving:
    """The options that these configs hold. What no option produces is ignored here, and `export --check` reports it."""
    group = net.instance_group[0] if net.instance_group else pb.ModelInstanceGroup(count=1)
    accelerators = net.optimization.execution_accelerators
    tensorrt = [entry for entry in accelerators.gpu_execution_accelerator if entry.name == "tensorrt"]
    cpu = {entry.name for entry in accelerators.cpu_execution_accelerator}
    parameters = {name: value.string_value for name, value in net.parameters.items()}
    target: Target = "gpu" if parameters.get("target") == "gpu" else "cpu"
    written = tensorrt[0].parameters["precision_mode"] if tensorrt else parameters.get("precision", "fp32")
    serving = Serving(
        target=target,
        gpu_gigabytes=_read_gigabytes(parameters.get("gpu_gigabytes", "")) if target == "gpu" else GPU_GIGABYTES,
        gpus=tuple(group.gpus) if group.kind == pb.ModelInstanceGroup.KIND_GPU else (),
        max_clips=_read_max_clips(decode, spec),
        queue_delay=net.dynamic_batching.max_queue_delay_microseconds,
        max_queue=_read_max_queue(decode, spec, net),
        max_inflight=ensemble.ensemble_scheduling.max_inflight_requests,
        accelerator="tensorrt" if tensorrt else "cuda" if CUDA.keys() & set(net.parameters) else "none",
        precision=_read_precision(written) if tensorrt or target == "gpu" else "fp32",
        torchscript=target == "gpu" and net.backend == "pytorch",
        warm_up=None if bool(net.model_warmup) == (target == "gpu") else bool(net.model_warmup),
        cache=net.response_cache.enable,
        keep=_read_versions(net.version_policy),
    )
    names_openvino = "openvino" in cpu or LACKING_OPENVINO in parameters
    if net.backend == "onnxruntime" and not names_openvino and not serving.is_for_gpus:
        serving = replace(serving, cpu_accelerator="none")
    # The fewest options that produce both numbers.
    count, most = group.count, net.max_batch_size
    for instances, batch in product((count,) if CHOSEN_INSTANCES in parameters else (None, count), (None, most)):
        fitting = replace(serving, instances=instances, max_batch=batch)
        bound = fitting.largest_batch(spec)
        if fitting.instances_for(spec) == count and fitting.batch_for(spec) == most and 1 <= most <= bound:
            return fitting
    return replace(serving, instances=count) if count > 0 else serving


def read_clip_megabytes(net: pb.ModelConfig) -> tuple[int, dict[Precision, int]]:
    """What a clip takes by a network's config: on a CPU, and on a GPU by precision where it was measured."""
    found = {name: value.string_value for name, value in net.parameters.items()}
    on_cpu, on_gpu = (
        int(text) if text.isdecimal() else 0
        for text in (found.get(CLIP_MEGABYTES, ""), found.get(GPU_CLIP_MEGABYTES, ""))
    )
    return on_cpu or 1, {_read_precision(found.get("precision", "fp32")): on_gpu} if on_gpu else {}


def _read_gigabytes(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) > GPU_RESERVED_GIGABYTES else GPU_GIGABYTES


def _read_precision(mode: str) -> Precision:
    return next((precision for precision in get_args(Precision) if precision == mode.lower()), "fp32")


def _read_versions(policy: pb.ModelVersionPolicy) -> str:
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return "all"
    if kind == "latest" and policy.latest.num_versions:
        return f"latest:{policy.latest.num_versions}"
    if kind == "specific" and policy.specific.versions:
        return ",".join(map(str, policy.specific.versions))
    return NEWEST
