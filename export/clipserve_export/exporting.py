"""One export from end to end: weights, network, file, check, publication."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from clipserve_export.bf16 import Bf16, check_bf16
from clipserve_export.configs import net_config, print_config
from clipserve_export.errors import WeightsError
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.labels import labels_for, published_labels, read_labels
from clipserve_export.network import served_network
from clipserve_export.parity import Parity, compare
from clipserve_export.repository import CONFIG, LABELS, RECORD, VERSION, label_text, publish, staging
from clipserve_export.specs import ModelSpec
from clipserve_export.weights import PACKAGE, file_hash, find_checkpoint, load_weights, origin_of

Progress = Callable[[str], None]
RECIPE = ("specs.py", "zoo.py", "clips.py", "network.py", "weights.py", "tuning.py", "formats.py", "motion/network.py")
VERSIONED = ("clipserve", "torch", "pytorchvideo", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What is known of a published file; lies beside it as export.json."""

    model: str
    format: FormatName
    weights: str  # where they came from
    weights_sha256: str
    classes: int
    file_bytes: int
    parity: Parity
    bf16: Bf16 | None  # None where it was not asked: TorchScript, or a processor that does not compute in it
    versions: dict[str, str]
    recipe: str  # sha256 of the code that made it

    def to_json(self) -> str:
        """The text of export.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def export_model(
    spec: ModelSpec,
    *,
    format_name: FormatName,
    weights_source: str,
    labels_file: Path | None,
    repository: Path,
    reuse: bool = False,
    progress: Progress = lambda _: None,
) -> ExportRecord | None:
    """Export one model into `repository`; None where `reuse` found it already made from the same by the same code.

    Raises ExportError; nothing is published then.
    """
    form = FORMATS[format_name]
    if reuse and is_current(repository, spec, format_name, weights_source, labels_file):
        return None
    progress("reading weights")
    weights = load_weights(spec, weights_source)
    labels = labels_for(spec, labels_file, classes=weights.classes(spec))
    try:
        network = served_network(spec, weights.state)
    except RuntimeError as error:
        raise WeightsError(f"{weights.origin} does not fit {spec.name}: {error}") from error
    with staging(repository, spec) as folder:
        path = folder / form.filename
        progress(f"writing {form.filename}")
        form.write(network, spec.geometry, path)
        progress("comparing it with the network")
        parity = compare(network, form.load(path), spec.geometry)
        parity.require()
        bf16 = check_bf16(network, path, spec.geometry) if form.name == "onnx" else None
        record = ExportRecord(
            model=spec.name,
            format=format_name,
            weights=weights.origin,
            weights_sha256=weights.sha256,
            classes=len(labels),
            file_bytes=path.stat().st_size,
            parity=parity,
            bf16=bf16,
            versions={package: version(package) for package in VERSIONED},
            recipe=recipe(),
        )
        (folder / RECORD).write_text(record.to_json())
        progress("publishing")
        publish(repository, spec, form, labels, folder)
    return record


@cache
def recipe() -> str:
    """A hash of the code that decides what is in an exported file: another recipe may give another file."""
    digest = hashlib.sha256()
    for name in RECIPE:
        digest.update((PACKAGE / name).read_bytes())
    digest.update(torch.__version__.encode() + version("onnxscript").encode())
    return digest.hexdigest()


def is_current(
    repository: Path, spec: ModelSpec, format_name: FormatName, weights_source: str, labels_file: Path | None
) -> bool:
    """Whether the published file was made from these weights, in this format, by this code, with these labels.

    Asked without building a network: random weights are what the recipe makes them.
    """
    net, form = repository / spec.net_name, FORMATS[format_name]
    try:
        record = json.loads((net / VERSION / RECORD).read_text())
        config, labels = (net / CONFIG).read_text(), (net / LABELS).read_text()
    except (OSError, ValueError):
        return False
    wanted_labels = read_labels(labels_file or published_labels(spec))
    checkpoint = find_checkpoint(spec, weights_source)
    return (
        (net / VERSION / form.filename).exists()
        and record.get("format") == format_name
        and record.get("weights") == origin_of(spec, weights_source)
        and (checkpoint is None or record.get("weights_sha256") == file_hash(checkpoint))
        and record.get("recipe") == recipe()
        and labels == label_text(wanted_labels)
        and config == print_config(net_config(spec, form, classes=len(wanted_labels)))
    )
