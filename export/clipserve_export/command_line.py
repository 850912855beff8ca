"""`clipserve export`: puts models into the repository, or compares the repository with the specs."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import spread_options
from clipserve_export.serving.options import ServingOptions
from clipserve_export.specs import SPECS

RepositoryOption = Annotated[Path, typer.Option(metavar="DIR", help="The Triton model repository.")]
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
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODELS...", help=f"Any of {', '.join(SPECS)}.", show_default=False),
    ] = None,
    *,
    format: Annotated[FormatChoice, typer.Option(help="The file the network is written as.")] = FormatChoice.onnx,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            help="What the network computes in, between the normalised clip and the embedding; auto is fp16 for"
            " TorchScript where a GPU of this machine shows that it holds, else fp32."
        ),
    ] = PrecisionChoice.auto,
    target: Annotated[
        TargetChoice,
        typer.Option(
            envvar="CLIPSERVE_TARGET",
            help="Where it will run: its layout, batches and warm-up follow. auto: a GPU where this machine has one.",
        ),
    ] = TargetChoice.auto,
    weights: Annotated[
        str,
        typer.Option(
            metavar="pretrained|random|FILE",
            help="The published checkpoint (fetched once into torch.hub's cache), seeded random weights, or a state"
            " dict of your own, of any class count.",
        ),
    ] = "pretrained",
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line, as many as the weights have classes."),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Publish as this version. (default: replace the newest)"),
    ] = None,
    repository: RepositoryOption = REPOSITORY,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Skip a model that the same code made from the same weights, labels and options."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if a generated config has drifted."),
    ] = False,
    configs: Annotated[
        bool,
        typer.Option("--configs", help="Write configs and label files only, no networks; with MODELS, their options."),
    ] = False,
    serving: ServingOptions,
) -> None:
    """Export networks into a Triton model repository.

    Each export is compared with the network it came from before it is published, and published whole or not at all.

    \b
    clipserve export x3d_m mvit_base_32x3
    clipserve export motion --format torchscript
    clipserve export x3d_s --weights my_checkpoint.pt --labels my_labels.txt
    clipserve export x3d_m --target gpu --precision fp16 --accelerator tensorrt
    clipserve export x3d_m --configs --instances 2
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.exporting import export_model
        from clipserve_export.formats import FORMATS
        from clipserve_export.repository import find_drift, write_configs
        from clipserve_export.serving.changes import change_serving, present_serving
        from clipserve_export.target import choose_target
        from clipserve_export.versions import explain_publication
    except ModuleNotFoundError as error:
        console.print(f"clipserve export needs {error.name}: pip install 'clipserve[export]'", markup=False)
        raise typer.Exit(2) from error

    def fail(message: str, status: int) -> typer.Exit:
        console.print(message, style="red" if status == 1 else None, markup=False)
        return typer.Exit(status)

    unknown = [name for name in models or [] if name not in SPECS]
    if unknown or not (models or check or configs):
        came = f"there is no model {unknown[0]!r}" if unknown else "no model was named"
        raise fail(f"{came}; there are {', '.join(SPECS)}", 2)
    if serving != ServingOptions() and not models:
        raise fail("serving options are a model's: name the models that they are for", 2)
    specs = [SPECS[name] for name in dict.fromkeys(models or [])]
    if len(specs) > 1 and (labels or weights not in ("pretrained", "random")):
        raise fail("one checkpoint or label file fits one model: name one model", 2)

    try:
        if check:
            drift = find_drift(repository)
            console.print(*drift, sep="", end="", markup=False)
            if drift:
                raise fail(f"{len(drift)} files differ from the specs: run clipserve export --configs", 1)
            console.print(f"{repository} agrees with the specs", markup=False)
            return
        if configs:
            written = write_configs(repository)
            for spec in specs:
                written += change_serving(repository, spec, serving.choose)
            for path in dict.fromkeys(written):
                console.print(f"wrote {path}", markup=False)
            return
    except ExportError as error:
        raise fail(str(error), 1) from error

    made_for = choose_target(target.value)
    for spec in specs:
        started = time.monotonic()
        with console.status(spec.name) as status:
            try:
                record = export_model(
                    spec,
                    format_name=format.value,
                    precision=precision.value,
                    weights_source=weights,
                    labels_file=labels,
                    version_number=version,
                    target=made_for,
                    serving=serving.choose(present_serving(repository, spec, FORMATS[format.value], made_for)),
                    repository=repository,
                    reuse=reuse,
                    progress=lambda step, name=spec.name, status=status: status.update(f"{name}: {step}"),  # type: ignore[misc]
                )
            except ExportError as error:
                raise fail(f"{spec.name}: {error}", 1) from error
        if record is None:
            console.print(f"{spec.name}: is already exported as {format.value} from these weights", markup=False)
            continue
        console.print(
            f"{spec.name}: {format.value}, {record.precision}, for a {made_for.upper()},"
            f" {record.file_bytes / 1e6:.1f} MB, weights {record.weights}, {time.monotonic() - started:.0f} s\n"
            f"  {record.parity}, on a {record.checked_on.upper()}",
            markup=False,
        )
        if record.weights_prefix:
            console.print(f"  removed from every name in the weights: {record.weights_prefix!r}", markup=False)
        if made_for != record.checked_on and record.precision != "fp32":
            console.print(f"  whether {record.precision} holds on a GPU was not checked", markup=False)
        for note in explain_publication(repository, spec, record.version):
            console.print(f"  {note}", markup=False)
