"""What the fixture `service` gives: a running Triton with the models that the chosen tests ask for."""

from dataclasses import dataclass
from pathlib import Path

from clipserve_export.formats import FormatName
from clipserve_server.triton import Triton


@dataclass(frozen=True)
class Service:
    """A Triton with several models, all in one format."""

    format_name: FormatName
    repository: Path
    url: str
    triton: Triton
    models: tuple[str, ...]
