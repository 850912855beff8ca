"""The network that all contestants run, in the form that each takes: the same weights, the same numbers."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.models import export_for_benchmark
from benchmarks.harness.results import CACHE
from clipserve_export.families.adapter import served_network
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS, ModelSpec


@dataclass(frozen=True)
class SharedModel:
    """The paths of its files.

    repository: clipserve's model repository. weights: the state dict, for torch. onnx: for ONNX Runtime, with the usual
    input (float, normalised).
    """

    name: str
    repository: str
    weights: str
    onnx: str

    @property
    def spec(self) -> ModelSpec:
        """The facts about the model."""
        return SPECS[self.name]

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SharedModel:
        """From another process."""
        return cls(**json.loads(text))


class PlainNetwork(nn.Module):
    """The served network without its normalisation: float [N, 3, T, S, S] -> SCORES float [N, K]."""

    def __init__(self, network: ActionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.network.projection(self.network.embed(frames))
        return logits.softmax(-1).mean(1)


def prepare_model(spec: ModelSpec, *, with_onnx: bool) -> SharedModel:
    """Export the model for clipserve and write it for the others, unless the same code did so before.

    with_onnx: whether a contestant needs the ONNX file, which takes the longest.
    """
    from clipserve_export.exporting import recipe
    from clipserve_export.sources import PublishedSource
    from clipserve_export.weights import load_weights, offline_weights

    repository = export_for_benchmark(spec)
    source = PublishedSource(spec, offline_weights(spec))
    code = hashlib.sha256(recipe(source).encode() + Path(__file__).read_bytes()).hexdigest()[:8]
    folder = CACHE / "side-by-side" / f"{spec.name}-{code}"
    model = SharedModel(spec.name, str(repository), str(folder / "weights.pt"), str(folder / "model.onnx"))
    folder.mkdir(parents=True, exist_ok=True)
    if not Path(model.weights).exists():
        torch.save(dict(load_weights(spec, source.weights).state), model.weights)
    if with_onnx and not Path(model.onnx).exists():
        print(f"{spec.name}: writing the ONNX file of the other contestants", flush=True)
        write_plain_onnx(load_eager(model), spec, Path(model.onnx))
    return model


def load_eager(model: SharedModel) -> PlainNetwork:
    """The network for torch, in evaluation mode."""
    state = torch.load(model.weights, map_location="cpu", weights_only=True)
    return PlainNetwork(served_network(model.spec, state)).eval()


def load_session(model: SharedModel, *, threads: int) -> Any:
    """The network for ONNX Runtime on the CPU, with its defaults but for the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])


def write_plain_onnx(network: PlainNetwork, spec: ModelSpec, path: Path) -> None:
    """Write one ONNX file, CLIP -> SCORES, with a free batch."""
    import onnx

    side = spec.geometry.crop
    # Two clips: with one, the exporter makes the batch constant.
    example = torch.zeros(2, 3, spec.geometry.frames, side, side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["CLIP"],
            output_names=["SCORES"],
            dynamic_shapes={"frames": {0: "N"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    partial = path.with_suffix(".partial")
    onnx.save(program.model_proto, partial)
    partial.rename(path)
