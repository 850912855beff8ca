"""A module of a user, or of Hugging Face, as the source of an export."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.errors import ContractError
from clipserve_export.own.builder import build_network, builder_file
from clipserve_export.own.interface import Interface
from clipserve_export.own.network import adapt_module
from clipserve_export.sources import LoadedNetwork
from clipserve_export.specs import OWN, SPECS, ModelSpec
from clipserve_export.weights import file_hash, find_prefix, read_tensors, require_finite, require_names, require_values

PACKAGE = Path(__file__).parent
RESERVED = ("decode", "timeline")
AS_BUILT = "pretrained"  # what --weights says by default: those that the builder has given it


def own_spec(name: str, contract: ClipContract) -> ModelSpec:
    """A model that is not in SPECS. What its clips take is measured later. Raises ContractError for its name."""
    simple = name.isascii() and name.replace("_", "").replace("-", "").isalnum() and name[0].isalnum()
    if not simple or len(name) > 60 or name.endswith("_net") or name in RESERVED:
        raise ContractError(
            f"--name {name!r}: a model's name has letters, digits, _ and -, begins with a letter or a digit, has at"
            f" most 60 characters, does not end in _net, and is not {' or '.join(RESERVED)}"
        )
    if name in SPECS:
        raise ContractError(f"--name {name!r} is the name of a published model; choose another")
    return ModelSpec(name=name, family=OWN, contract=contract, labels="", clip_megabytes=1)


@dataclass(frozen=True)
class OwnSource:
    """A network that `FILE.py:NAME` or `MODULE:NAME` builds."""

    spec: ModelSpec
    interface: Interface
    builder: str
    weights: str = AS_BUILT
    labels: int | None = None  # how many, for a function that takes `classes`
    measures_clip: bool = field(default=True, init=False)

    def load(self) -> LoadedNetwork:
        """Build the network and read its weights. Raises ContractError or WeightsError."""
        self.interface.refuse(
            "input", "scores", "features",
            reason="only the tensors of a ready ONNX file have names: a module's input is its first argument, its"
            " logits are its first answer, and the embedding is what its head is given",
        )  # fmt: skip
        module = build_network(self.builder, classes=self.labels or self.spec.contract.classes)
        if self.weights == AS_BUILT:
            origin, sha256, prefix = f"as {self.builder} builds it", hash_values(module), ""
        else:
            path = Path(self.weights)
            prefix = load_checkpoint(module, self.spec.name, path)
            origin, sha256 = f"file ({path.name})", file_hash(path)
        network = adapt_module(module, self.spec, self.interface)
        contract = network.contract
        if not contract.weights_source:
            contract = replace(contract, weights_source=origin)
        return LoadedNetwork(
            network=network,
            contract=contract,
            labels=None,
            weights=origin,
            weights_sha256=sha256,
            weights_prefix=prefix,
        )

    def recipe_files(self) -> Sequence[Path]:
        """This package's code, and the user's file."""
        own = builder_file(self.builder)
        return [PACKAGE / "network.py", PACKAGE / "interface.py", *([own] if own and own.is_file() else [])]

    def describes(self, record: Mapping[str, Any]) -> bool:
        """Unknown before the user's code has run."""
        return False


def load_checkpoint(module: nn.Module, name: str, path: Path) -> str:
    """Load a state dict of exactly this module's names. Returns the prefix that was removed. Raises WeightsError."""
    if not path.is_file():
        raise ContractError(
            f"--weights {path}: there is no such file; without --weights the network keeps those that its function sets"
        )
    expected, named = module.state_dict(), read_tensors(path)
    # No other name of the network ends with its longest one, as layer1.0.conv1.weight does with conv1.weight.
    prefix = find_prefix(max(expected, key=len, default=""), named, path)
    state = {key.removeprefix(prefix): value for key, value in named.items()}
    require_values(state, path)
    require_names(name, expected, state, path)
    require_finite(state, path)
    module.load_state_dict(state)
    return prefix


def hash_values(module: nn.Module) -> str:
    """SHA-256 of a module's names and values."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode() + _bytes_of(value))
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):  # its frozen and its packed weights are in no state dict
            digest.update(part.save_to_buffer())
    return digest.hexdigest()


def _bytes_of(value: Any) -> bytes:
    """The values in an entry of a state dict, which may be another thing than a tensor. Layers that are quantized pack
    several tensors.
    """
    if isinstance(value, torch.ScriptObject):
        value = value.__getstate__()
    if isinstance(value, tuple | list):
        return b"".join(map(_bytes_of, value))
    if isinstance(value, Tensor):
        plain = value.dequantize() if value.is_quantized else value
        return plain.detach().cpu().double().numpy().tobytes()
    return repr(value).encode()
