"""What tests of exports share: a repository with `motion` to change, the command line, a second set of weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from clipserve_export.adopt_command import adopt
from clipserve_export.command_line import export
from clipserve_export.models_command import models
from clipserve_export.specs import SPECS
from clipserve_export.versions_command import versions
from clipserve_export.weights import pretrained_path
from tests.exports import copy_model

MOTION = SPECS["motion"]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run() -> Run:
    """`clipserve` with these arguments: its status and what it said, in one line."""
    app = Typer(add_completion=False)
    app.command()(export)
    app.command()(adopt)
    app.command()(models)
    app.command()(versions)

    def invoke(*arguments: str | Path | int) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, " ".join(result.output.split())

    return invoke


@pytest.fixture
def repository(onnx_repository: Path, tmp_path: Path) -> Path:
    """A repository with `motion` alone, as ONNX, to change."""
    return copy_model(onnx_repository, tmp_path, timeline=True)


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `motion` that gives each class the score of the next one."""
    state = torch.load(pretrained_path(MOTION), weights_only=True)
    state = state.get("model_state", state)
    for part in ("weight", "bias"):
        state[f"blocks.5.proj.{part}"] = state[f"blocks.5.proj.{part}"].roll(1, 0)
    path = tmp_path_factory.mktemp("weights") / "rolled.pt"
    torch.save(state, path)
    return path
