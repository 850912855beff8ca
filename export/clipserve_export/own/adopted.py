"""Ready files: an ONNX or a TorchScript file becomes a model of the repository, with its clip contract.

The arithmetic around the network (normalise, softmax, means) becomes part of the file, as in every other export. Nodes
are added to an ONNX graph, and its own stay as they are; a TorchScript module is traced inside a served network.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from clipserve_export.damaged_files import ZIP, describe_start, holds_program, is_damaged, read_start
from clipserve_export.errors import WeightsError
from clipserve_export.formats import FormatName
from clipserve_export.network import ActionNetwork
from clipserve_export.own.interface import Interface
from clipserve_export.own.network import adapt_module
from clipserve_export.own.onnx_file import OnnxNetwork, files_beside, read_onnx
from clipserve_export.sources import LoadedNetwork
from clipserve_export.specs import ModelSpec
from clipserve_export.weights import file_hash

PACKAGE = Path(__file__).parent
FORMATS_BY_SUFFIX: dict[str, FormatName] = {".onnx": "onnx", ".pt": "torchscript", ".pts": "torchscript"}
WANTED_TORCHSCRIPT = (
    "a file that torch.jit.save wrote is wanted. A file of weights alone has no network: clipserve export"
    " FILE.py:FUNCTION --weights CHECKPOINT"
)


def format_of(path: Path) -> FormatName:
    """By the file's suffix. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    if path.suffix.lower() not in FORMATS_BY_SUFFIX:
        raise WeightsError(
            f"{path}: the name must end in {', '.join(FORMATS_BY_SUFFIX)} (ONNX or TorchScript). For a checkpoint of"
            " weights: clipserve export FILE.py:FUNCTION --weights CHECKPOINT"
        )
    return FORMATS_BY_SUFFIX[path.suffix.lower()]


@dataclass(frozen=True)
class AdoptedSource:
    """A ready file."""

    spec: ModelSpec
    interface: Interface
    path: Path
    measures_clip: bool = field(default=True, init=False)

    def load(self) -> LoadedNetwork:
        """Read the file and compare it with its contract. Raises ContractError or WeightsError."""
        origin = f"file ({self.path.name})"
        contract = replace(self.spec.contract, weights_source=self.spec.contract.weights_source or origin)
        spec = replace(self.spec, contract=contract)
        reader = read_onnx if format_of(self.path) == "onnx" else read_torchscript
        try:
            network, sha256 = reader(self.path, spec, self.interface), hash_file(self.path)
        except OSError as error:
            raise WeightsError(f"{error.filename or self.path} cannot be read: {error.strerror or error}") from error
        return LoadedNetwork(
            network=network,
            contract=network.contract,
            labels=None,
            weights=origin,
            weights_sha256=sha256,
            write=network.write if isinstance(network, OnnxNetwork) else None,
            remedy="look at the file that was given",
        )

    def recipe_files(self) -> Sequence[Path]:
        """This package's code."""
        return [PACKAGE / name for name in ("adopted.py", "onnx_file.py", "network.py", "interface.py")]

    def describes(self, record: Mapping[str, Any]) -> bool:
        """Compared by the file."""
        return record.get("weights_sha256") == hash_file(self.path)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, and of the files beside it that hold the weights of an ONNX graph."""
    beside = files_beside(onnx.load(path, load_external_data=False), path) if format_of(path) == "onnx" else []
    return " ".join(map(file_hash, [path, *beside]))


def read_torchscript(path: Path, spec: ModelSpec, interface: Interface) -> ActionNetwork:
    """The module of a TorchScript file, as a served network. Raises ContractError or WeightsError."""
    interface.refuse(
        "input", "scores", "features", "head",
        reason="a TorchScript file has no names: its input is the first argument, its logits are the first answer, and"
        " it has no embedding",
    )  # fmt: skip
    start = read_start(path)
    if not start.startswith(ZIP):
        raise WeightsError(f"{path} cannot be read as TorchScript: {describe_start(start)}; {WANTED_TORCHSCRIPT}")
    if is_damaged(path):  # torch reads over many of the damages
        raise WeightsError(f"{path} is damaged or cut off: copy or download it again")
    if not holds_program(path):
        raise WeightsError(f"{path} is a zip archive without a TorchScript program; {WANTED_TORCHSCRIPT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location="cpu")
    except Exception as error:  # torch raises many kinds for an archive of something else
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as TorchScript: {reason}; {WANTED_TORCHSCRIPT}") from error
    return adapt_module(module.eval(), spec, interface)
