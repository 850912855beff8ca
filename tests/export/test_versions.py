"""Versions of a network: published beside each other, rolled out and back under load by a real Triton."""

import shutil
from pathlib import Path

import pytest

from clipserve import VideoClassifier
from clipserve.errors import InvalidRequest
from clipserve_export.errors import RepositoryError
from clipserve_export.exporting import export_network
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.records import published_numbers
from clipserve_export.repository import read_config
from clipserve_export.serving.choices import Serving
from clipserve_export.sources import PublishedSource
from clipserve_export.versions import explain_publication, reload_model
from tests.crowd import CALLERS, Crowd
from tests.export.conftest import MOTION, Run
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.ports import find_free_ports

# Of a video that moves left: the true answer, and that of the weights which are off by one class.
FIRST, SECOND = "moving left", "moving right"


@pytest.fixture(scope="module")
def two_versions(onnx_repository: Path, other_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`motion` with the other weights as version 2, of which nobody has been told. Not to be changed."""
    folder = tmp_path_factory.mktemp("versions")
    for name in ("decode", "motion", "motion_net"):
        shutil.copytree(onnx_repository / name, folder / name)
    export_network(
        PublishedSource(MOTION, str(other_weights)),
        format_name="onnx",
        repository=folder,
        version_number=2,
        serving=Serving(keep="1"),
    )
    return folder


@pytest.fixture
def versions(two_versions: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(two_versions, tmp_path / "repository"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "left.mp4"
    write_motion_video(path, "moving left", 1_234_567)
    return path


@pytest.mark.long
def test_a_version_is_rolled_out_and_back_by_one_line_each_and_no_request_fails(
    versions: Path, video: Path, run: Run
) -> None:
    with (
        KilledTriton(versions, models=["motion"], **ANY_PORTS) as triton,
        Crowd(triton.grpc_url, video) as crowd,
    ):
        assert crowd.more(FIRST)
        assert crowd.answers[SECOND] == 0
        for policy, answer in (("2", SECOND), ("1", FIRST), ("latest", SECOND), ("1", FIRST), ("all", SECOND)):
            options = ("--serve", policy, "--reload", triton.grpc_url, "--repository", versions)
            status, said = run("versions", "motion", *options)
            assert status == 0, said
            other = FIRST if answer == SECOND else SECOND
            before = crowd.answers[other]
            assert crowd.more(answer, 40)
            assert crowd.answers[other] <= before + CALLERS, "the old version answers more than was in flight"
    assert not crowd.failures
    assert set(crowd.answers) == {FIRST, SECOND}


def test_a_version_that_does_not_load_leaves_the_one_before_it_serving(versions: Path, video: Path, run: Run) -> None:
    (versions / "motion_net" / "2" / "model.onnx").write_bytes(b"no network")
    with KilledTriton(versions, models=["motion"], **ANY_PORTS) as triton, Crowd(triton.grpc_url, video) as crowd:
        options = ("--serve", "2", "--reload", triton.grpc_url, "--repository", versions)
        status, said = run("versions", "motion", *options)
        assert status == 1
        assert "could not reload motion" in said
        assert crowd.more(FIRST)
    assert not crowd.failures
    assert set(crowd.answers) == {FIRST}


def test_the_list_says_what_each_version_is_and_which_answers(versions: Path, run: Run) -> None:
    _, said = run("versions", "--repository", versions)
    assert "motion 1 answers onnx fp32 weights pretrained (motion.pt)" in said
    assert "motion 2 not loaded onnx fp32 weights file (rolled.pt)" in said
    _, said = run("versions", "motion", "--serve", "all", "--repository", versions)
    assert "motion 1 loaded onnx" in said
    assert "motion 2 answers onnx" in said
    assert "a server that runs answers as before until it reloads the model: --reload HOST:PORT" in said
    assert run("export", "--check", "--repository", versions)[0] == 0, "the models that are not here are not checked"


def test_an_empty_list_says_where_it_looked(tmp_path: Path, run: Run) -> None:
    assert run("versions", "motion", "--repository", tmp_path)[1].startswith(f"no version of motion is in {tmp_path}")
    assert run("versions", "--repository", tmp_path / "absent")[1].startswith("no version of any model is in")


@pytest.mark.parametrize("command", [["versions"], ["models"], ["models", "motion"], ["export", "--check"]])
def test_a_version_that_cannot_be_read_is_named(versions: Path, run: Run, command: list[str]) -> None:
    """A file stands for a folder of another user here, because the tests may run as root."""
    (versions / "motion_net" / "7").touch()
    status, output = run(*command, "--repository", versions)
    assert status in (1, 2)
    assert f"{versions / 'motion_net' / '7'} cannot be read: Not a directory" in output


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ("3", "motion has no version 3; there are 1, 2: publish it first, with --version 3 of export, adopt or fit"),
        ("newest", "give latest:K"),
        ("1,9", "no version 9"),
        ("latest:99999999999", "K has at most 9 digits"),
    ],
)
def test_a_version_that_is_not_there_is_not_chosen(versions: Path, run: Run, serve: str, said: str) -> None:
    before = (versions / "motion_net" / "config.pbtxt").read_text()
    status, output = run("versions", "motion", "--serve", serve, "--repository", versions)
    assert status == 1
    assert said in output
    assert (versions / "motion_net" / "config.pbtxt").read_text() == before


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        (b"secret\n", 1, "could not reload motion: failed to connect"),
        (b"secret\nanother\n", 2, "must hold the key alone, in one line of printable ASCII"),
        (b"\xff\xfe\x00", 2, "must hold the key alone, in one line of printable ASCII"),
    ],
)
def test_headers_may_have_capitals_and_a_key_is_one_line(
    tmp_path: Path, run: Run, key: bytes, status: int, said: str
) -> None:
    """No server is there."""
    (tmp_path / "key").write_bytes(key)
    options = ("--header", "Authorization: Bearer x", "--key-file", tmp_path / "key", "--repository", tmp_path)
    found, output = run("versions", "motion", "--reload", f"127.0.0.1:{find_free_ports(1)[0]}", *options)
    assert (found, said in output) == (status, True), output


@pytest.mark.parametrize("url", ["http://localhost:8001", "localhost", "localhost:8001,"])
def test_an_address_that_is_none_is_refused_before_anything_changes(versions: Path, run: Run, url: str) -> None:
    before = (versions / "motion_net" / "config.pbtxt").read_text()
    status, output = run("versions", "motion", "--serve", "1", "--reload", url, "--repository", versions)
    assert (status, "--reload must be host:port" in output) == (2, True), output
    assert (versions / "motion_net" / "config.pbtxt").read_text() == before


def test_several_servers_reload_a_model_by_one_command(versions: Path, run: Run) -> None:
    with (
        KilledTriton(versions, models=["motion"], **ANY_PORTS) as one,
        KilledTriton(versions, models=["motion"], **ANY_PORTS) as other,
    ):
        urls = f"{one.grpc_url},{other.grpc_url}"
        status, output = run("versions", "motion", "--serve", "2", "--reload", urls, "--repository", versions)
        assert status == 0, output
        for triton in (one, other):
            with VideoClassifier("motion", triton.grpc_url) as classifier:
                assert classifier.model_version() == "2"


def test_the_headers_of_a_reload_are_those_that_can_be_sent() -> None:
    with pytest.raises(RepositoryError, match="failed to connect"):
        reload_model(MOTION, f"127.0.0.1:{find_free_ports(1)[0]}", headers={"Authorization": "Bearer x"})
    with pytest.raises(InvalidRequest, match="printable ASCII"):
        reload_model(MOTION, "127.0.0.1:1", headers={"authorization": "Bearer x\n"})


def test_a_version_that_another_program_moves_away_after_its_publication_is_no_error(versions: Path) -> None:
    shutil.rmtree(versions / "motion_net" / "2")
    assert explain_publication(versions, MOTION, 2) == []


def test_versions_share_a_format_and_labels(versions: Path, run: Run, tmp_path: Path) -> None:
    options = ("--repository", versions, "--version", 3)
    status, said = run("export", "motion", "--format", "torchscript", *options)
    assert (status, published_numbers(versions, MOTION)) == (1, [1, 2])
    assert "version 1 of motion is not torchscript" in said
    for number in "12":  # the file of an earlier export, which the version does not answer with
        (versions / "motion_net" / number / "model.pt").write_bytes(b"")
    assert "version 1 of motion is not torchscript" in run("export", "motion", "--format", "torchscript", *options)[1]
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {number}\n" for number in range(12)))
    status, said = run("export", "motion", "--labels", labels, *options)
    assert (status, published_numbers(versions, MOTION)) == (1, [1, 2])
    assert "names other classes than this network has (class 0 is 'moving left' there, and 'class 0' here)" in said
    assert not list((versions / "motion_net").glob(".staging-*"))


@pytest.mark.long
def test_an_export_names_its_version_and_says_where_it_does_not_answer(
    repository: Path, run: Run, other_weights: Path
) -> None:
    options = ("motion", "--repository", repository)
    first = (repository / "motion_net" / "1" / "model.onnx").read_bytes()
    assert "clipserve versions" not in run("export", *options, "--weights", other_weights, "--version", 2)[1]
    assert not read_config(repository, "motion_net").HasField("version_policy"), "the newest is Triton's own choice"
    assert (repository / "motion_net" / "1" / "model.onnx").read_bytes() == first
    run("versions", *options, "--serve", "1")
    # Without a number it is the newest that is made anew; it does not come back by being exported.
    status, said = run("export", *options)
    assert status == 0
    assert "version 2 does not answer, by the version policy 1: clipserve versions motion --serve 2" in said
    assert published_numbers(repository, MOTION) == [1, 2]
