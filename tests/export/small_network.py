"""A network of one's own: its code, contract and labels, and its publication."""

from pathlib import Path

from clipserve_export.exporting import export_network
from clipserve_export.formats import FormatName
from clipserve_export.own.contract_file import read_contract_file
from clipserve_export.own.source import OwnSource, own_spec

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(12, 3)

    def forward(self, frames):
        return self.head(frames.mean((3, 4)).flatten(1))


def build():
    return Net()


def without_embedding():
    return nn.Sequential(Net(), nn.Tanh())
"""
CONTRACT = "frames = 4\nstride = 8\nshort_side = 40\ncrop = 32\nmean = [0.4, 0.5, 0.6]\nweights_licence = 'MIT'\n"


def publish_network(
    repository: Path, folder: Path, name: str, function: str, format_name: FormatName = "torchscript"
) -> None:
    """Export the network that a function of nets.py returns. Writes nets.py and what belongs to it into `folder`."""
    (folder / "nets.py").write_text(CODE)
    (folder / "nets.toml").write_text(CONTRACT)
    contract, interface = read_contract_file(folder / "nets.toml")
    source = OwnSource(own_spec(name, contract), interface, f"{folder / 'nets.py'}:{function}")
    export_network(source, format_name=format_name, labels=("one", "two", "three"), repository=repository)
