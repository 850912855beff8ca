"""`clipserve models`: lists the models that can be exported, and those of a repository."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipserve_export.command_line import REPOSITORY, RepositoryOption, fail, make_console

if TYPE_CHECKING:
    from clipserve.contract import ClipContract
    from clipserve_export.specs import ModelSpec

COLUMNS = ("model", "clip", "scale, crop", "classes", "features", "exported", "licence of the weights", "accuracy")
PIPED_WIDTH = 300  # where no terminal says how wide a line may be


def models(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Print the contract of this model.", show_default=False)
    ] = None,
    *,
    repository: RepositoryOption = REPOSITORY,
) -> None:
    """List the published models and those of a repository: contract, precision, licence, accuracy.

    The accuracy is the one that the authors of the weights published, with the test protocol of the contract.

    \b
    clipserve models
    clipserve models x3d_m
    """
    console = make_console()
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.repository import find_spec, read_chosen, read_specs
    except ModuleNotFoundError as error:
        raise fail(console, f"clipserve models needs {error.name}: pip install 'clipserve[export]'", 2) from error
    try:
        if model is not None:
            spec = find_spec(repository, model)
            chosen = read_chosen(repository, spec) if describe_versions(repository, spec) else None
            typer.echo((chosen.contract if chosen else spec.contract).to_json(indent=2))
            return
        rows = []
        for spec in read_specs(repository).values():
            exported = describe_versions(repository, spec)
            chosen = read_chosen(repository, spec) if exported else None
            rows.append(describe_model(spec.name, chosen.contract if chosen else spec.contract, exported))
    except ExportError as error:
        raise fail(console, str(error), 2) from error
    print_table(rows)


def describe_versions(repository: Path, spec: "ModelSpec") -> str:
    """What is published of a model, such as `1: onnx fp32`; "" for nothing."""
    from clipserve_export.versions import read_versions

    return "; ".join(
        f"{version.number}: {version.record.get('format', 'unknown')} {version.record.get('precision', 'fp32')}"
        for version in read_versions(repository, spec)
    )


def describe_model(name: str, contract: "ClipContract", exported: str) -> tuple[str, ...]:
    """The values of COLUMNS."""
    return (
        name,
        f"{contract.frames} x {contract.stride}",
        f"{contract.short_side}, {contract.crop}",
        str(contract.classes or "?"),
        str(contract.feature_size or "none"),
        exported or "-",
        contract.weights_licence or "-",
        contract.accuracy or "-",
    )


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print the rows below COLUMNS."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, markup=False).print(table)
