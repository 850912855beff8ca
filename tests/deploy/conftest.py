"""What runs in the server's container is no installed package: it is found where the image copies it from."""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
sys.path.insert(0, str(DEPLOY / "server"))

from clipserve_container.settings import Settings  # noqa: E402
from clipserve_export.motion.videos import write_motion_video  # noqa: E402
from clipserve_export.repository import write_configs  # noqa: E402
from clipserve_export.specs import SPECS  # noqa: E402
from tests.conftest import required  # noqa: E402
from tests.deploy.certificates import Certificates, make_certificates  # noqa: E402
from tests.deploy.charts import MATRIX, Values  # noqa: E402
from tests.deploy.embedded import EmbeddedServer  # noqa: E402
from tests.deploy.helm import NoHelm, Object, find_helm, render_chart  # noqa: E402
from tests.deploy.stack import exporter, stack  # noqa: E402, F401


@pytest.fixture(scope="session")
def every_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which every model looks exported, for what reads its configs and starts no server."""
    repository = tmp_path_factory.mktemp("every_model")
    write_configs(repository)
    for spec in SPECS.values():
        (repository / spec.net_name / "1").mkdir()
        (repository / spec.net_name / "1" / "model.onnx").touch()
    return repository


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What deploy/tls/make_certificates.sh makes, with a client of each of two authorities."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def validate() -> Iterator[Callable[[Object, str], str]]:
    """Raises an error where this release of Kubernetes refuses an object. Each schema, of megabytes, is read once."""
    from kubernetes_validate import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield lambda item, release: utils.validate(item, release, strict=True)


@pytest.fixture(scope="session")
def bouncing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of which the model `motion` says "bouncing"."""
    path = tmp_path_factory.mktemp("videos") / "bouncing.mp4"
    write_motion_video(path, "bouncing", 100_007)
    return path


@pytest.fixture(scope="module")
def start_server(
    onnx_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., EmbeddedServer]]:
    """Start a Triton with the container's own command line."""
    running: list[EmbeddedServer] = []

    def start(**options: object) -> EmbeddedServer:
        keys = {name: options.pop(name) for name in ("admin_key", "api_key") if name in options}
        settings = Settings(repository=onnx_repository, models=("motion",), gpu="none", **options)  # type: ignore[arg-type]
        running.append(EmbeddedServer(settings, tmp_path_factory.mktemp("server"), **keys))  # type: ignore[arg-type]
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm, of this machine or fetched once."""
    try:
        return find_helm()
    except NoHelm as error:
        (pytest.fail if "helm" in required() else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def render(helm: Path) -> Callable[[Values], list[Object]]:
    """The chart's objects with these values. Raises ChartError."""
    return lambda values: render_chart(helm, values)


@pytest.fixture(scope="session")
def rendered(helm: Path) -> Callable[[str], list[Object]]:
    """The objects with the values of that name in MATRIX, each rendered once. Not to be changed."""
    return cache(lambda name: render_chart(helm, MATRIX[name]))
