"""Where the network of an export comes from.

A source builds a network with its weights. What follows is the same for all of them: the file, the comparison with the
network, the configs, the publication.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clipserve.contract import ClipContract
from clipserve_export.errors import WeightsError
from clipserve_export.families.adapter import adapter_of, served_network
from clipserve_export.labels import published_labels, read_labels
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision
from clipserve_export.weights import contract_of, file_hash, find_checkpoint, load_weights, origin_of


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: as it is served.
        contract: of the network with these weights; its classes are known.
        labels: that came with the weights, in the order of the scores; None if there are none.
        weights: where they came from, as a record names it.
        weights_sha256: of the file with the weights, or of their values.
        weights_prefix: what was removed from the beginning of every name in the weights.
        write: writes the file, for a network that is one already; None: the format does.
        precision: of the file that `write` writes.
        remedy: what to do if the format's libraries do not write or load the file; "": try the other format.
    """

    network: ActionNetwork
    contract: ClipContract
    labels: Sequence[str] | None
    weights: str
    weights_sha256: str
    weights_prefix: str = ""
    write: Callable[[Path], None] | None = None
    precision: Precision = "fp32"
    remedy: str = ""


class NetworkSource(Protocol):
    """Builds the network of one export."""

    @property
    def spec(self) -> ModelSpec:
        """The model, as far as it is known before the weights are read."""

    @property
    def measures_clip(self) -> bool:
        """Whether the export measures what a clip takes: `spec` does not know."""

    def load(self) -> LoadedNetwork:
        """Read the weights and build the network. Raises WeightsError, LabelsError or ContractError."""

    def recipe_files(self) -> Sequence[Path]:
        """The code that decides what the file contains, beside what all sources share."""

    def describes(self, record: Mapping[str, Any]) -> bool:
        """Whether the network of this export.json had the same weights. Does not build a network."""


@dataclass(frozen=True)
class PublishedSource:
    """A model of SPECS with weights that `--weights` names: pretrained, random, or the path of a checkpoint."""

    spec: ModelSpec
    weights: str = "pretrained"
    measures_clip: bool = field(default=False, init=False)

    def load(self) -> LoadedNetwork:
        """Read the weights and build the network. Raises WeightsError or LabelsError."""
        spec = self.spec
        weights = load_weights(spec, self.weights)
        try:
            network = served_network(spec, weights.state)
        except RuntimeError as error:
            raise WeightsError(f"{weights.origin} does not fit {spec.name}: {error}") from error
        return LoadedNetwork(
            network=network,
            contract=self.contract(classes=weights.classes(spec)),
            labels=read_labels(published_labels(spec)),
            weights=weights.origin,
            weights_sha256=weights.sha256,
            weights_prefix=weights.stripped,
        )

    def contract(self, *, classes: int) -> ClipContract:
        """The contract with these weights."""
        return contract_of(self.spec, self.weights, classes=classes)

    def recipe_files(self) -> list[Path]:
        """The adapter's."""
        return adapter_of(self.spec).recipe_files()

    def describes(self, record: Mapping[str, Any]) -> bool:
        """The recipe determines random weights; others are compared by their file. Raises WeightsError."""
        checkpoint = find_checkpoint(self.spec, self.weights)
        return record.get("weights") == origin_of(self.spec, self.weights) and (
            checkpoint is None or record.get("weights_sha256") == file_hash(checkpoint)
        )
