"""What tests of timelines share: a fake server, the command, and both classifiers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clipserve.command_line import build_app
from tests.both_classifiers import KINDS, connecting
from tests.ports import find_free_ports
from tests.timeline.fake_timelines import FakeTimelines, start_server
from tests.watching import HANG_SECONDS


@pytest.fixture
def server() -> Iterator[FakeTimelines]:
    """A running server. While a test has stopped it, nobody else gets its port."""
    fake = FakeTimelines()
    fake.running_server = start_server(fake, *find_free_ports(1))
    yield fake
    fake.release.set()
    fake.running_server.stop(None).wait(HANG_SECONDS)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A file that the fake server takes for a video."""
    path = tmp_path / "match.mp4"
    path.write_bytes(b"match")
    return path


@pytest.fixture
def run(server: FakeTimelines) -> Callable[..., Result]:
    """Run `clipserve timeline`."""

    def run_command(*arguments: object) -> Result:
        words = ["timeline", *map(str, arguments), "--url", server.url, "--model", "x3d_m"]
        return CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), words)

    return run_command


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest, server: FakeTimelines) -> Iterator[Callable[..., Any]]:
    """Make a classifier for `server` (or another url); the test runs with each kind."""
    with connecting(request.param, server) as make:
        yield make
