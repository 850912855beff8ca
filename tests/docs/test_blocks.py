"""Every block of code in README and docs runs, or says why it cannot."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clipserve import ClipContract
from tests.docs.pages import BLOCKS, ROOT, Block, blocks_of

LANGUAGES = {"python", "console", "text", "mermaid", "toml", "yaml"}
NUMBER = re.compile(r"\d+\.\d+")
TARGETS = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


def read_numbers(text: str) -> list[float]:
    """Those with a point."""
    return [float(number) for number in NUMBER.findall(text)]


def test_blocks_are_of_a_known_language() -> None:
    """Any other would not run, and would not say so."""
    assert {block.language for block in BLOCKS} <= LANGUAGES


@pytest.mark.parametrize("block", blocks_of("python", run=True), ids=str)
def test_python_runs(
    block: Block,
    folder_of: Callable[[str], Path],
    served_here: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder_of(block.page))
    monkeypatch.setenv("COLUMNS", "100")
    code = block.text.replace("localhost:8001", served_here)
    exec(compile("\n" * block.line + code, ROOT / block.page, "exec"), {"__name__": "__main__"})
    if block.output is not None:
        printed = capsys.readouterr().out
        # Scores differ in the third digit between processors.
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", block.output)
        assert read_numbers(printed) == pytest.approx(read_numbers(block.output), abs=0.01)


@pytest.mark.parametrize("block", blocks_of("console", run=True), ids=str)
def test_commands_run(block: Block, folder_of: Callable[[str], Path], served_here: str) -> None:
    """Make targets are looked up only: what they run is in the tests, or takes minutes."""
    made = [command for command in block.commands if command.startswith("make ")]
    targets = TARGETS.findall((ROOT / "Makefile").read_text())
    assert {command.split()[1] for command in made} <= set(targets)
    others = [command for command in block.commands if command not in made]
    if not others:
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(others)],
        cwd=folder_of(block.page),
        env={**os.environ, "PATH": path, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = [line for line in block.text.splitlines() if not line.startswith("$ ")]
    if shown:
        assert done.stdout.splitlines() == shown


@pytest.mark.parametrize("block", blocks_of("yaml", run=True), ids=str)
def test_yaml_can_be_read(block: Block) -> None:
    """tests/deploy/test_chart.py renders the chart with the values in it."""
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_a_contract_can_be_read(block: Block) -> None:
    assert ClipContract.from_values(tomllib.loads(block.text)).frames


@pytest.mark.parametrize("block", blocks_of("python", run=False), ids=str)
def test_what_is_not_run_can_be_imported(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.reason], ids=str)
def test_a_reason_names_tests_that_exist(block: Block) -> None:
    for path in re.findall(r"tests/[\w/.]*\w", block.reason or ""):
        assert (ROOT / path).exists()
