"""The config.pbtxt of every model in the repository, as typed messages.

Triton runs with --disable-auto-complete-config, so these files are complete. They are the same for every machine:
without a `kind`, Triton uses every GPU, or the CPU on a machine without one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve.contract import PARAMETER, ClipContract
from clipserve_export.capacity import MAX_VIDEOS, part_clips
from clipserve_export.formats import Format
from clipserve_export.serving.choices import Serving
from clipserve_export.serving.config import (
    CLIP_MEGABYTES,
    write_clips,
    write_ensemble_options,
    write_net_options,
    write_queues,
)
from clipserve_export.specs import Geometry, ModelSpec

DECODE, TIMELINE = "decode", "timeline"
DEFAULTS = Serving()
# Parameters of the decode step that an operator sets by hand, and an export keeps. Each is a setting of the decode pool
# or a limit of a video: see PoolSettings in decode_pool and Limits in clip_decode.
DECODE_PARAMETERS = (
    "workers",
    "max_waiting",
    "max_waiting_megabytes",
    "max_decode_seconds",
    "max_worker_megabytes",
    "decoder",
    "nvdec_processes",
    "nvdec_streams",
    "nvdec_megabytes",
    "nvdec_min_pixels",
    "max_bytes",
    "max_pixels",
    "max_seconds",
    "max_frames",
)
# The same for timelines: TimelineSettings in timeline_model.
TIMELINE_PARAMETERS = (
    "max_timelines",
    "max_timeline_seconds",
    "max_timeline_windows",
    "max_shared_megabytes",
    "max_silent_seconds",
    "max_paused_seconds",
    "max_worker_megabytes",
    "run_milliseconds",
    "max_bytes",
    "max_pixels",
    "max_frames",
)
NOTICE = "# Made by `clipserve export`; `clipserve export --check` compares it with the specs.\n"


def decode_config(
    specs: Iterable[ModelSpec], servings: Mapping[str, Serving], parameters: Mapping[str, str]
) -> pb.ModelConfig:
    """The decode step of all networks. Each clip geometry has an output, and a parameter of the same name.

    servings: options by the model's name. A model without an entry has the defaults.
    parameters: DECODE_PARAMETERS that an operator has set.
    """
    specs = list(specs)
    geometries = {spec.geometry.output_name: spec.geometry for spec in specs}
    config = pb.ModelConfig(
        name=DECODE,
        backend="python",
        max_batch_size=MAX_VIDEOS,
        input=[pb.ModelInput(name="VIDEO", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            *(pb.ModelOutput(name=n, data_type=pb.TYPE_UINT8, dims=clip_dims(g)) for n, g in geometries.items()),
            pb.ModelOutput(name="REPORT", data_type=pb.TYPE_STRING, dims=[1]),
        ],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
    )
    for name, geometry in geometries.items():
        config.parameters[name].string_value = json.dumps(vars(geometry))
    write_clips(config, specs, servings)
    write_queues(config, specs, servings)
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def read_parameters(config: pb.ModelConfig, names: Iterable[str]) -> dict[str, str]:
    """Those of these parameters that an operator has set by hand."""
    return {name: config.parameters[name].string_value for name in names if name in config.parameters}


def timeline_config(
    specs: Iterable[ModelSpec], servings: Mapping[str, Serving], parameters: Mapping[str, str]
) -> pb.ModelConfig:
    """The model that answers window by window, for every network. Its responses have n windows each.

    servings: options by the model's name. A model without an entry has the defaults.
    parameters: TIMELINE_PARAMETERS that an operator has set.
    """
    config = pb.ModelConfig(
        name=TIMELINE,
        backend="python",
        input=[pb.ModelInput(name="VIDEO", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            pb.ModelOutput(name="WINDOWS", data_type=pb.TYPE_STRING, dims=[-1]),
            pb.ModelOutput(name="SCORES", data_type=pb.TYPE_FP32, dims=[-1, -1]),
            pb.ModelOutput(name="FEATURES", data_type=pb.TYPE_FP32, dims=[-1, -1]),
            pb.ModelOutput(name="PROGRESS", data_type=pb.TYPE_STRING, dims=[1]),
        ],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for spec in specs:
        serving = servings.get(spec.name, DEFAULTS)
        config.parameters[f"MODEL_{spec.name}"].string_value = json.dumps(
            {
                "network": spec.net_name,
                "geometry": vars(spec.geometry),
                "max_clips": serving.clips_for(spec),
                "max_batch": serving.batch_for(spec),
                "instances": serving.instances_for(spec),
            }
        )
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


def clip_dims(geometry: Geometry) -> list[int]:
    """[V, T, S, S, 3]. V is free, because the number of views depends on the request."""
    return [-1, geometry.frames, geometry.crop, geometry.crop, 3]


def net_config(
    spec: ModelSpec, form: Format, *, classes: int, serving: Serving = DEFAULTS, lacking_openvino: Sequence[int] = ()
) -> pb.ModelConfig:
    """The config of a network: clips in, scores and features out.

    lacking_openvino: loaded versions that OpenVINO does not run.
    """
    config = pb.ModelConfig(
        name=spec.net_name,
        backend=form.backend,
        default_model_filename=form.filename,
        input=[pb.ModelInput(name="CLIP", data_type=pb.TYPE_UINT8, dims=clip_dims(spec.geometry))],
        # In the order of the network's outputs, which LibTorch relies on.
        output=_answers(spec, classes, label_filename="labels.txt"),
        # Requests that wait while the network is busy run together. None waits for others, unless a queue delay is
        # chosen. No default_queue_policy: with any field of it requests wait for Triton's scheduler
        # (benchmarks/stalls.py). The decode step keeps the queue short instead.
        dynamic_batching=pb.ModelDynamicBatching(),
    )
    # The container's start compares it with the memory.
    config.parameters[CLIP_MEGABYTES].string_value = str(spec.clip_megabytes)
    # For the substitute backends. The C++ backends ignore it.
    config.parameters["max_clips_at_once"].string_value = str(part_clips(spec))
    if form.backend == "onnxruntime":
        # A memory pattern keeps a second copy of a run's memory for every shape, and views make many shapes. The arena
        # never frees memory. Without both, x3d_s takes half the memory and the same time.
        config.parameters["enable_mem_pattern"].string_value = "0"
        config.parameters["enable_mem_arena"].string_value = "0"
    if form.backend == "pytorch":
        # With profiling, LibTorch watches the first call of each new shape and compiles in the second.
        config.parameters["ENABLE_JIT_PROFILING"].string_value = "false"
    write_net_options(config, spec, serving, lacking_openvino)
    return config


def ensemble_config(
    spec: ModelSpec, *, classes: int, serving: Serving, contract: ClipContract | None = None
) -> pb.ModelConfig:
    """The config of the public model: decode, then the newest loaded version of the network.

    contract: of its weights; None: the one of `spec`.
    """
    output_name = spec.geometry.output_name
    answers = _answers(spec, classes)
    config = pb.ModelConfig(
        name=spec.name,
        platform="ensemble",
        input=[pb.ModelInput(name="VIDEO", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            *answers,
            pb.ModelOutput(name="REPORT", data_type=pb.TYPE_STRING, dims=[1]),
        ],
        ensemble_scheduling=pb.ModelEnsembling(
            step=[
                pb.ModelEnsembling.Step(
                    model_name=DECODE,
                    model_version=-1,
                    input_map={"VIDEO": "VIDEO"},
                    output_map={output_name: "CLIP", "REPORT": "REPORT"},
                ),
                pb.ModelEnsembling.Step(
                    model_name=spec.net_name,
                    model_version=-1,
                    input_map={"CLIP": "CLIP"},
                    output_map={answer.name: answer.name for answer in answers},
                ),
            ]
        ),
    )
    # For clients, which see no files of the server.
    config.parameters[PARAMETER].string_value = replace(contract or spec.contract, classes=classes).to_json()
    write_ensemble_options(config, spec, serving)
    return config


def read_contract(ensemble: pb.ModelConfig) -> ClipContract | None:
    """The contract in a public model's config; None if there is none that can be read."""
    try:
        return ClipContract.from_json(ensemble.parameters[PARAMETER].string_value)
    except (TypeError, ValueError):
        return None


def _answers(spec: ModelSpec, classes: int, *, label_filename: str = "") -> list[pb.ModelOutput]:
    scores = pb.ModelOutput(name="SCORES", data_type=pb.TYPE_FP32, dims=[classes], label_filename=label_filename)
    if spec.feature_size is None:
        return [scores]
    return [scores, pb.ModelOutput(name="FEATURES", data_type=pb.TYPE_FP32, dims=[spec.feature_size])]


def print_config(config: pb.ModelConfig) -> str:
    """The text of a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return NOTICE + text


def parse_config(text: str) -> pb.ModelConfig:
    """The message in a config.pbtxt. Raises text_format.ParseError."""
    return text_format.Parse(text, pb.ModelConfig())
