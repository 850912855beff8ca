"""A Triton ensemble as it is usually written: a Python model decodes to float32 clips, ONNX Runtime takes them.

Served by the same tritonserver as clipserve; the ONNX Runtime backend is the same stand-in, too.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tritonclient import grpc as triton_grpc

from clipserve_server.triton import Triton
from rivals.lineup import Classify, Scores, Setting
from rivals.networks import Ground

NAME = "plain"
CALL_SECONDS = 300.0


@contextmanager
def open_ensemble(ground: Ground, setting: Setting) -> Iterator[Classify]:
    """decoders, networks: instances of each step. threads: of one run of the network."""
    with tempfile.TemporaryDirectory(prefix="clipserve-plain-") as folder:
        repository = Path(folder)
        write_repository(repository, ground, setting)
        with (
            Triton(repository, models=[NAME], http_port=0, grpc_port=0, metrics_port=0) as triton,
            triton_grpc.InferenceServerClient(triton.grpc_url) as client,
        ):

            def classify(path: str) -> Scores:
                video = triton_grpc.InferInput("VIDEO", [1, 1], "BYTES")
                video.set_data_from_numpy(np.array([[Path(path).read_bytes()]], dtype=np.object_))
                scores = client.infer(NAME, [video], client_timeout=CALL_SECONDS).as_numpy("SCORES")
                return dict(enumerate(scores[0].tolist()))

            yield classify


def write_repository(repository: Path, ground: Ground, setting: Setting) -> None:
    """The ensemble and its two steps."""
    geometry = ground.spec.geometry
    clip = f"[3, {geometry.frames}, {geometry.crop}, {geometry.crop}]"
    classes = count_classes(ground)
    for model in (NAME, "preprocess", "network"):
        (repository / model / "1").mkdir(parents=True)
    preprocess, here = repository / "preprocess" / "1", Path(__file__).parent
    shutil.copy2(here / "plain_preprocessing.py", preprocess / "model.py")
    shutil.copy2(here / "pixels.py", preprocess)
    shutil.copy2(ground.onnx, repository / "network" / "1" / "model.onnx")
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


def count_classes(ground: Ground) -> int:
    """K, from the weights."""
    import torch

    from clipserve_export.network import projection_key

    state = torch.load(ground.weights, map_location="cpu", weights_only=True)
    return int(state[projection_key(ground.spec)].shape[0])
