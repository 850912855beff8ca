"""`clipserve adopt`: puts a ready ONNX or TorchScript file into the repository."""

from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import spread_options
from clipserve_export.command_line import (
    REPOSITORY,
    RepositoryOption,
    TargetChoice,
    VersionOption,
    export_and_report,
    fail,
    make_console,
)
from clipserve_export.serving.options import ServingOptions
from clipserve_export.target import choose_target


@spread_options
def adopt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The network's file: .onnx, or .pt of TorchScript.")],
    *,
    contract: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The network's clip contract, in TOML: docs/models.md.", show_default=False),
    ],
    labels: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Class names, one a line, in the order of the scores.", show_default=False),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's public name. (default: the file's name)", show_default=False),
    ] = None,
    target: Annotated[
        TargetChoice,
        typer.Option(envvar="CLIPSERVE_TARGET", help="Device that the network will run on, as for `clipserve export`."),
    ] = TargetChoice.auto,
    version: VersionOption = None,
    repository: RepositoryOption = REPOSITORY,
    serving: ServingOptions,
) -> None:
    """Publish an ONNX or TorchScript file in a Triton model repository.

    The command compares the contract with the file. It adds scaling,
    normalisation, softmax and the mean over views to the network, and compares
    the result with the file before it publishes the model.

    \b
    clipserve adopt my_net.onnx --contract my_net.toml --labels my_labels.txt
    clipserve adopt my_net.pt --contract my_net.toml --labels my_labels.txt --name mine
    """
    console = make_console()
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.labels import read_labels
        from clipserve_export.own.adopted import AdoptedSource, format_of
        from clipserve_export.own.contract_file import read_contract_file
        from clipserve_export.own.source import own_spec
    except ModuleNotFoundError as error:
        raise fail(console, f"clipserve adopt needs {error.name}: pip install 'clipserve[export]'", 2) from error
    try:
        form = format_of(file)
        read, interface = read_contract_file(contract)
        classes = read_labels(labels)
        source = AdoptedSource(own_spec(name or file.stem, read), interface, file)
    except ExportError as error:
        raise fail(console, str(error), 1) from error
    export_and_report(
        console,
        source,
        format_name=form,
        precision="fp32",
        labels=classes,
        version_number=version,
        target=choose_target(target.value),
        serving=serving,
        repository=repository,
    )
