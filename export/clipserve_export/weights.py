"""The weights of a network, from PyTorchVideo's checkpoints, a file, or a seed: read and checked."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.clips import random_clips
from clipserve_export.damaged_files import ZIP, describe_start, explain_start, holds_program, is_damaged, read_start
from clipserve_export.errors import WeightsError
from clipserve_export.families.adapter import adapter_of, build_model, projection_key
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import ModelSpec

RANDOM_SEED = 0
RANDOM_CLASSES = 400  # Kinetics-400, whose labels a random network gets
# Names under which training programs store the state dict: PyTorchVideo, Lightning, and many scripts.
WRAPPERS = ("model_state", "state_dict", "model")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (*FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

STARTS = (ZIP, b"\x80")  # of torch.save's files, today and before PyTorch 1.6: a zip archive, and a pickle


@dataclass(frozen=True)
class Weights:
    """A state dict with PyTorchVideo's parameter names, and where it came from.

    Attributes:
        state: the tensors by name.
        origin: as a record names it.
        sha256: of the checkpoint file, or of the values if there is no file.
        stripped: the prefix that was removed from every name: DataParallel adds "module.", compile "_orig_mod.".
    """

    state: Mapping[str, Tensor]
    origin: str
    sha256: str
    stripped: str = ""

    def classes(self, spec: ModelSpec) -> int:
        """K: the number of classes of the projection."""
        return int(self.state[projection_key(spec)].shape[0])


def load_weights(spec: ModelSpec, source: str) -> Weights:
    """Weights for `spec` from `pretrained`, `random` or a checkpoint file. Raises WeightsError."""
    path = find_checkpoint(spec, source)
    if path is None:
        return random_weights(spec)
    # Only the hub's own checkpoints are loaded with full trust, as the hub does.
    return read_checkpoint(spec, path, origin=origin_of(spec, source), trusted=source == "pretrained")


def contract_of(spec: ModelSpec, source: str, *, classes: int) -> ClipContract:
    """The contract of `spec` with these weights. What its authors publish is about the published ones alone."""
    if source == "pretrained":
        return replace(spec.contract, classes=classes)
    origin = origin_of(spec, source)
    return replace(spec.contract, classes=classes, accuracy="", weights_licence="", weights_source=origin)


def find_checkpoint(spec: ModelSpec, source: str) -> Path | None:
    """The file of `source`, downloaded if necessary; None for `random`. Raises WeightsError."""
    if source == "random":
        return None
    if source == "pretrained":
        path = pretrained_path(spec)
        if not path.exists():
            download(str(adapter_of(spec).published_weights(spec)), path)
        return path
    if not Path(source).is_file():
        raise WeightsError(
            f"--weights {source}: there is no such file; allowed are pretrained, random or the path of a checkpoint"
        )
    return Path(source)


def offline_weights(spec: ModelSpec) -> str:
    """`pretrained` where the checkpoint comes with this package, else `random`: what needs no download."""
    return "pretrained" if isinstance(adapter_of(spec).published_weights(spec), Path) else "random"


def origin_of(spec: ModelSpec, source: str) -> str:
    """The name of the weights of `source` in a record."""
    if source == "random":
        return f"random (seed {RANDOM_SEED})"
    if source == "pretrained":
        return f"pretrained ({pretrained_path(spec).name})"
    return f"file ({Path(source).name})"


def pretrained_path(spec: ModelSpec) -> Path:
    """The path of the published checkpoint: in torch.hub's cache, or in this package."""
    published = adapter_of(spec).published_weights(spec)
    if isinstance(published, Path):
        return published
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(published).name


def download(address: str, path: Path) -> None:
    """Download a checkpoint as torch.hub does, with its progress bar. Raises WeightsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path))
    except OSError as error:  # URLError and every socket error are one
        raise WeightsError(
            f"the pretrained weights could not be fetched from {address} ({error}). "
            f"Put that file at {path} by hand, or choose --weights random or --weights FILE"
        ) from error


def read_checkpoint(spec: ModelSpec, path: Path, *, origin: str, trusted: bool) -> Weights:
    """Read a state dict with the names of `spec`, which may have a common prefix. Raises WeightsError."""
    named = read_tensors(path, trusted=trusted)
    prefix = find_prefix(projection_key(spec), named, path)
    state = {name.removeprefix(prefix): value for name, value in named.items()}
    require_values(state, path)
    require_fit(spec, state, path)
    require_finite(state, path)
    return Weights(state, origin, file_hash(path), prefix)


def read_tensors(path: Path, *, trusted: bool = False) -> dict[str, Tensor]:
    """A state dict, bare or under one of WRAPPERS. Raises WeightsError."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the errors below say, too
            loaded: Any = torch.load(path, map_location="cpu", weights_only=not trusted)
    except Exception as error:  # torch.load fails in any way for bytes that are no checkpoint
        raise WeightsError(
            f"{path} cannot be read as a checkpoint of tensors: {describe_fault(path, error)}"
        ) from error
    found = next((loaded[name] for name in WRAPPERS if name in loaded), loaded) if _is_mapping(loaded) else loaded
    if not _is_mapping(found) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(
            f"{path} holds neither a state dict nor one under any of the names {', '.join(WRAPPERS)}"
            + (f" (its names are {', '.join(map(str, list(loaded)[:5]))})" if _is_mapping(loaded) else "")
        )
    return {str(name): value for name, value in found.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which holds nothing else. Raises WeightsError."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise WeightsError(f"{path} needs {error.name}: pip install 'clipserve[export,hf]'") from error
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = (explain_start(path) if path.is_file() else None) or str(error)
        raise WeightsError(f"{path} cannot be read as a safetensors file: {reason}") from error
    return tensors


def describe_fault(path: Path, error: Exception) -> str:
    """Why a file cannot be loaded as a checkpoint. torch.load's message often says to load it with full trust."""
    wanted = "; a file that torch.save wrote is wanted"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    head = read_start(path)
    if not head.startswith(STARTS):
        return describe_start(head) + wanted
    if head.startswith(ZIP):
        if is_damaged(path):
            return "it begins as torch.save writes a file, but is damaged or cut off; copy or download it again"
        if holds_program(path):
            return f"it is a TorchScript program{wanted}, with the state dict: torch.save(model.state_dict(), FILE)"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in names):
            return f"it is a zip archive of something else (of {', '.join(names[:3]) or 'nothing'}){wanted}"
    if isinstance(error, pickle.UnpicklingError) and (head.startswith(ZIP) or "Unsupported global" in str(error)):
        return (
            "it holds other objects, which are not loaded because they can run code. If you trust the file, save"
            " its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], OTHER)"
        )
    reason = str(error).partition("\n")[0]
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in reason:
        return f"it is damaged, or a pickle that torch.save did not write{wanted}"
    return reason or type(error).__name__


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def find_prefix(key: str, state: Mapping[str, Tensor], path: Path) -> str:
    """What comes ahead of the name `key`, such as `module.`. Raises WeightsError when only some names have it."""
    prefix = next((name.removesuffix(key) for name in state if name.endswith(f".{key}")), "")
    others = [name for name in state if not name.startswith(prefix)]
    if others:
        raise WeightsError(
            f"{path}: {len(state) - len(others)} of {len(state)} names begin with {prefix!r}, but {others[0]!r} does"
            " not; save the state dict of the network alone"
        )
    return prefix


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError when a tensor is not a plain array of values, which no network can load."""
    for name, value in state.items():
        if value.is_quantized:
            fault = f"is quantized ({value.dtype}): save the network as it was before quantization"
        elif value.is_meta:
            fault = "is on the meta device, where it has a shape and no values: load the network before saving it"
        elif value.layout != torch.strided or value.is_nested:
            fault = f"is not dense ({value.layout}): save it as an ordinary tensor (to_dense())"
        elif value.dtype not in DTYPES:
            fault = f"is {value.dtype}, and weights are {', '.join(map(str, FLOATS))}: save it as torch.float32"
        else:
            continue
        raise WeightsError(f"{path}: {name!r} {fault}")


def require_fit(spec: ModelSpec, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError unless every name and shape is the network's. The number of classes is free."""
    projection = state.get(projection_key(spec))
    if projection is None or projection.ndim != 2:
        raise WeightsError(
            f"{path} is no checkpoint of {spec.name}: it has no matrix {projection_key(spec)!r}"
            f" (its first names are {', '.join(list(state)[:3]) or 'none'})"
        )
    if not projection.shape[0]:
        raise WeightsError(f"{path}: {projection_key(spec)!r} has 0 rows, and each class needs one: there is no class")
    expected = adapter_of(spec).shapes(spec, classes=projection.shape[0])
    require_names(spec.name, expected, state, path)


def require_names(model: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError unless every name, shape and kind of number is the network's."""
    missing, unknown = sorted(expected.keys() - state), sorted(state.keys() - expected.keys())
    misshapen = sorted(n for n in expected.keys() & state if expected[n].shape != state[n].shape)
    # Where both lists are long, the names follow another scheme.
    hint = f" (among the file's own names: {', '.join(map(repr, unknown[:3]))})" if missing and unknown else ""
    if misshapen and not (missing or unknown):
        there, wanted = (list(tensors[misshapen[0]].shape) for tensors in (state, expected))
        hint = f" ({there}, and the network's is {wanted})"
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("misshapes", misshapen)):
        if names:
            raise WeightsError(
                f"{path} is no checkpoint of {model}: it {problem} {len(names)} of {len(expected)} tensors,"
                f" {names[0]!r} first{hint}"
            )
    for name, value in state.items():
        if expected[name].is_floating_point() and value.dtype not in FLOATS:
            raise WeightsError(
                f"{path}: {name!r} is {value.dtype}, and the network's is one of {', '.join(map(str, FLOATS))}: save it"
                " as torch.float32"
            )


def require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError when a value is NaN or infinite."""
    # In the network's float32, where a large float64 is infinite.
    finite = {name: value.float().isfinite() for name, value in state.items()}
    broken = {name: int((~values).sum()) for name, values in finite.items() if not bool(values.all())}
    if broken:
        name, count = next(iter(broken.items()))
        raise WeightsError(
            f"{path} has NaN or infinite values in {len(broken)} of {len(state)} tensors, {name!r} first ({count} of"
            f" {state[name].numel()} values): the training diverged, or the file is damaged"
        )


def random_weights(spec: ModelSpec) -> Weights:
    """Seeded weights with settled batch norms. They recognise nothing, and serve to test the service."""
    torch.manual_seed(RANDOM_SEED)
    model = build_model(spec, classes=RANDOM_CLASSES)
    settle_batch_norms(model, spec)
    state = model.state_dict()
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return Weights(state, origin_of(spec, "random"), digest.hexdigest())


def settle_batch_norms(model: nn.Module, spec: ModelSpec) -> None:
    """Set the batch norms' statistics from activations.

    With the initial statistics an untrained X3D answers the same for every clip to four digits, so a check of its
    export would find no error.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a plain average, not a moving one
    clips = random_clips(spec.geometry, batch=4, views=1, seed=RANDOM_SEED)
    frames = ActionNetwork(spec.contract).normalise(clips[:, 0])
    with torch.no_grad():
        model.train()(adapter_of(spec).model_input(frames))
    model.eval()
