"""Repositories to serve `motion` from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.repository import write_configs
from tests.exports import copy_model


@pytest.fixture(scope="module")
def exported(repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which `motion` alone is exported."""
    folder = tmp_path_factory.mktemp("exported")
    copy_model(repositories("onnx"), folder)
    write_configs(folder)
    return folder


@pytest.fixture
def repository(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "repository"))
