"""The network that all contestants run, in the forms that they take it in: same weights, same numbers."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipserve_export.network import ActionNetwork, served_network
from clipserve_export.specs import SPECS, ModelSpec

CACHE = Path(__file__).parents[2] / ".cache" / "side-by-side"


@dataclass(frozen=True)
class Ground:
    """What is the same for all.

    repository: clipserve's model repository. weights: the state dict, for torch. onnx: the same network with the input
    that people give it, for ONNX Runtime.
    """

    model: str
    repository: str
    weights: str
    onnx: str

    @property
    def spec(self) -> ModelSpec:
        """The facts about the model."""
        return SPECS[self.model]

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Ground:
        """From another process."""
        return cls(**json.loads(text))


class PlainNetwork(nn.Module):
    """float [N, 3, T, S, S], normalised -> SCORES float [N, K]: what is left of the served one without its pixels."""

    def __init__(self, network: ActionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.network.projection(self.network.embed(frames))
        return logits.softmax(-1).mean(1)


def prepare_ground(spec: ModelSpec) -> Ground:
    """Export the model for clipserve and write it for the others, where the same code has not done so before."""
    from benchmark_models import export_for_benchmark

    from clipserve_export.exporting import recipe
    from clipserve_export.weights import load_weights

    repository = export_for_benchmark(spec)
    code = hashlib.sha256(recipe().encode() + Path(__file__).read_bytes()).hexdigest()[:8]
    folder = CACHE / f"{spec.name}-{code}"
    ground = Ground(spec.name, str(repository), str(folder / "weights.pt"), str(folder / "model.onnx"))
    if not Path(ground.onnx).exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{spec.name}: writing it for the others", flush=True)
        weights = load_weights(spec, "pretrained" if spec.family == "motion" else "random")
        torch.save(dict(weights.state), ground.weights)
        write_plain_onnx(load_eager(ground), spec, Path(ground.onnx))
    return ground


def load_eager(ground: Ground) -> PlainNetwork:
    """The network for torch, in evaluation mode."""
    state = torch.load(ground.weights, map_location="cpu", weights_only=True)
    return PlainNetwork(served_network(ground.spec, state)).eval()


def load_session(ground: Ground, *, threads: int) -> Any:
    """The network for ONNX Runtime on the CPU, with its defaults but for the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(ground.onnx, options, providers=["CPUExecutionProvider"])


def write_plain_onnx(network: PlainNetwork, spec: ModelSpec, path: Path) -> None:
    """Write one ONNX file, CLIP -> SCORES, with a free batch."""
    import onnx

    side = spec.geometry.crop
    # Two, as with one the exporter takes the batch for fixed.
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
