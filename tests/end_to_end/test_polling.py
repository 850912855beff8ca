"""A server in poll mode loads every export, in either format, and loses no request meanwhile."""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve_export.access import locked
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.publication import publish, staging
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton
from tests.crowd import Crowd
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.watching import wait_for

MOTION = SPECS["motion"]
NAMES: tuple[FormatName, ...] = ("torchscript", "onnx")
LABEL = "moving left"  # of the video


class PollingTriton(KilledTriton):
    """As deployments run it: the repository is looked at every second."""

    def _arguments(self, folder: Path, backends: Path) -> list[str]:
        explicit = ("--load-model", "--model-control-mode")
        kept = [argument for argument in super()._arguments(folder, backends) if not argument.startswith(explicit)]
        return [*kept, "--model-control-mode=poll", "--repository-poll-secs=1", "--exit-on-error=false"]


class Exporter:
    """Publishes networks that were exported before, as an export does in the end."""

    def __init__(self, repository: Path, prepared: dict[FormatName, Path]) -> None:
        self.repository, self._prepared = repository, prepared

    def publish(self, name: FormatName) -> None:
        labels = (self.repository / MOTION.net_name / "labels.txt").read_text().splitlines()
        with staging(self.repository, MOTION) as staged:
            shutil.copytree(self._prepared[name], staged, dirs_exist_ok=True)
            with locked(self.repository):
                publish(self.repository, MOTION, FORMATS[name], labels, staged)


@pytest.fixture(scope="module")
def prepared(repositories: Callable[[FormatName], Path]) -> dict[FormatName, Path]:
    """The version folder of `motion` in each format."""
    return {name: repositories(name) / MOTION.net_name / "1" for name in NAMES}


@pytest.fixture
def triton(motion_repository: Path) -> Iterator[Triton]:
    with PollingTriton(motion_repository, **ANY_PORTS) as triton:
        yield triton


def serves(triton: Triton, name: FormatName) -> bool:
    """Whether the network in this format is what the server has loaded."""
    with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        try:
            backend = client.get_model_config(MOTION.net_name).config.backend
            return backend == FORMATS[name].backend and client.is_model_ready("motion")
        except InferenceServerException:
            return False


@pytest.mark.long
def test_exports_in_alternating_formats_cost_no_request(
    triton: Triton, prepared: dict[FormatName, Path], video: Path
) -> None:
    exporter, chance = Exporter(triton.repository, prepared), random.Random(3)
    with Crowd(triton.grpc_url, video) as crowd:
        for name in NAMES:
            exporter.publish(name)
            assert wait_for(lambda name=name: serves(triton, name)), f"{name} is not served"  # type: ignore[misc]
        # Faster than the server takes them up, and at any moment of its look around.
        for turn in range(8):
            exporter.publish(NAMES[turn % 2])
            time.sleep(chance.uniform(0, 1.5))
        assert wait_for(lambda: serves(triton, NAMES[1]))
        assert crowd.more(LABEL)
    assert all(error.retryable for error in crowd.failures)
    assert set(crowd.answers) == {LABEL}
    assert crowd.answers[LABEL] > 20 * len(crowd.failures)


def test_a_server_that_looks_in_the_instant_without_a_version_serves_what_it_has(
    triton: Triton, prepared: dict[FormatName, Path], video: Path
) -> None:
    """The instant between an export's two renames, drawn out to three looks, and one at the next format."""
    net = triton.repository / MOTION.net_name
    with Crowd(triton.grpc_url, video) as crowd:
        assert crowd.more(LABEL)
        (net / "1").rename(net / ".away")
        time.sleep(3.5)
        assert serves(triton, "onnx")
        assert crowd.more(LABEL)
        (net / ".away").rename(net / "1")
        Exporter(triton.repository, prepared).publish("torchscript")
        assert wait_for(lambda: serves(triton, "torchscript"))
    assert not crowd.failures
    assert set(crowd.answers) == {LABEL}
