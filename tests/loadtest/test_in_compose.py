"""The compose service `loadtest` against the compose service `server`, in a real Docker engine.

Runs with CLIPSERVE_COMPOSE set, as tests/deploy/test_compose.py does, whose stack it takes.
"""

import csv
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.bases import RELEASE, SLIM
from tests.deploy.conftest import bouncing  # noqa: F401
from tests.deploy.engine import run
from tests.deploy.stack import stack  # noqa: F401
from tests.loadtest.conftest import CACHE

HERE = Path(__file__).parent
SDK = f"nvcr.io/nvidia/tritonserver:{RELEASE}-py3-sdk"

pytestmark = pytest.mark.skipif(not os.environ.get("CLIPSERVE_COMPOSE"), reason="make test-compose runs it")


@pytest.fixture(scope="module")
def loaded(stack, analyzer):  # noqa: F811
    """A healthy server, and the image of the load test on one like NVIDIA's SDK image."""
    context = stack.repository.parent / "sdk"
    shutil.copytree(CACHE / "clipserve" / "perf_analyzer" / "unpacked", context / "unpacked")
    build = ["build", "-q", "--network=host", f"--build-arg=SLIM_IMAGE={SLIM}", f"--tag={SDK}"]
    classic = {**stack.environment, "DOCKER_BUILDKIT": "0"}
    run("docker", *build, f"--file={HERE / 'sdk.Dockerfile'}", context, env=classic)
    results = stack.repository.parent / "results"
    results.mkdir()
    run("chown", "1000:1000", results)
    files = f"{stack.environment['COMPOSE_FILE']}{os.pathsep}tests/loadtest/docker-compose.loadtest.yml"
    stack.environment |= {"COMPOSE_FILE": files, "TEST_RESULTS": str(results)}
    stack.compose("--profile", "loadtest", "build", "loadtest")
    stack.compose("up", "-d", "--wait", "server")
    yield stack
    stack.docker("rmi", "-f", SDK, check=False)


def test_the_load_test_runs_confined_against_the_server(loaded):
    done = loaded.compose(
        *("run", "--rm", "loadtest", "--model", "motion", "--seconds", "2", "--concurrency", "1,2"),
        *("--rate", "10", "--search-steps", "1", "--latency-limit", "3600000"),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "accuracy check passed" in done.stdout
    (folder,) = (loaded.repository.parent / "results").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        *("facts.json", "latency.png", "load.csv", "load.html", "raw", "split.png")
    }
    rows = list(csv.DictReader((folder / "load.csv").open()))
    assert {row["through"] for row in rows if not row["failure"]} == {"ensemble", "decode", "net"}


def test_a_wrong_key_is_told_in_a_sentence(loaded, tmp_path):
    wrong = tmp_path / "admin_key"
    wrong.write_text("another")
    wrong.chmod(0o644)
    place = f"{wrong}:/another:ro"
    done = loaded.compose("run", "--rm", "-v", place, "loadtest", "--key-file", "/another", check=False)
    assert done.returncode == 2
    assert "its admin key" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_repository_is_written_to(loaded):
    assert [path.name for path in (ROOT / "deploy" / "loadtest" / "results").iterdir()] == [".gitignore"]
