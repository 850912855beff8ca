"""What docs/planning.md shows is what the command prints."""

import pytest
from typer.testing import CliRunner

from clipserve.command_line import build_app
from tests.docs.pages import ROOT, read_blocks


def test_the_page_shows_the_plan_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    block = next(block for block in read_blocks(ROOT / "docs" / "planning.md") if block.output)
    (command,) = block.commands
    shown = CliRunner().invoke(build_app(), command.split()[1:]).stdout
    assert [line.rstrip() for line in shown.splitlines()] == (block.output or "").splitlines()
