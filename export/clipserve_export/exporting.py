"""One export from weights to publication: read weights, build the network, write the file, check it, publish it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from clipserve_export.access import explain_write_errors, locked, require_space
from clipserve_export.errors import FormatError, ParityError, PrecisionError
from clipserve_export.families.adapter import PACKAGE
from clipserve_export.formats import FORMATS, Format, FormatName, mark_tensors
from clipserve_export.labels import labels_for, published_labels, read_labels
from clipserve_export.own.memory import measure_clip_megabytes
from clipserve_export.parity import Bf16, Parity, check_bf16, compare, runs_in_openvino
from clipserve_export.precision import TOLERANCES, in_precision, require_float32, require_writable
from clipserve_export.publication import publish, staging
from clipserve_export.records import CONTRACT, RECORD, published_numbers, read_record
from clipserve_export.repository import LABELS, Chosen, code_texts, label_text, model_configs
from clipserve_export.serving.changes import fit_serving, present_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.sources import NetworkSource, PublishedSource
from clipserve_export.specs import OWN, ModelSpec
from clipserve_export.target import LAYOUTS, Precision, Target
from clipserve_export.versions import answering_contract, choose_number, require_compatible, require_versions
from clipserve_server.packages import find_versions

Progress = Callable[[str], None]
# Of every export. A source names the rest, and the contract is added.
RECIPE = ("zoo.py", "clips.py", "network.py", "weights.py", "tuning.py", "formats.py", "own/onnx_nodes.py")
REDUCED_RECIPE = ("precision.py",)  # for precisions other than fp32
# The packages that take part. ONNX Runtime has one of two names.
VERSIONED = ("clipserve", "torch", "pytorchvideo", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """The facts about a published file, stored beside it as export.json.

    Attributes:
        precision_reason: why "auto" took it on a GPU; "": it was named, or the file is for a CPU.
        layout: of its tensors; None: the runtime chooses.
        weights: where they came from.
        weights_prefix: what was removed from the beginning of every name in the weights.
        clip_megabytes: MiB of memory for each clip, see capacity.py.
        parity: how far the file differs from its network.
        checked_on: the device of that check.
        bf16: the same in bf16; None if it was not checked: TorchScript, no OpenVINO, or a processor without bf16.
        openvino: whether OpenVINO runs the file; None if it was not tried.
        versions: of the packages that take part.
        recipe: SHA-256 of the code that made the file.
        tensor_suffix: of an ONNX file, see formats.mark_tensors.
    """

    model: str
    version: int
    format: FormatName
    precision: Precision
    precision_reason: str
    target: Target
    layout: str | None
    weights: str
    weights_sha256: str
    weights_prefix: str
    classes: int
    clip_megabytes: int
    file_bytes: int
    parity: Parity
    checked_on: Target
    bf16: Bf16 | None
    openvino: bool | None
    versions: dict[str, str]
    recipe: str
    tensor_suffix: str | None

    def to_json(self) -> str:
        """The text of export.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def export_network(
    source: NetworkSource,
    *,
    format_name: FormatName,
    labels: Sequence[str] | None = None,
    repository: Path,
    precision: Precision | Literal["auto"] = "fp32",
    target: Target = "cpu",
    version_number: int | Literal["next"] | None = None,
    serving: Serving | Callable[[Serving], Serving] | None = None,
    reuse: bool = False,
    progress: Progress = lambda _: None,
) -> ExportRecord | None:
    """Export one network into `repository`. Returns None if `reuse` finds that nothing would change.

    Args:
        source: the network; PublishedSource(SPECS[name]) is a model of this project.
        format_name: the file format.
        labels: the class names. None: those of the source.
        repository: the model repository.
        precision: "auto" is fp16 if a GPU of this machine shows that it holds, else fp32.
        target: the kind of device that the file is for.
        version_number: None replaces the newest version, or makes the first. "next" is a number that no version has,
            whatever other programs publish meanwhile.
        serving: the options, or a change of those present when it is published (`present_serving`). None keeps these.
        reuse: leave a version alone that the same code made from the same weights, labels and options.
        progress: called with the name of each step.

    Raises:
        ExportError: nothing was published.
    """
    spec, form = source.spec, FORMATS[format_name]
    is_next = version_number == "next"
    number = choose_number(repository, spec, version_number)

    def choose() -> Serving:
        present = present_serving(repository, spec, form, target)
        return serving(present) if callable(serving) else serving or present

    chosen = choose()

    def export(precision: Precision, reason: str = "") -> ExportRecord | None:
        require_writable(form, precision)
        one = _Export(
            source=source,
            form=form,
            precision=precision,
            precision_reason=reason,
            target=target,
            labels=labels,
            repository=repository,
            number=number,
            is_next=is_next,
            serving=fit_serving(spec, form, chosen, precision=precision),
            choose=choose,
        )
        return None if reuse and one.is_current() else one.run(progress)

    if precision != "auto":
        return export(precision)
    reason = "auto takes fp16 only as TorchScript that a GPU of this machine has checked"
    if comparing_device(form, target) == "cuda":
        try:
            return export("fp16", "it passes the check on a GPU")
        except (FormatError, ParityError, PrecisionError) as error:
            # A network that makes float32 tensors of its own cannot be written in fp16.
            reason = f"fp16 fails: {error}"
    return export("fp32", reason if target == "gpu" else "")


@dataclass(frozen=True, kw_only=True)
class _Export:
    """One export of one network in one precision. The fields are the arguments of export_network, resolved.

    choose: reads the options again, which were `serving` before the work.
    """

    source: NetworkSource
    form: Format
    precision: Precision
    precision_reason: str
    target: Target
    labels: Sequence[str] | None
    repository: Path
    number: int
    is_next: bool
    serving: Serving
    choose: Callable[[], Serving]

    def run(self, progress: Progress) -> ExportRecord:
        """Write the file, check it and publish it. Raises ExportError."""
        form, repository, precision = self.form, self.repository, self.precision
        progress("reading weights")
        loaded = self.source.load()
        network, contract = loaded.network, loaded.contract
        spec = replace(self.source.spec, contract=contract)
        labels = labels_for(spec, self.labels, loaded.labels)
        self.require_place(spec, self.number, labels, self.serving)
        device = comparing_device(form, self.target)
        with explain_write_errors(repository), staging(repository, spec) as folder:
            path = folder / form.filename
            progress(f"writing {form.filename}")
            if loaded.write is None:
                reduced = in_precision(network, precision)
                write = partial(form.write, reduced, spec.geometry, path, target=self.target)
            else:
                if precision != loaded.precision:
                    require_float32(precision)
                write = partial(loaded.write, path)
            other = next(name for name in FORMATS if name != form.name)
            with explain_format_errors(form, path, loaded.remedy or f"try --format {other}"):
                write()
            suffix = mark_tensors(path) if form.name == "onnx" else None
            progress("comparing it with the network")
            with explain_format_errors(form, path, "its runtime does not load what was written"):
                written = form.load(path, device=device)
            parity = compare(network, written, spec.geometry, tolerance=TOLERANCES[precision])
            parity.require()
            if self.source.measures_clip:
                progress("measuring what a clip takes")
                megabytes = measure_clip_megabytes(path, form, spec.geometry)
                # A spec has it in float32. ONNX Runtime computes in it on a CPU, also what is in fp16.
                halved = precision != "fp32" and form.name == "torchscript"
                spec = replace(spec, clip_megabytes=2 * megabytes if halved else megabytes)
            fit_serving(spec, form, self.serving, precision=precision)
            tries_openvino = spec.family == OWN and form.name == "onnx"  # the published networks are known to run
            record = ExportRecord(
                model=spec.name,
                version=self.number,
                format=form.name,
                precision=precision,
                precision_reason=self.precision_reason,
                target=self.target,
                layout=LAYOUTS[self.target] if form.name == "torchscript" else None,
                weights=loaded.weights,
                weights_sha256=loaded.weights_sha256,
                weights_prefix=loaded.weights_prefix,
                classes=len(labels),
                clip_megabytes=spec.clip_megabytes,
                file_bytes=path.stat().st_size,
                parity=parity,
                checked_on="gpu" if device == "cuda" else "cpu",
                bf16=check_bf16(network, path, spec.geometry) if form.name == "onnx" else None,
                openvino=runs_in_openvino(network, path, spec.geometry) if tries_openvino else None,
                versions=find_versions(VERSIONED),
                recipe=recipe(self.source, precision),
                tensor_suffix=suffix,
            )
            (folder / CONTRACT).write_text(contract.to_json(indent=2) + "\n")
            progress("publishing")
            with locked(repository):
                # Others may have published, or changed the options, since the work began.
                number = choose_number(repository, spec, "next") if self.is_next else self.number
                serving = fit_serving(spec, form, self.choose(), precision=precision)
                self.require_place(spec, number, labels, serving)
                record = replace(record, version=number)
                (folder / RECORD).write_text(record.to_json())
                told = answering_contract(repository, spec, serving.keep, number, contract)
                publish(repository, spec, form, labels, folder, version=number, serving=serving, contract=told)
        return record

    def require_place(self, spec: ModelSpec, number: int, labels: Sequence[str], serving: Serving) -> None:
        """Raise VersionError unless the network can become version `number` beside those that are there."""
        require_versions(spec, serving.keep, [*published_numbers(self.repository, spec), number])
        require_compatible(self.repository, spec, number, form=self.form, labels=labels, serving=serving)

    def is_current(self) -> bool:
        """Whether the published version is made by this code from the same weights, labels and options.

        Does not build a network: the recipe determines random weights.
        """
        source, form, repository, serving = self.source, self.form, self.repository, self.serving
        spec = source.spec
        net = repository / spec.net_name
        record = read_record(net / str(self.number))
        if not isinstance(source, PublishedSource):
            return False
        wanted_labels = read_labels(published_labels(spec)) if self.labels is None else self.labels
        contract = source.contract(classes=len(wanted_labels))
        told = answering_contract(repository, spec, serving.keep, self.number, contract)
        texts = code_texts() | model_configs(repository, spec, Chosen(form=form, contract=told, serving=serving))
        try:
            files_agree = all((repository / path).read_text() == text for path, text in texts.items())
            labels = (net / LABELS).read_text()
            contracts_agree = (net / str(self.number) / CONTRACT).read_text() == contract.to_json(indent=2) + "\n"
        except OSError:
            return False
        return (
            (net / str(self.number) / form.filename).exists()
            and record.get("format") == form.name
            and record.get("precision", "fp32") == self.precision
            and record.get("target", "cpu") == serving.target
            and source.describes(record)
            and record.get("recipe") == recipe(source, self.precision)
            and (serving.accelerator != "tensorrt" or bool(record.get("tensor_suffix")))
            and labels == label_text(wanted_labels)
            and files_agree
            and contracts_agree
        )


@contextmanager
def explain_format_errors(form: Format, path: Path, remedy: str) -> Iterator[None]:
    """Raises FormatError where the libraries of a format fail, and OSError where the system does not let them write."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # torch.onnx, torch.jit, protobuf and the runtimes raise many kinds
        require_space(path.parent)
        cause: BaseException = error
        while cause.__cause__:  # torch.onnx says last, in general words, that a step failed
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0]
        raise FormatError(
            f"the network cannot be written as {form.name}: {type(cause).__name__}: {reason}; {remedy}"
        ) from error


def comparing_device(form: Format, target: Target) -> str:
    """The device on which a file is compared with its network: a GPU if the file is for one and the machine has one."""
    return "cuda" if (form.name, target) == ("torchscript", "gpu") and torch.cuda.is_available() else "cpu"


def recipe(source: NetworkSource, precision: Precision = "fp32") -> str:
    """A hash of the code that decides what an exported file contains. Another recipe may make another file."""
    digest = hashlib.sha256(source.spec.contract.to_json().encode())
    names = RECIPE if precision == "fp32" else RECIPE + REDUCED_RECIPE
    for path in (*(PACKAGE / name for name in names), *source.recipe_files()):
        digest.update(path.read_bytes())
    digest.update(torch.__version__.encode() + version("onnxscript").encode())
    return digest.hexdigest()
