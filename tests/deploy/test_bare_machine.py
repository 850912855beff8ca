"""README's two commands on a machine that has what README names: `make test-bare`.

Takes root, debootstrap and a quarter of an hour, so it runs only when CLIPSERVE_BARE is set.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.bare_machine import BareMachine

pytestmark = [
    pytest.mark.skipif(not os.environ.get("CLIPSERVE_BARE"), reason="make test-bare runs it"),
    pytest.mark.timeout(3600),
]
MINUTE = 60.0


@pytest.fixture(scope="module")
def machine() -> Iterator[BareMachine]:
    """Not in pytest's folders, three of which are kept."""
    with tempfile.TemporaryDirectory(prefix="clipserve-bare-") as folder:
        bare = BareMachine(Path(folder))
        bare.make()
        yield bare


def test_without_pythons_library_the_first_words_say_how_to_get_it(machine: BareMachine) -> None:
    """Before anything is installed."""
    hidden = machine.root / "hidden"
    hidden.mkdir()
    for path in machine.root.glob("usr/lib/*/libpython3*"):
        shutil.move(path, hidden)
    try:
        done = machine.run("make demo", seconds=5 * MINUTE)
    finally:
        (folder,) = machine.root.glob("usr/lib/*-linux-gnu")
        for path in hidden.iterdir():
            shutil.move(path, folder)
    assert done.returncode != 0
    assert "apt-get install libpython3." in done.stdout
    assert "installing" not in done.stdout
    assert not (machine.root / "root" / "clipserve" / ".venv").exists()


def test_make_demo_works(machine: BareMachine) -> None:
    done = machine.run("make demo", seconds=40 * MINUTE)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "motion named" in done.stdout


def test_make_test_begins(machine: BareMachine) -> None:
    """Its checks, and the tests that start and end servers. The whole suite takes too long to run it a second time."""
    done = machine.run("make check && .venv/bin/pytest tests/server/test_start.py", seconds=20 * MINUTE)
    assert done.returncode == 0, done.stdout[-4000:]
