"""Checkpoints of Hugging Face's transformers for video classification: VideoMAE, TimeSformer, ViViT and V-JEPA 2.

The contract comes from the checkpoint's own files: config.json has the frames and the labels, the preprocessor's file
the resize, the crop, mean and deviation. Weights are read as safetensors alone, which hold no code, and code of a
checkpoint is never run.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from torch import nn

from clipserve.contract import ClipContract
from clipserve_export.damaged_files import describe_start, read_start, recognise
from clipserve_export.errors import ContractError, WeightsError
from clipserve_export.own.builder import describe_exception
from clipserve_export.own.contract_file import read_values
from clipserve_export.own.interface import Interface
from clipserve_export.own.network import adapt_module
from clipserve_export.own.source import own_spec
from clipserve_export.sources import LoadedNetwork
from clipserve_export.specs import ModelSpec
from clipserve_export.weights import file_hash

PREFIX = "hf:"
PACKAGE = Path(__file__).parent
CONFIG, CARD = "config.json", "README.md"
PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
NEEDED_FILES = ("*.json", "*.safetensors", CARD)
# Of V-JEPA 2: takes no part in a classification, and a checkpoint may leave it out.
UNUSED = "predictor."


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint's files do not say about its kind.

    Attributes:
        frames: the name of the number of frames in config.json.
        stride: between frames, in frames at 30 a second, of the protocol of the papers.
        known_licence: of the checkpoints that its authors have published, as their model cards say.
    """

    frames: str
    stride: int
    known_licence: str


# By `model_type`. Strides: VideoMAE 16 x 4 (arXiv 2203.12602), TimeSformer 8 x 32 (arXiv 2102.05095), ViViT 32 x 2
# (arXiv 2103.15691), V-JEPA 2 16 x 4 (arXiv 2506.09985).
ARCHITECTURES = {
    "videomae": Architecture("num_frames", 4, "CC-BY-NC-4.0, which forbids commercial use"),
    "timesformer": Architecture("num_frames", 32, "CC-BY-NC-4.0, which forbids commercial use"),
    "vivit": Architecture("num_frames", 2, "MIT"),
    "vjepa2": Architecture("frames_per_clip", 4, "MIT or Apache-2.0"),
}


@dataclass(frozen=True)
class HuggingFaceSource:
    """A folder that `save_pretrained` wrote, or a snapshot of a repository of Hugging Face's hub."""

    spec: ModelSpec
    folder: Path
    origin: str
    measures_clip: bool = field(default=True, init=False)

    @classmethod
    def named(cls, argument: str, *, name: str | None, contract_file: Path | None) -> Self:
        """The checkpoint of `hf:FOLDER` or `hf:OWNER/NAME`.

        contract_file: values that are to replace those of the checkpoint's files; None replaces nothing.

        Raises:
            ContractError: its files do not say what clips the network takes, or say what decoding cannot do.
            WeightsError: the checkpoint cannot be found or fetched, or has no safetensors.
        """
        folder = find_folder(argument)
        changes = read_values(contract_file) if contract_file else {}
        contract = read_contract(folder, changes)
        fallback = re.sub(r"[^A-Za-z0-9_-]+", "_", argument.rstrip("/").rpartition("/")[2])
        return cls(own_spec(name or fallback, contract), folder, f"Hugging Face ({argument})")

    def load(self) -> LoadedNetwork:
        """Build the network with its weights. Raises ContractError or WeightsError."""
        labels = read_labels(self.folder)
        network = adapt_module(load_module(self.folder), self.spec, Interface(layout="BTCHW"))
        return LoadedNetwork(
            network=network,
            contract=network.contract,
            labels=labels,
            weights=self.origin,
            weights_sha256=hash_weights(self.folder),
        )

    def recipe_files(self) -> Sequence[Path]:
        """This package's code."""
        return [PACKAGE / name for name in ("hugging_face.py", "network.py", "interface.py")]

    def describes(self, record: Mapping[str, Any]) -> bool:
        """Compared by the files of the weights."""
        return record.get("weights_sha256") == hash_weights(self.folder)


def find_folder(argument: str) -> Path:
    """The folder itself, or the snapshot of a repository in Hugging Face's cache, fetched if necessary.

    Raises WeightsError.
    """
    if Path(argument).is_dir():
        return Path(argument)
    if argument.count("/") != 1 or argument.startswith((".", "/", "~")):
        raise WeightsError(f"hf:{argument}: there is no such folder, and a repository of the hub is named OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise WeightsError(f"hf:{argument} needs {error.name}: pip install 'clipserve[export,hf]'") from error
    try:
        # Without a network it answers from its cache.
        return Path(snapshot_download(argument, allow_patterns=list(NEEDED_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"hf:{argument} could not be fetched, and is not in Hugging Face's cache"
            f" ({str(error).partition(chr(10))[0]}). Download it by other means, and name its folder: hf:FOLDER"
        ) from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the checkpoint. Raises ContractError."""
    try:
        values = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ContractError(f"{folder / name} cannot be read: {error}; a checkpoint has this file") from error
    if not isinstance(values, dict):
        raise ContractError(f"{folder / name} is {type(values).__name__}, but must be an object")
    return values


def read_architecture(folder: Path) -> tuple[Architecture, dict[str, Any]]:
    """The kind of network, and its config.json. Raises ContractError."""
    config = read_json(folder, CONFIG)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ContractError(
            f"{folder / CONFIG} is of a {kind}, but only {', '.join(ARCHITECTURES)} are supported. For another network"
            " that takes a clip, write a function that builds it: clipserve export FILE.py:FUNCTION"
        )
    return ARCHITECTURES[kind], config


def read_contract(folder: Path, changes: Mapping[str, Any]) -> ClipContract:
    """The contract that the checkpoint's files state, with `changes`. Raises ContractError."""
    architecture, config = read_architecture(folder)
    names = [name for name in PROCESSOR_FILES if (folder / name).is_file()]
    processor = read_json(folder, names[0]) if names else {}
    licence = read_licence(folder)
    values = {
        "frames": config.get(architecture.frames),
        "stride": architecture.stride,
        **read_picture(processor),
        **read_numbers(processor),
        "code_licence": "Apache-2.0",
        "code_source": f"https://github.com/huggingface/transformers ({installed_version()})",
        "weights_licence": licence or f"not stated in the checkpoint; as published: {architecture.known_licence}",
        "weights_source": f"Hugging Face: {config.get('_name_or_path') or folder.name}",
    } | dict(changes)
    missing = [name for name in ("frames", "short_side", "crop", "mean", "deviation") if values.get(name) is None]
    if missing:
        raise ContractError(
            f"{folder}: its files do not say {', '.join(missing)}"
            f" ({' and '.join(names) or 'there is no ' + ' or '.join(PROCESSOR_FILES)}): write"
            " these values into a file, and give it by --contract"
        )
    try:
        return ClipContract.from_values(values)
    except ValueError as error:
        raise ContractError(f"{folder}: {error}") from error


def read_picture(processor: Mapping[str, Any]) -> dict[str, int | None]:
    """Short side and crop. None where the processor does what decoding does not: it always keeps the aspect ratio."""
    size, crop = processor.get("size"), processor.get("crop_size")
    short_side = size if isinstance(size, int) else size.get("shortest_edge") if isinstance(size, Mapping) else None
    if isinstance(crop, Mapping):
        crop = crop.get("height") if crop.get("height") == crop.get("width") else None
    if not processor.get("do_resize", True) or not processor.get("do_center_crop", True):
        short_side = crop = None
    return {"short_side": short_side, "crop": crop}


def read_numbers(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and deviation for pixels in [0, 1]. None where the processor's numbers are none.

    A processor computes (pixel * rescale_factor - offset - mean) / std on pixels of 0 to 255; ViViT has an offset of 1.
    """
    if "image_mean" not in processor and processor.get("do_normalize", True):
        return {"mean": None, "deviation": None}
    normalises = processor.get("do_normalize", True)
    means = processor.get("image_mean", ()) if normalises else (0.0,) * 3
    deviations = processor.get("image_std", ()) if normalises else (1.0,) * 3
    shift = 1.0 if processor.get("offset") and processor.get("do_rescale", True) else 0.0
    try:
        scale = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        return {
            "mean": [(float(mean) + shift) / scale for mean in means],
            "deviation": [float(deviation) / scale for deviation in deviations],
        }
    except (TypeError, ValueError, ZeroDivisionError):  # null, a text, a scale of 0
        return {"mean": None, "deviation": None}


def read_labels(folder: Path) -> list[str] | None:
    """The names of the classes in config.json; None where it lacks some. Raises ContractError."""
    names = read_json(folder, CONFIG).get("id2label")
    if names is None or names == {}:
        return None
    numbered = isinstance(names, dict) and all(map(str.isdecimal, names))
    if not numbered or not all(isinstance(name, str | int | None) for name in names.values()):
        raise ContractError(
            f"{folder / CONFIG}: id2label is {str(names)[:60]}, but must name each class by its number, as"
            ' {"0": "waving", "1": "running"}: correct it'
        )
    labels = [names.get(str(number)) for number in range(len(names))]
    return None if None in labels else list(map(str, labels))


def read_licence(folder: Path) -> str:
    """The licence that the model card states in its header; "" if it states none."""
    try:
        card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    header = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([^\s\"']+)", header[1], re.MULTILINE) if header else None
    return found[1] if found else ""


def load_module(folder: Path) -> nn.Module:
    """The network with its weights. Raises WeightsError."""
    try:
        from transformers import AutoModelForVideoClassification
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error
    except ModuleNotFoundError as error:
        raise WeightsError(f"hf: needs {error.name}: pip install 'clipserve[export,hf]'") from error
    if not list(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no *.safetensors. Other files of weights can run code when they are read: where you trust"
            " them, load the model in transformers, and save it by model.save_pretrained(FOLDER)"
        )
    for path in sorted(folder.glob("*.safetensors")):
        if recognise(start := read_start(path)):
            raise WeightsError(f"{path}: {describe_start(start)}; a safetensors file is wanted")
    disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    # Its warnings are about training, such as a loss that the config does not name.
    set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        module: nn.Module
        module, loading = AutoModelForVideoClassification.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by their names
        )  # fmt: skip
    except Exception as error:  # transformers raises OSError, ValueError, RuntimeError and kinds of its own
        raise WeightsError(f"{folder} cannot be loaded: {describe_exception(error)}") from error
    if mismatched := sorted(loading["mismatched_keys"]):
        name, there, wanted = mismatched[0]
        raise WeightsError(
            f"{folder}: {name!r} has the shape {list(there)}, and {CONFIG} makes it {list(wanted)}"
            f" ({len(mismatched)} such weights): the configuration is of another network than the weights"
        )
    parts = set(map(without_numbers, module.state_dict()))
    if surplus := sorted(name for name in loading["unexpected_keys"] if without_numbers(name) in parts):
        raise WeightsError(
            f"{folder} has {len(surplus)} weights of layers that {CONFIG} does not name, {surplus[0]!r} first: the"
            " configuration is of another network than the weights"
        )
    if missing := sorted(name for name in loading["missing_keys"] if UNUSED not in name):
        raise WeightsError(
            f"{folder} lacks {len(missing)} weights of {type(module).__name__}, {missing[0]!r} first, and transformers"
            " fills them with random numbers: take a checkpoint that was trained for video classification, not the"
            " pretrained network that one begins with"
        )
    return module.float().eval().requires_grad_(False)  # a checkpoint may be in float16


def without_numbers(name: str) -> str:
    """The name of a weight, without the numbers of its layers."""
    return re.sub(r"\.\d+\.", ".N.", name)


def hash_weights(folder: Path) -> str:
    """The hashes of its files of weights."""
    return " ".join(file_hash(path) for path in sorted(folder.glob("*.safetensors")))


def installed_version() -> str:
    """Of transformers. Raises WeightsError."""
    try:
        return version("transformers")
    except ModuleNotFoundError as error:  # PackageNotFoundError is one
        raise WeightsError("hf: needs transformers: pip install 'clipserve[export,hf]'") from error
