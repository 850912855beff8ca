"""On Triton: clipserve, and an ensemble as it is usually written, on the same embedded tritonserver and backends."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tritonclient import grpc as triton_grpc

from benchmarks.alternatives.contestants import Classify, Scores, Setting
from benchmarks.alternatives.shared_model import SharedModel
from benchmarks.harness.models import serve
from clipserve import VideoClassifier

NAME = "plain"
CALL_SECONDS = 300.0


@contextmanager
def open_clipserve(model: SharedModel, setting: Setting) -> Iterator[Classify]:
    """The embedded server of clipserve and its client. Setting: precision: as `clipserve serve --cpu-precision`."""
    with (
        serve(Path(model.repository), model.name, cpu_precision=setting["precision"]) as triton,
        VideoClassifier(model.name, triton.grpc_url, timeout_seconds=CALL_SECONDS) as classifier,
    ):
        yield lambda path: {label.index: label.score for label in classifier.classify(path)}


@contextmanager
def open_ensemble(model: SharedModel, setting: Setting) -> Iterator[Classify]:
    """A Python model decodes to float32 clips; ONNX Runtime runs the network.

    Setting: decoders, networks: instances of each step; threads: of one run of the network.
    """
    with tempfile.TemporaryDirectory(prefix="clipserve-plain-") as folder:
        repository = Path(folder)
        write_repository(repository, model, setting)
        with (
            serve(repository, NAME) as triton,
            triton_grpc.InferenceServerClient(triton.grpc_url) as client,
        ):

            def classify(path: str) -> Scores:
                video = triton_grpc.InferInput("VIDEO", [1, 1], "BYTES")
                video.set_data_from_numpy(np.array([[Path(path).read_bytes()]], dtype=np.object_))
                scores = client.infer(NAME, [video], client_timeout=CALL_SECONDS).as_numpy("SCORES")
                return dict(enumerate(scores[0].tolist()))

            yield classify


def write_repository(repository: Path, model: SharedModel, setting: Setting) -> None:
    """Write the ensemble and its two steps."""
    geometry = model.spec.geometry
    clip = f"[3, {geometry.frames}, {geometry.crop}, {geometry.crop}]"
    classes = count_classes(model)
    for name in (NAME, "preprocess", "network"):
        (repository / name / "1").mkdir(parents=True)
    preprocess, here = repository / "preprocess" / "1", Path(__file__).parent
    shutil.copy2(here / "triton_preprocessing.py", preprocess / "model.py")
    shutil.copy2(here / "preprocessing.py", preprocess)
    shutil.copy2(model.onnx, repository / "network" / "1" / "model.onnx")
    (repository / "preprocess" / "config.pbtxt").write_text(
        f"""
        name: "preprocess" backend: "python" max_batch_size: 1
        input {{ name: "VIDEO" data_type: TYPE_STRING dims: [1] }}
        output {{ name: "CLIP" data_type: TYPE_FP32 dims: {clip} }}
        instance_group {{ count: {setting["decoders"]} kind: KIND_CPU }}
        parameters {{ key: "geometry" value {{ string_value: {json.dumps(json.dumps(vars(geometry)))} }} }}
        """
    )
    (repository / "network" / "config.pbtxt").write_text(
        f"""
        name: "network" backend: "onnxruntime" max_batch_size: 4 default_model_filename: "model.onnx"
        input {{ name: "CLIP" data_type: TYPE_FP32 dims: {clip} }}
        output {{ name: "SCORES" data_type: TYPE_FP32 dims: [{classes}] }}
        instance_group {{ count: {setting["networks"]} kind: KIND_CPU }}
        dynamic_batching {{ }}
        parameters {{ key: "intra_op_thread_count" value {{ string_value: "{setting["threads"]}" }} }}
        """
    )
    (repository / NAME / "config.pbtxt").write_text(
        f"""
        name: "{NAME}" platform: "ensemble" max_batch_size: 1
        input {{ name: "VIDEO" data_type: TYPE_STRING dims: [1] }}
        output {{ name: "SCORES" data_type: TYPE_FP32 dims: [{classes}] }}
        ensemble_scheduling {{
          step {{ model_name: "preprocess" model_version: -1
            input_map {{ key: "VIDEO" value: "VIDEO" }} output_map {{ key: "CLIP" value: "CLIP" }} }}
          step {{ model_name: "network" model_version: -1
            input_map {{ key: "CLIP" value: "CLIP" }} output_map {{ key: "SCORES" value: "SCORES" }} }}
        }}
        """
    )
    (repository / NAME / "1" / ".gitkeep").touch()


def count_classes(model: SharedModel) -> int:
    """Read K from the weights."""
    import torch

    from clipserve_export.families.adapter import projection_key

    state = torch.load(model.weights, map_location="cpu", weights_only=True)
    return int(state[projection_key(model.spec)].shape[0])
