"""A head behind the file of its trunk: both formats, several views, and a head on a model that has one."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from clipserve.fitting import Head
from clipserve_export.clips import random_clips
from clipserve_export.errors import ContractError, RepositoryError, VersionError
from clipserve_export.exporting import export_network
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.own.fitted import Trunk, find_trunk, publish_head
from clipserve_export.repository import find_drift, find_spec, read_chosen
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import SPECS
from tests.export.small_heads import D, make_head, publish
from tests.exports import copy_model


@pytest.fixture(params=["onnx", "torchscript"])
def repository(request: pytest.FixtureRequest, repositories: Callable[[FormatName], Path], tmp_path: Path) -> Path:
    """With `motion`, to change."""
    return copy_model(repositories(request.param), tmp_path / "repository")


def require_head(trunk: Trunk, file: Path, head: Head) -> None:
    """The file's scores are those of the head for the features of each view, averaged over views."""
    run, trunk_run = trunk.form.load(file), trunk.form.load(trunk.path)
    for batch, views in ((1, 1), (3, 1), (2, 3)):
        clip = random_clips(trunk.spec.geometry, batch=batch, views=views, seed=batch).numpy()
        scores, features = run(clip)
        np.testing.assert_allclose(features, trunk_run(clip)[1], atol=1e-5)
        by_view = [head.score(trunk_run(clip[:, view : view + 1])[1]) for view in range(views)]
        np.testing.assert_allclose(scores, np.mean(by_view, axis=0), atol=1e-5)
        assert scores.shape == (batch, len(head.classes))


def test_the_file_is_the_trunk_with_the_head_behind_it(repository: Path) -> None:
    head = make_head()
    file = publish(repository, head, accuracy="top-1 90.0", protocol=("clip", 3, 1), report='{"on": "motion"}')
    require_head(find_trunk(repository, "motion", name="mine"), file, head)
    assert (repository / "mine_net" / "labels.txt").read_text() == "a\nb\nc\n"
    assert (file.parent / "fit.json").read_text() == '{"on": "motion"}'
    chosen = read_chosen(repository, find_spec(repository, "mine"))
    assert chosen is not None
    contract = chosen.contract
    assert (contract.classes, contract.views, contract.accuracy) == (3, 3, "top-1 90.0")
    assert contract.weights_source.startswith("clipserve fit on motion")
    assert find_drift(repository) == []


def test_a_head_on_a_model_with_a_head(repository: Path) -> None:
    """It takes the same features, and leaves nothing of the first head in the file. It may equal the first."""
    publish(repository, make_head())
    publish(repository, make_head(), on="mine", name="equal")
    head = make_head(8, seed=1)
    file = publish(repository, head, on="mine", name="another")
    assert find_drift(repository) == [], "the order of models is not that of their publication"
    require_head(find_trunk(repository, "motion", name="x"), file, head)
    if file.suffix == ".onnx":
        shapes = [tuple(tensor.dims) for tensor in onnx.load(file).graph.initializer]
        assert (D, 8) in shapes
        assert not {(D, 3), (D, 12), (12, D)} & set(shapes)


def test_versions_share_their_classes_and_leave_others_alone(repository: Path) -> None:
    publish(repository, make_head())
    assert publish(repository, make_head(seed=1)).parent.name == "2"
    trunk = find_trunk(repository, "motion", name="mine")
    with pytest.raises(VersionError, match=r"names other classes.*or choose another --name"):
        publish_head(trunk, make_head(4), "mine")
    assert sorted(path.name for path in (repository / "mine_net").glob("[0-9]*")) == ["1", "2"]


def test_heads_that_are_published_at_the_same_time_become_versions_of_their_own(repository: Path) -> None:
    heads = [make_head(seed=seed) for seed in range(3)]
    trunk, together = find_trunk(repository, "motion", name="mine"), threading.Barrier(len(heads))

    def publish_one(seed: int) -> int:
        def wait_for_others(step: str) -> None:
            if step == "publishing":
                together.wait(timeout=120)

        record = publish_head(trunk, heads[seed], "mine", report=str(seed), progress=wait_for_others)
        return record.version

    with ThreadPoolExecutor(len(heads)) as pool:
        numbers = list(pool.map(publish_one, range(len(heads))))
    assert sorted(numbers) == [1, 2, 3]
    for seed, number in enumerate(numbers):
        folder = repository / "mine_net" / str(number)
        assert (folder / "fit.json").read_text() == str(seed)
        assert json.loads((folder / "export.json").read_text())["version"] == number
        require_head(trunk, folder / trunk.form.filename, heads[seed])


def test_a_head_is_refused_where_others_published_other_classes_meanwhile(repository: Path) -> None:
    trunk = find_trunk(repository, "motion", name="mine")

    def publish_others(step: str) -> None:
        if step == "publishing":
            publish(repository, make_head(4))

    with pytest.raises(VersionError, match="names other classes"):
        publish_head(trunk, make_head(3), "mine", progress=publish_others)
    assert sorted(path.name for path in (repository / "mine_net").iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    assert (repository / "mine_net" / "labels.txt").read_text() == "a\nb\nc\nd\n"


@pytest.mark.long
@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_a_trunk_in_half_precision(format_name: FormatName, tmp_path: Path) -> None:
    export_network(PublishedSource(SPECS["motion"]), format_name=format_name, repository=tmp_path, precision="fp16")
    file = publish(tmp_path, make_head())
    trunk = find_trunk(tmp_path, "motion", name="mine")
    assert trunk.precision == "fp16"
    require_head(trunk, file, make_head())


def test_what_has_no_features_or_no_version_is_no_trunk(repository: Path) -> None:
    for on, error, said in (
        ("x3d_m", RepositoryError, "has no version of x3d_m"),
        ("nothing", RepositoryError, "there is no model 'nothing'"),
    ):
        with pytest.raises(error, match=said):
            find_trunk(repository, on, name="mine")
    for name in ("motion", "decode", "a/b", "mine_net", ""):
        with pytest.raises(ContractError, match="--name"):
            find_trunk(repository, "motion", name=name)
    assert set(FORMATS) == {"onnx", "torchscript"}
