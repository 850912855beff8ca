"""`clipserve models` lists what can be exported and what a repository holds."""

import json
from pathlib import Path

import pytest

from clipserve.contract import ClipContract
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS
from tests.export.conftest import Run


def test_every_model_is_listed_with_its_contract_and_what_is_published(repository: Path, run: Run) -> None:
    status, said = run("models", "--repository", repository)
    assert status == 0
    assert all(name in said for name in SPECS)
    assert "75.94" in said
    assert "1: onnx fp32" in said
    assert said.count("onnx fp32") == 1, "only motion was exported"


def test_the_contract_of_a_model_is_printed_whole(repository: Path, run: Run) -> None:
    for name in ("slowfast_r50", "motion"):
        status, said = run("models", name, "--repository", repository)
        assert status == 0
        assert ClipContract.from_values(json.loads(said)) == SPECS[name].contract


@pytest.mark.parametrize("command", [("models",), ("models", "motion"), ("versions",)])
def test_a_config_of_the_decode_step_that_cannot_be_read_is_named(
    repository: Path, run: Run, command: tuple[str, ...]
) -> None:
    (repository / "decode" / "config.pbtxt").write_text("parameters {")
    status, said = run(*command, "--repository", repository)
    assert status > 0
    assert "decode/config.pbtxt is no valid config (line 1:" in said


def test_a_model_that_is_not_there_is_told_what_is(tmp_path: Path, run: Run) -> None:
    write_configs(tmp_path)
    status, said = run("models", "x3d_q", "--repository", tmp_path)
    assert (status, "there is no model 'x3d_q'; there are x3d_xs" in said) == (2, True)
