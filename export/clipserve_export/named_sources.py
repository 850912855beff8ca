"""The networks that the arguments of `clipserve export` name."""

from collections.abc import Sequence
from pathlib import Path

from clipserve_export.errors import ContractError, RepositoryError
from clipserve_export.own.builder import is_builder
from clipserve_export.own.contract_file import EXAMPLE, read_contract_file
from clipserve_export.own.hugging_face import PREFIX, HuggingFaceSource
from clipserve_export.own.source import AS_BUILT, OwnSource, own_spec
from clipserve_export.repository import read_specs
from clipserve_export.sources import NetworkSource, PublishedSource
from clipserve_export.specs import SPECS


def name_source(
    argument: str,
    repository: Path,
    *,
    name: str | None,
    contract_file: Path | None,
    weights: str,
    labels: Sequence[str] | None,
) -> NetworkSource:
    """The source that `argument` names: a published model, FILE.py:FUNCTION, or hf:FOLDER.

    Args:
        argument: of the command line.
        repository: whose own models a message lists.
        name: of the one model that is not published.
        contract_file: its clip contract.
        weights: of --weights.
        labels: its class names; their number is given to a function that has a parameter `classes`.

    Raises:
        ExportError: the argument means nothing, or lacks what it needs.
    """
    if argument in SPECS:
        if name or contract_file:
            raise ContractError(f"{argument} is a published model, which has its name and its contract")
        return PublishedSource(SPECS[argument], weights)
    if argument.startswith(PREFIX):
        if weights != AS_BUILT:
            raise ContractError(
                f"{argument} has weights of its own, and --weights {weights} is for networks without: put them into a"
                " folder that save_pretrained writes, and name it by hf:FOLDER"
            )
        return HuggingFaceSource.named(argument.removeprefix(PREFIX), name=name, contract_file=contract_file)
    if is_builder(argument):
        if not name or not contract_file:
            missing = "--name" if not name else "--contract"
            raise ContractError(
                f"{argument} is a network of your own: give {missing}. A contract is a file such as\n{EXAMPLE}"
            )
        contract, interface = read_contract_file(contract_file)
        return OwnSource(own_spec(name, contract), interface, argument, weights, len(labels) if labels else None)
    if argument in read_specs(repository):
        raise RepositoryError(
            f"{argument} is a model of {repository} that is exported by what it came from: FILE.py:FUNCTION or"
            f" hf:FOLDER with --name {argument}, or clipserve adopt"
        )
    raise RepositoryError(
        f"there is no model {argument!r}; there are {', '.join(SPECS)}, networks of your own (FILE.py:FUNCTION) and of"
        " Hugging Face (hf:FOLDER)"
    )
