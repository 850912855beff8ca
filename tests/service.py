"""What the fixture `service` gives: a running Triton with every model."""

from dataclasses import dataclass
from pathlib import Path

from clipserve_export.formats import FormatName
from clipserve_export.specs import ModelSpec
from clipserve_server.triton import Triton


@dataclass(frozen=True)
class Service:
    """A Triton with every model of the specs, all in one format."""

    format_name: FormatName
    repository: Path
    url: str
    triton: Triton


def weights_for(spec: ModelSpec) -> str:
    """Tests download nothing: published weights for `motion`, which come with the code, random ones otherwise."""
    return "pretrained" if spec.family == "motion" else "random"
