"""One export from end to end: weights, network, file, check, publication."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from clipserve_export.bf16 import Bf16, check_bf16
from clipserve_export.errors import ParityError, WeightsError
from clipserve_export.formats import FORMATS, Format, FormatName
from clipserve_export.labels import labels_for, published_labels, read_labels
from clipserve_export.network import served_network
from clipserve_export.parity import Parity, compare
from clipserve_export.precision import TOLERANCES, in_precision, require_writable
from clipserve_export.repository import (
    LABELS,
    RECORD,
    VERSION,
    Chosen,
    label_text,
    model_configs,
    publish,
    staging,
)
from clipserve_export.serving import Serving
from clipserve_export.serving_changes import fit_serving, present_serving
from clipserve_export.specs import ModelSpec
from clipserve_export.target import LAYOUTS, Precision, Target
from clipserve_export.tensor_names import mark_tensors
from clipserve_export.versions import published_numbers, read_record, require_fellowship, require_versions
from clipserve_export.weights import PACKAGE, file_hash, find_checkpoint, load_weights, origin_of

Progress = Callable[[str], None]
RECIPE = (
    "specs.py",
    "zoo.py",
    "clips.py",
    "network.py",
    "weights.py",
    "mvit.py",
    "tuning.py",
    "formats.py",
    "motion/network.py",
)
REDUCED_RECIPE = ("precision.py",)  # has a part only in what is not fp32
VERSIONED = ("clipserve", "torch", "pytorchvideo", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """What is known of a published file; lies beside it as export.json."""

    model: str
    version: int
    format: FormatName
    precision: Precision
    target: Target
    layout: str | None  # of its tensors; None: the runtime's choice
    weights: str  # where they came from
    weights_sha256: str
    weights_prefix: str  # that was taken off every name in the file
    classes: int
    file_bytes: int
    parity: Parity
    checked_on: Target  # where parity was found
    bf16: Bf16 | None  # None where it was not asked: TorchScript, no OpenVINO, a processor that does not compute in it
    versions: dict[str, str]
    recipe: str  # sha256 of the code that made it
    tensor_suffix: str | None  # of ONNX: what tells its TensorRT engines from another's

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
    precision: Precision | Literal["auto"] = "fp32",
    target: Target = "cpu",
    version_number: int | None = None,
    serving: Serving | None = None,
    reuse: bool = False,
    progress: Progress = lambda _: None,
) -> ExportRecord | None:
    """Export one model into `repository`; None where `reuse` found it already made from the same by the same code.

    precision: auto is fp16 where a GPU at hand shows that it holds, else fp32. version_number: None replaces the newest
    version there is, or makes the first. serving: None keeps what was chosen before, as `present_serving` does.
    Raises ExportError; nothing is published then.
    """
    form = FORMATS[format_name]
    device = comparing_device(form, target)
    if precision == "auto":
        export = partial(
            export_model,
            spec,
            format_name=format_name,
            weights_source=weights_source,
            labels_file=labels_file,
            repository=repository,
            target=target,
            version_number=version_number,
            serving=serving,
            reuse=reuse,
            progress=progress,
        )
        try:
            return export(precision="fp16" if device == "cuda" else "fp32")
        except ParityError:
            return export(precision="fp32")
    require_writable(form, precision)
    number = version_number or (published_numbers(repository, spec) or [int(VERSION)])[-1]
    serving = serving or present_serving(repository, spec, form, target)
    serving = fit_serving(spec, form, serving, precision=precision)
    if reuse and is_current(
        repository, spec, format_name, weights_source, labels_file, precision=precision, number=number, serving=serving
    ):
        return None
    progress("reading weights")
    weights = load_weights(spec, weights_source)
    labels = labels_for(spec, labels_file, classes=weights.classes(spec))
    require_versions(spec, serving.keep, [*published_numbers(repository, spec), number])
    require_fellowship(repository, spec, number, form=form, labels=labels, serving=serving)
    try:
        network = served_network(spec, weights.state)
    except RuntimeError as error:
        raise WeightsError(f"{weights.origin} does not fit {spec.name}: {error}") from error
    with staging(repository, spec) as folder:
        path = folder / form.filename
        progress(f"writing {form.filename}")
        form.write(in_precision(network, precision), spec.geometry, path, target=target)
        suffix = mark_tensors(path, f"{weights.sha256} {precision}") if form.name == "onnx" else None
        progress("comparing it with the network")
        parity = compare(network, form.load(path, device=device), spec.geometry, tolerance=TOLERANCES[precision])
        parity.require()
        bf16 = check_bf16(network, path, spec.geometry) if form.name == "onnx" else None
        record = ExportRecord(
            model=spec.name,
            version=number,
            format=format_name,
            precision=precision,
            target=target,
            layout=LAYOUTS[target] if form.name == "torchscript" else None,
            weights=weights.origin,
            weights_sha256=weights.sha256,
            weights_prefix=weights.stripped,
            classes=len(labels),
            file_bytes=path.stat().st_size,
            parity=parity,
            checked_on="gpu" if device == "cuda" else "cpu",
            bf16=bf16,
            versions=installed_versions(),
            recipe=recipe(precision),
            tensor_suffix=suffix,
        )
        (folder / RECORD).write_text(record.to_json())
        progress("publishing")
        publish(repository, spec, form, labels, folder, version=number, serving=serving)
    return record


def comparing_device(form: Format, target: Target) -> str:
    """Where a file is compared with its network: on a GPU where it is for one, and there is one."""
    return "cuda" if (form.name, target) == ("torchscript", "gpu") and torch.cuda.is_available() else "cpu"


def installed_versions() -> dict[str, str]:
    """Of what has a part in an export; ONNX Runtime goes by one of two names."""
    versions = {}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@cache
def recipe(precision: Precision = "fp32") -> str:
    """A hash of the code that decides what is in an exported file: another recipe may give another file."""
    digest = hashlib.sha256()
    for name in RECIPE if precision == "fp32" else RECIPE + REDUCED_RECIPE:
        digest.update((PACKAGE / name).read_bytes())
    digest.update(torch.__version__.encode() + version("onnxscript").encode())
    return digest.hexdigest()


def is_current(
    repository: Path,
    spec: ModelSpec,
    format_name: FormatName,
    weights_source: str,
    labels_file: Path | None,
    *,
    precision: Precision,
    number: int,
    serving: Serving,
) -> bool:
    """Whether the published version is of these weights, format, precision, code, labels and serving options.

    Asked without building a network: random weights are what the recipe makes them.
    """
    net, form = repository / spec.net_name, FORMATS[format_name]
    wanted_labels = read_labels(labels_file or published_labels(spec))
    configs = model_configs(repository, spec, Chosen(form=form, classes=len(wanted_labels), serving=serving))
    record = read_record(repository, spec, number)
    try:
        configs_agree = all((repository / path).read_text() == text for path, text in configs.items())
        labels = (net / LABELS).read_text()
    except OSError:
        return False
    checkpoint = find_checkpoint(spec, weights_source)
    return (
        (net / str(number) / form.filename).exists()
        and record.get("format") == format_name
        and record.get("precision", "fp32") == precision
        and record.get("target", "cpu") == serving.target
        and record.get("weights") == origin_of(spec, weights_source)
        and (checkpoint is None or record.get("weights_sha256") == file_hash(checkpoint))
        and record.get("recipe") == recipe(precision)
        and (serving.accelerator != "tensorrt" or bool(record.get("tensor_suffix")))
        and labels == label_text(wanted_labels)
        and configs_agree
    )
