"""The config.pbtxt of every model in the repository, as typed messages.

Triton runs with --disable-auto-complete-config, so these files are the whole truth about the service. They name no
machine: where `kind` is left to Triton it takes every GPU there is, and the CPU where there is none.
"""

import json
from collections.abc import Iterable, Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.capacity import CLIP_MEGABYTES, MOST_VIDEOS, part_clips
from clipserve_export.formats import Format
from clipserve_export.serving import Serving
from clipserve_export.serving_config import (
    write_clips,
    write_ensemble_choices,
    write_net_choices,
    write_queues,
)
from clipserve_export.specs import Geometry, ModelSpec

DECODE = "decode"
DEFAULTS = Serving()
NOTICE = "# Made by `clipserve export`; `clipserve export --check` compares it with the specs.\n"


def decode_config(specs: Iterable[ModelSpec], servings: Mapping[str, Serving] | None = None) -> pb.ModelConfig:
    """One decode step for every network: an output for each clip geometry, described by a parameter of its name.

    servings: how models are served, by their names; one that is not named is served as by default.
    """
    specs = list(specs)
    geometries = {spec.geometry.output_name: spec.geometry for spec in specs}
    config = pb.ModelConfig(
        name=DECODE,
        backend="python",
        max_batch_size=MOST_VIDEOS,
        input=[pb.ModelInput(name="VIDEO", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            *(pb.ModelOutput(name=n, data_type=pb.TYPE_UINT8, dims=clip_dims(g)) for n, g in geometries.items()),
            pb.ModelOutput(name="REPORT", data_type=pb.TYPE_STRING, dims=[1]),
        ],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
    )
    for name, geometry in geometries.items():
        config.parameters[name].string_value = json.dumps(vars(geometry))
    write_clips(config, specs, servings or {})
    write_queues(config, specs, servings or {})
    return config


def clip_dims(geometry: Geometry) -> list[int]:
    """[V, T, S, S, 3] with V free: views differ from request to request."""
    return [-1, geometry.frames, geometry.crop, geometry.crop, 3]


def net_config(spec: ModelSpec, form: Format, *, classes: int, serving: Serving = DEFAULTS) -> pb.ModelConfig:
    """The network: clips in, scores and features out."""
    config = pb.ModelConfig(
        name=spec.net_name,
        backend=form.backend,
        default_model_filename=form.filename,
        input=[pb.ModelInput(name="CLIP", data_type=pb.TYPE_UINT8, dims=clip_dims(spec.geometry))],
        # The order is the order of the network's outputs: LibTorch goes by it.
        output=_answers(spec, classes, label_filename="labels.txt"),
        # Requests that wait while the network is busy run together; nobody waits for company unless it was chosen. No
        # default_queue_policy: with any field of it requests wait for Triton's scheduler (benchmarks/stalls.py). The
        # decode step keeps the queue short instead.
        dynamic_batching=pb.ModelDynamicBatching(),
    )
    # What the container's start counts against its memory.
    config.parameters["clip_megabytes"].string_value = str(CLIP_MEGABYTES[spec.name])
    # The stand-ins' alone: the C++ backends take a run whole, and ignore it.
    config.parameters["max_clips_at_once"].string_value = str(part_clips(spec))
    if form.backend == "onnxruntime":
        # A pattern keeps a second copy of what a run needs for every shape there was, and views make many; the arena
        # gives nothing back. Without them x3d_s takes half the memory in the same time.
        config.parameters["enable_mem_pattern"].string_value = "0"
        config.parameters["enable_mem_arena"].string_value = "0"
    if form.backend == "pytorch":
        # Left on, the executor watches the first call of a shape, compiles in the second, and does so again for others.
        config.parameters["ENABLE_JIT_PROFILING"].string_value = "false"
    write_net_choices(config, spec, serving)
    return config


def ensemble_config(spec: ModelSpec, *, classes: int, serving: Serving = DEFAULTS) -> pb.ModelConfig:
    """The public model: decode, then the newest version of the network that is loaded."""
    output_name = spec.geometry.output_name
    config = pb.ModelConfig(
        name=spec.name,
        platform="ensemble",
        input=[pb.ModelInput(name="VIDEO", data_type=pb.TYPE_STRING, dims=[1])],
        output=[
            *_answers(spec, classes),
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
                    output_map={"SCORES": "SCORES", "FEATURES": "FEATURES"},
                ),
            ]
        ),
    )
    write_ensemble_choices(config, spec, serving)
    return config


def _answers(spec: ModelSpec, classes: int, *, label_filename: str = "") -> list[pb.ModelOutput]:
    return [
        pb.ModelOutput(name="SCORES", data_type=pb.TYPE_FP32, dims=[classes], label_filename=label_filename),
        pb.ModelOutput(name="FEATURES", data_type=pb.TYPE_FP32, dims=[spec.feature_size]),
    ]


def print_config(config: pb.ModelConfig) -> str:
    """The text of a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return NOTICE + text


def parse_config(text: str) -> pb.ModelConfig:
    """The message in a config.pbtxt; raises text_format.ParseError."""
    return text_format.Parse(text, pb.ModelConfig())
