"""`clipserve export`: puts models into the repository, or compares the repository with the specs."""

import time
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipserve.commands.options import spread_options
from clipserve.contract import ClipContract
from clipserve_export.serving.choices import VERSION_DIGITS
from clipserve_export.serving.options import ServingOptions
from clipserve_export.specs import SPECS
from clipserve_export.target import Precision, Target, choose_target

if TYPE_CHECKING:
    from rich.console import Console

    from clipserve_export.formats import FormatName
    from clipserve_export.sources import NetworkSource

RepositoryOption = Annotated[Path, typer.Option(metavar="DIR", help="The Triton model repository.")]
VersionOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=10**VERSION_DIGITS - 1, help="Publish as this version. (default: replace the newest)"
    ),
]
REPOSITORY = Path("model_repository")


class FormatChoice(StrEnum):
    """The file formats on the command line."""

    onnx = "onnx"
    torchscript = "torchscript"


class TargetChoice(StrEnum):
    """The targets on the command line."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class PrecisionChoice(StrEnum):
    """The precisions on the command line."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


@spread_options
def export(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODELS...",
            help=f"Published models: {', '.join(SPECS)}. Or one network of your own: FILE.py:FUNCTION or"
            " MODULE:FUNCTION. Or one checkpoint of Hugging Face: hf:FOLDER or hf:OWNER/NAME.",
            show_default=False,
        ),
    ] = None,
    *,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The model's public name, for your own network or a checkpoint of Hugging Face."
        ),
    ] = None,
    contract: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The clip contract of your own network, in TOML: docs/models.md."),
    ] = None,
    format: Annotated[FormatChoice, typer.Option(help="Format of the network's file.")] = FormatChoice.onnx,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            help="Precision of the network, from the normalised clip to the embedding. auto: fp16 for TorchScript if a"
            " check on a GPU of this machine passes, else fp32."
        ),
    ] = PrecisionChoice.auto,
    target: Annotated[
        TargetChoice,
        typer.Option(
            envvar="CLIPSERVE_TARGET",
            help="Device that the network will run on. It sets layout, batches and warm-up. auto: a GPU if this"
            " machine has one.",
        ),
    ] = TargetChoice.auto,
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|random|FILE",
            help="pretrained: the published checkpoint, downloaded once into torch.hub's cache. random: random numbers"
            " with a fixed seed. FILE: your own state dict, of any number of classes.",
        ),
    ] = "pretrained",
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line. The weights must have the same number of classes."),
    ] = None,
    version: VersionOption = None,
    repository: RepositoryOption = REPOSITORY,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Skip a model that the same code made from the same weights, labels and options."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing. Exit with 1 if a generated config differs from the specs."),
    ] = False,
    configs: Annotated[
        bool,
        typer.Option(
            "--configs",
            help="Write only configs and label files, no networks. With MODELS: change their serving options.",
        ),
    ] = False,
    serving: ServingOptions,
) -> None:
    """Export networks into a Triton model repository.

    The command compares each exported file with the PyTorch network. It publishes the model completely or not at all.

    \b
    clipserve export x3d_m mvit_base_32x3
    clipserve export motion --format torchscript
    clipserve export x3d_s --weights my_checkpoint.pt --labels my_labels.txt
    clipserve export x3d_m --target gpu --precision fp16 --accelerator tensorrt
    clipserve export x3d_m --configs --instances 2
    clipserve export my_nets.py:build --name mine --contract mine.toml --weights mine.pt --labels mine.txt
    clipserve export hf:my-videomae --name my_videomae
    """
    console = make_console()
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.labels import read_labels
        from clipserve_export.named_sources import name_source
        from clipserve_export.repository import find_drift, find_spec, write_configs
        from clipserve_export.serving.changes import change_serving
        from clipserve_export.versions import explain_openvino
    except ModuleNotFoundError as error:
        raise fail(console, f"clipserve export needs {error.name}: pip install 'clipserve[export]'", 2) from error

    used = {"check", "repository"} if check else {"configs", "repository", "models", *ServingOptions.__annotations__}
    if (check or configs) and (unused := list_given(context, but=used)):
        mode = "--check compares every file" if check else "--configs writes no networks"
        raise fail(console, f"{mode}, and these have no effect then: {', '.join(unused)}. Leave them out", 2)
    if not (models or check or configs):
        raise fail(console, f"no model was named: name one or more of {', '.join(SPECS)}", 2)
    if serving != ServingOptions() and not models:
        raise fail(console, "serving options need a model: name the models to change", 2)
    names = list(dict.fromkeys(models or []))
    if len(names) > 1 and (labels or name or contract or weights not in ("pretrained", "random")):
        raise fail(
            console,
            "--weights FILE, --labels, --name and --contract are for one model, and several were named: name one",
            2,
        )

    try:
        if check:
            drift = find_drift(repository)
            console.print(*drift, sep="", end="", markup=False)
            if drift:
                raise fail(console, f"{len(drift)} files differ from the specs: run clipserve export --configs", 1)
            console.print(f"{repository} agrees with the specs", markup=False)
            return
        if configs:
            specs = [find_spec(repository, each) for each in names]
            written = write_configs(repository)
            for spec in specs:
                written += change_serving(repository, spec, serving.choose)
            for path in dict.fromkeys(written):
                console.print(f"wrote {path}", markup=False)
            for spec in specs:
                for note in explain_openvino(repository, spec):
                    console.print(f"{spec.name}: {note}", markup=False)
            return
        classes = read_labels(labels) if labels else None  # once: it may be a pipe
        sources = [
            name_source(each, repository, name=name, contract_file=contract, weights=weights, labels=classes)
            for each in names
        ]
    except ExportError as error:
        raise fail(console, str(error), 1) from error

    for source in sources:
        export_and_report(
            console,
            source,
            format_name=format.value,
            precision=precision.value,
            labels=classes,
            version_number=version,
            target=choose_target(target.value),
            serving=serving,
            repository=repository,
            reuse=reuse,
        )


def list_given(context: typer.Context, *, but: Collection[str]) -> list[str]:
    """What the command line names, except these parameters: options by their names, and MODELS."""
    sources = {param: context.get_parameter_source(param.name or "") for param in context.command.params}
    return [
        "MODELS" if param.param_type_name == "argument" else param.opts[0]
        for param, source in sources.items()
        if source and source.name == "COMMANDLINE" and param.name not in but
    ]


def make_console() -> "Console":
    """Where the commands say what they do."""
    from rich.console import Console

    # A notebook may run a command in its process, and rich would then show progress by widgets.
    return Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)


def fail(console: "Console", message: str, status: int) -> typer.Exit:
    """Say why; returns what ends the command with this status."""
    console.print(message, style="red" if status == 1 else None, markup=False)
    return typer.Exit(status)


def export_and_report(
    console: "Console",
    source: "NetworkSource",
    *,
    format_name: "FormatName",
    precision: Literal["auto"] | Precision,
    labels: Sequence[str] | None,
    version_number: int | None,
    target: Target,
    serving: ServingOptions,
    repository: Path,
    reuse: bool = False,
) -> None:
    """Export one network, and say what came of it. Raises typer.Exit."""
    from clipserve_export.errors import ExportError
    from clipserve_export.exporting import export_network
    from clipserve_export.repository import find_spec, read_chosen
    from clipserve_export.versions import explain_publication

    spec, started, is_new = source.spec, time.monotonic(), not repository.exists()
    with console.status(spec.name) as status:
        try:
            record = export_network(
                source,
                format_name=format_name,
                precision=precision,
                labels=labels,
                version_number=version_number,
                target=target,
                serving=serving.choose,
                repository=repository,
                reuse=reuse,
                progress=lambda step: status.update(f"{spec.name}: {step}"),
            )
        except ExportError as error:
            raise fail(console, f"{spec.name}: {error}", 1) from error
    if record is None:
        console.print(f"{spec.name}: already exported as {format_name} from these weights", markup=False)
        return
    console.print(
        f"{spec.name}: {record.format}, {record.precision}, for a {target.upper()},"
        f" {record.file_bytes / 1e6:.1f} MB, weights {record.weights}, {time.monotonic() - started:.0f} s\n"
        f"  {record.parity}, on a {record.checked_on.upper()}",
        markup=False,
    )
    if record.precision_reason:
        console.print(f"  {record.precision}, because {record.precision_reason}", markup=False)
    if record.weights_prefix:
        console.print(f"  removed this prefix from every name in the weights: {record.weights_prefix!r}", markup=False)
    if target != record.checked_on and record.precision != "fp32":
        console.print(f"  {record.precision} was not checked on a GPU", markup=False)
    chosen = read_chosen(repository, find_spec(repository, spec.name))
    notes = explain_contract(chosen.contract) if chosen else []
    if is_new:  # perhaps the command runs in another folder than was meant
        notes.append(f"the repository is new: {repository.absolute()}")
    for note in [*notes, *explain_publication(repository, spec, record.version)]:
        console.print(f"  {note}", markup=False)


def explain_contract(contract: ClipContract) -> list[str]:
    """Notes about a contract for the person who has just published the model."""
    notes = []
    if contract.feature_size is None:
        notes.append("the network has no embedding: the model returns scores, and no FEATURES")
    if contract.weights_licence:
        notes.append(f"licence of the weights: {contract.weights_licence}")
    return notes
