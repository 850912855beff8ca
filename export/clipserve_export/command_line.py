"""`clipserve export`: put models into the repository, or hold the repository against the specs."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clipserve_export.specs import SPECS


class FormatChoice(StrEnum):
    """The file formats, as words for the command line."""

    onnx = "onnx"
    torchscript = "torchscript"


def export(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODELS...", help=f"Any of {', '.join(SPECS)}.", show_default=False),
    ] = None,
    *,
    format: Annotated[FormatChoice, typer.Option(help="The file the network is written as.")] = FormatChoice.onnx,
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
    repository: Annotated[Path, typer.Option(metavar="DIR", help="The Triton model repository to publish in.")] = Path(
        "model_repository"
    ),
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Leave a model alone that the same code made from the same weights."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if a generated config has drifted."),
    ] = False,
    configs: Annotated[
        bool,
        typer.Option("--configs", help="Write the generated configs and label files only, no networks."),
    ] = False,
) -> None:
    """Export networks into a Triton model repository.

    Each export is compared with the network it came from before it is published, and published whole or not at all.

    \b
    clipserve export x3d_m mvit_base_32x3
    clipserve export motion --format torchscript
    clipserve export x3d_s --weights my_checkpoint.pt --labels my_labels.txt
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.exporting import export_model
        from clipserve_export.repository import find_drift, write_configs
    except ModuleNotFoundError as error:
        console.print(f"clipserve export needs {error.name}: pip install 'clipserve[export]'", markup=False)
        raise typer.Exit(2) from error

    try:
        if check:
            drift = find_drift(repository)
            console.print(*drift, sep="", end="", markup=False, soft_wrap=True)
            if drift:
                console.print(f"{len(drift)} files differ from the specs: run clipserve export --configs", markup=False)
                raise typer.Exit(1)
            console.print(f"{repository} is as the specs say", markup=False)
            return
        if configs:
            for path in write_configs(repository):
                console.print(f"wrote {path}", markup=False)
            return
    except ExportError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error

    unknown = [name for name in models or [] if name not in SPECS]
    if not models or unknown:
        came = f"there is no model {unknown[0]!r}" if unknown else "no model was named"
        console.print(f"{came}; there are {', '.join(SPECS)}", markup=False)
        raise typer.Exit(2)
    if len(models) > 1 and (labels or weights not in ("pretrained", "random")):
        console.print("one checkpoint or label file fits one model: name one model", markup=False)
        raise typer.Exit(2)

    for name in dict.fromkeys(models):
        started = time.monotonic()
        with console.status(name) as status:
            try:
                record = export_model(
                    SPECS[name],
                    format_name=format.value,
                    weights_source=weights,
                    labels_file=labels,
                    repository=repository,
                    reuse=reuse,
                    progress=lambda step, name=name, status=status: status.update(f"{name}: {step}"),  # type: ignore[misc]
                )
            except ExportError as error:
                console.print(f"{name}: {error}", style="red", markup=False, soft_wrap=True)
                raise typer.Exit(1) from error
        if record is None:
            console.print(f"{name}: is already exported as {format.value} from these weights", markup=False)
            continue
        console.print(
            f"{name}: {format.value}, {record.file_bytes / 1e6:.1f} MB, weights {record.weights},"
            f" {time.monotonic() - started:.0f} s\n  {record.parity}",
            markup=False,
            soft_wrap=True,
        )
