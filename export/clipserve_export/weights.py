"""Where a network's weights come from: PyTorchVideo's checkpoints, a file, or a seed."""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipserve_export.clips import random_clips
from clipserve_export.errors import WeightsError
from clipserve_export.network import build_hub_model, normalise, projection_key
from clipserve_export.specs import ModelSpec
from clipserve_export.zoo import pytorchvideo

PACKAGE = Path(__file__).parent
RANDOM_SEED = 0
RANDOM_CLASSES = 400  # of Kinetics, whose labels a random network is served with
# Where training programs put the state dict in their files: PyTorchVideo, Lightning, and many scripts.
WRAPPERS = ("model_state", "state_dict", "model")


@dataclass(frozen=True)
class Weights:
    """A state dict with PyTorchVideo's parameter names, and where it came from."""

    state: Mapping[str, Tensor]
    origin: str
    sha256: str  # of the checkpoint file; of the values, where there is no file
    stripped: str = ""  # what every name in the file began with: "module." of DataParallel, "_orig_mod." of compile

    def classes(self, spec: ModelSpec) -> int:
        """K: how many classes the projection has."""
        return int(self.state[projection_key(spec)].shape[0])


def load_weights(spec: ModelSpec, source: str) -> Weights:
    """Weights for `spec` from `pretrained`, `random` or a checkpoint file. Raises WeightsError."""
    path = find_checkpoint(spec, source)
    if path is None:
        return random_weights(spec)
    # The hub loads its own checkpoints with full trust; so do we, and only those.
    return read_checkpoint(spec, path, origin=origin_of(spec, source), trusted=source == "pretrained")


def find_checkpoint(spec: ModelSpec, source: str) -> Path | None:
    """The file behind `source`, fetched if need be; None for `random`. Raises WeightsError."""
    if source == "random":
        return None
    if source == "pretrained":
        path = pretrained_path(spec)
        if not path.exists():
            download(checkpoint_address(spec), path)
        return path
    if not Path(source).is_file():
        raise WeightsError(
            f"--weights {source}: there is no such file; allowed are pretrained, random or the path of a checkpoint"
        )
    return Path(source)


def origin_of(spec: ModelSpec, source: str) -> str:
    """What a record calls the weights of `source`."""
    if source == "random":
        return f"random (seed {RANDOM_SEED})"
    if source == "pretrained":
        return f"pretrained ({pretrained_path(spec).name})"
    return f"file ({Path(source).name})"


def checkpoint_address(spec: ModelSpec) -> str:
    """The hub's own address of the published checkpoint."""
    hub = "models.hub.x3d" if spec.family == "x3d" else "models.hub.vision_transformers"
    return str(pytorchvideo(hub).checkpoint_paths[spec.name])


def pretrained_path(spec: ModelSpec) -> Path:
    """Where the published checkpoint lies on this machine: torch.hub's cache, or this package for `motion`."""
    if spec.family == "motion":
        return PACKAGE / "motion" / "motion.pt"
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(checkpoint_address(spec)).name


def download(address: str, path: Path) -> None:
    """Fetch a checkpoint as torch.hub does, with its progress bar. Raises WeightsError naming both ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path))
    except OSError as error:  # URLError and every socket error are one
        raise WeightsError(
            f"the pretrained weights could not be fetched from {address} ({error}). "
            f"Put that file at {path} by hand, or choose --weights random or --weights FILE"
        ) from error


def read_checkpoint(spec: ModelSpec, path: Path, *, origin: str, trusted: bool) -> Weights:
    """A state dict, bare or in one of WRAPPERS, with PyTorchVideo's names behind a common prefix or none.

    Raises WeightsError.
    """
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=not trusted)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            reason = (
                "it holds other objects, which are not loaded because they can run code. If you trust the file, save"
                " its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], OTHER)"
            )
        raise WeightsError(f"{path} cannot be read as a checkpoint of tensors: {reason}") from error
    found = next((loaded[name] for name in WRAPPERS if name in loaded), loaded) if _is_mapping(loaded) else loaded
    if not _is_mapping(found) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(
            f"{path} holds neither a state dict nor one under any of the names {', '.join(WRAPPERS)}"
            + (f" (its names are {', '.join(map(str, list(loaded)[:5]))})" if _is_mapping(loaded) else "")
        )
    named = {str(name): value for name, value in found.items()}
    prefix = find_prefix(spec, named, path)
    state = {name.removeprefix(prefix): value for name, value in named.items()}
    require_fit(spec, state, path)
    require_finite(state, path)
    return Weights(state, origin, file_hash(path), prefix)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def find_prefix(spec: ModelSpec, state: Mapping[str, Tensor], path: Path) -> str:
    """What stands before PyTorchVideo's names, such as `module.`. Raises WeightsError where only some names have it."""
    key = projection_key(spec)
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


def require_fit(spec: ModelSpec, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError unless every name and shape is the network's; the class count is free."""
    projection = state.get(projection_key(spec))
    if projection is None or projection.ndim != 2:
        raise WeightsError(
            f"{path} is no checkpoint of {spec.name}: it has no matrix {projection_key(spec)!r}"
            f" (its first names are {', '.join(list(state)[:3]) or 'none'})"
        )
    with torch.device("meta"):
        expected = build_hub_model(spec, classes=projection.shape[0]).state_dict()
    missing, unknown = sorted(expected.keys() - state), sorted(state.keys() - expected.keys())
    misshapen = sorted(n for n in expected.keys() & state if expected[n].shape != state[n].shape)
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("misshapes", misshapen)):
        if names:
            raise WeightsError(
                f"{path} is no checkpoint of {spec.name}: it {problem} {len(names)} of {len(expected)} tensors,"
                f" {names[0]!r} first"
            )


def require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError where a value is no number, which no export could mend."""
    broken = {name: int((~value.isfinite()).sum()) for name, value in state.items() if not bool(value.isfinite().all())}
    if broken:
        name, count = next(iter(broken.items()))
        raise WeightsError(
            f"{path} has NaN or infinite values in {len(broken)} of {len(state)} tensors, {name!r} first ({count} of"
            f" {state[name].numel()} values): the training diverged, or the file is damaged"
        )


def random_weights(spec: ModelSpec) -> Weights:
    """Seeded weights with settled batch norms. They know nothing; they show that the pipes hold."""
    torch.manual_seed(RANDOM_SEED)
    model = build_hub_model(spec, classes=RANDOM_CLASSES)
    settle_batch_norms(model, spec)
    state = model.state_dict()
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return Weights(state, origin_of(spec, "random"), digest.hexdigest())


def settle_batch_norms(model: nn.Module, spec: ModelSpec) -> None:
    """Give batch norms the statistics of real activations.

    With the initial ones an untrained X3D answers every clip alike to four digits, and a check of its export would
    check nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # a plain average instead of a moving one
    clips = random_clips(spec.geometry, batch=4, views=1, seed=RANDOM_SEED)
    with torch.no_grad():
        model.train()(normalise(clips[:, 0]))
    model.eval()
