"""What is in the distributions, and what is not."""

import os
import subprocess
import sys
import tarfile
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.packaging.conftest import ROOT, Distributions

PACKAGES = ["clipserve", "clipserve_export", "clipserve_host", "clipserve_server", "clip_decode"]
WEIGHTS = (".pt", ".pth", ".onnx", ".engine", ".plan")


@pytest.fixture(scope="module")
def wheel_files(distributions: Distributions) -> list[str]:
    with ZipFile(distributions.wheel) as wheel:
        return wheel.namelist()


@pytest.fixture(scope="module")
def sdist_files(distributions: Distributions) -> list[str]:
    """Without the folder that all are in."""
    with tarfile.open(distributions.sdist) as sdist:
        return [name.partition("/")[2] for name in sdist.getnames()]


def test_the_wheel_has_these_packages_and_no_other(wheel_files: list[str]) -> None:
    assert {name.partition("/")[0] for name in wheel_files if ".dist-info" not in name} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_marked_as_typed(wheel_files: list[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel_files


@pytest.mark.parametrize(
    "package_folder", ["client/clipserve", "export/clipserve_export", "model_repository/decode/1/packages/clip_decode"]
)
def test_the_wheel_has_every_file_of_a_package(wheel_files: list[str], package_folder: str) -> None:
    """Templates, styles, labels and the weights of `motion` as well as modules."""
    folder = ROOT / package_folder
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = {f"{folder.name}/{path.relative_to(folder)}" for path in files}
    assert names <= set(wheel_files)


def test_an_export_from_the_wheel_puts_the_python_models_into_a_repository(
    distributions: Distributions, tmp_path: Path
) -> None:
    with ZipFile(distributions.wheel) as wheel:
        wheel.extractall(tmp_path / "site-packages")
    place = "from pathlib import Path; from clipserve_export import repository; repository.write_configs(Path('made'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site-packages")}
    subprocess.run([sys.executable, "-c", place], cwd=tmp_path, env=environment, check=True)
    for model in ("decode", "timeline"):
        expected, made = ROOT / "model_repository" / model / "1", tmp_path / "made" / model / "1"
        code = {str(path.relative_to(expected)): path.read_text() for path in expected.rglob("*.py")}
        assert "model.py" in code
        assert {str(path.relative_to(made)): path.read_text() for path in made.rglob("*.py")} == code


@pytest.mark.parametrize("kind", ["wheel_files", "sdist_files"])
def test_the_only_weights_are_those_of_motion(request: pytest.FixtureRequest, kind: str) -> None:
    weights = [name for name in request.getfixturevalue(kind) if name.endswith(WEIGHTS)]
    assert [name.rpartition("/")[2] for name in weights] == ["motion.pt"]


@pytest.mark.parametrize(
    "name", ["LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "model_repository/decode/1/model.py"]
)
def test_the_sdist_has(sdist_files: list[str], name: str) -> None:
    assert name in sdist_files


def test_the_metadata_names_licence_and_authors(distributions: Distributions) -> None:
    with ZipFile(distributions.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(wheel.read(name).decode())
        licences = [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "clipserve developers"
    assert len(licences) == 1


def test_the_client_alone_needs_tritonclient_and_numpy(distributions: Distributions) -> None:
    with ZipFile(distributions.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(wheel.read(name).decode())
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(need.split("[")[0].split(">")[0] for need in needs) == ["numpy", "tritonclient"]
