"""A model is published completely, or not at all."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clipserve_export import exporting
from clipserve_export.access import explain_write_errors, is_locked, locked, require_writable
from clipserve_export.configs import parse_config
from clipserve_export.errors import ParityError, RepositoryError
from clipserve_export.exporting import export_network
from clipserve_export.formats import FORMATS, Format, FormatName, load_onnx, write_onnx
from clipserve_export.network import ActionNetwork
from clipserve_export.own.source import own_spec
from clipserve_export.publication import publish, staging
from clipserve_export.repository import read_chosen, read_config, write_configs
from clipserve_export.serving.changes import change_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import SPECS, Geometry, ModelSpec
from tests.exports import copy_model
from tests.watching import wait_for

MOTION = SPECS["motion"]


def export_motion(repository: Path, format_name: FormatName = "torchscript", *, reuse: bool = False) -> bool:
    record = export_network(PublishedSource(MOTION), format_name=format_name, repository=repository, reuse=reuse)
    return record is not None


def write_a_wrong_network(network: ActionNetwork, geometry: Geometry, path: Path, **options: Any) -> None:
    network.projection.bias[0] += 0.5
    try:
        write_onnx(network, geometry, path, **options)
    finally:
        network.projection.bias[0] -= 0.5


def test_an_export_that_computes_something_else_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Format("onnx", "onnxruntime", "model.onnx", write_a_wrong_network, load_onnx)
    monkeypatch.setitem(exporting.FORMATS, "onnx", wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        export_motion(tmp_path, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_an_export_lies_beside_it(tmp_path: Path) -> None:
    export_motion(tmp_path)
    record = json.loads((tmp_path / "motion_net" / "1" / "export.json").read_text())
    assert record["weights"].startswith("pretrained")
    assert len(record["weights_sha256"]) == 64
    assert record["versions"]["torch"].startswith("2.13.0")
    assert 0 < record["parity"]["feature_error"] < 1e-3
    assert record["parity"]["top1_agreements"] == record["parity"]["clips"] > 0
    assert record["file_bytes"] == (tmp_path / "motion_net" / "1" / "model.pt").stat().st_size


def test_reuse_leaves_a_current_export_alone_and_renews_any_other(tmp_path: Path) -> None:
    export_motion(tmp_path)
    before = (tmp_path / "motion_net" / "1" / "model.pt").stat().st_mtime_ns
    assert not export_motion(tmp_path, reuse=True)
    assert (tmp_path / "motion_net" / "1" / "model.pt").stat().st_mtime_ns == before
    assert export_motion(tmp_path, "onnx", reuse=True), "another format is another export"
    assert not export_motion(tmp_path, "onnx", reuse=True)
    assert export_motion(tmp_path), "without reuse it is made anew"


def identify(folder: Path) -> tuple[int, int] | None:
    """Another one for another folder of this name, and None for none. Numbers come back, times do not."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def test_an_onlooker_never_sees_half_a_model(repositories: Callable[[FormatName], Path], tmp_path: Path) -> None:
    """Formats alternate, so that config and file must change together. Only what an export does in the end is done."""
    copy_model(repositories("torchscript"), tmp_path)
    labels = (tmp_path / MOTION.net_name / "labels.txt").read_text().splitlines()
    net, finished, torn, looks = tmp_path / "motion_net", threading.Event(), [], 0

    def look() -> None:
        nonlocal looks
        while not finished.is_set():
            before = identify(net / "1")
            try:
                config = parse_config((net / "config.pbtxt").read_text())
                size = (net / "1" / config.default_model_filename).stat().st_size
                seen = config.backend, size, json.loads((net / "1" / "export.json").read_text())
            except FileNotFoundError as error:
                seen = error
            # What a folder holds counts where it was there the whole time.
            if before is None or identify(net / "1") != before:
                continue
            looks += 1
            if isinstance(seen, FileNotFoundError):
                torn.append(f"{seen.filename} is missing")
            elif seen[1] != seen[2]["file_bytes"] or FORMATS[seen[2]["format"]].backend != seen[0]:
                torn.append(f"{seen[0]} config beside a {seen[2]['format']} file of {seen[1]} bytes")

    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        names: tuple[FormatName, FormatName] = ("onnx", "torchscript")
        for format_name in names * 50:
            with staging(tmp_path, MOTION) as staged:
                shutil.copytree(repositories(format_name) / MOTION.net_name / "1", staged, dirs_exist_ok=True)
                with locked(tmp_path):
                    publish(tmp_path, MOTION, FORMATS[format_name], labels, staged)
        assert wait_for(lambda: looks > 100)
    finally:
        finished.set()
        onlooker.join()
    assert torn == []


def test_programs_that_publish_at_the_same_time_leave_the_configs_of_all(tmp_path: Path) -> None:
    """Each of them reads the config of the decode step, adds its clips, and writes it."""
    specs = [own_spec(f"mine_{side}", replace(MOTION.contract, crop=side)) for side in range(20, 28)]
    together = threading.Barrier(len(specs))

    def publish_one(spec: ModelSpec) -> None:
        with staging(tmp_path, spec) as staged:
            (staged / "model.onnx").write_bytes(b"a network")
            together.wait()
            with locked(tmp_path):
                publish(tmp_path, spec, FORMATS["onnx"], ["yes", "no"], staged)

    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(publish_one, specs))
    outputs = {output.name for output in read_config(tmp_path, "decode").output}
    assert {spec.geometry.output_name for spec in specs} <= outputs
    assert {f"MODEL_{spec.name}" for spec in specs} <= set(read_config(tmp_path, "timeline").parameters)


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_a_version_comes_back_where_the_new_one_did_not_take_its_place(
    repositories: Callable[[FormatName], Path], tmp_path: Path, killed: bool
) -> None:
    """Between two renames of `publish` the program ends, or is killed: then the next export does it."""
    copy_model(repositories("torchscript"), tmp_path)
    net = tmp_path / "motion_net"
    published = (net / "1" / "export.json").read_text()
    if killed:
        (net / ".staging-killed" / "1").mkdir(parents=True)
        (net / "1").rename(net / ".staging-killed" / "replaced-1")
    with suppress(KeyboardInterrupt), staging(tmp_path, MOTION) as staged:
        if not killed:
            (net / "1").rename(staged.parent / "replaced-1")
        raise KeyboardInterrupt
    assert (net / "1" / "export.json").read_text() == published
    assert sorted(path.name for path in net.iterdir()) == ["1", "config.pbtxt", "labels.txt"]


MINE = own_spec("mine", replace(MOTION.contract, crop=30))


def publish_mine(repository: Path, network: str, labels: list[str], serving: Serving) -> None:
    contract = replace(MINE.contract, weights_source=network)
    with explain_write_errors(repository), staging(repository, MINE) as staged:
        (staged / "model.onnx").write_text(network)
        with locked(repository):
            publish(repository, MINE, FORMATS["onnx"], labels, staged, serving=serving, contract=contract)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file, and every folder, which has no bytes."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def test_a_file_of_another_format_stays_where_the_file_system_has_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    publish_mine(tmp_path, "old", ["yes", "no"], Serving())
    with staging(tmp_path, MINE) as staged:
        (staged / "model.pt").write_text("new")
        with locked(tmp_path):
            folder = publish(tmp_path, MINE, FORMATS["torchscript"], ["yes", "no"], staged)
    assert read_tree(folder) == {str(folder / "model.onnx"): b"old", str(folder / "model.pt"): b"new"}


@contextmanager
def failing(number: int, error: BaseException, *, done: bool = False, more: int = 0) -> Iterator[None]:
    """The rename of this number, and so many `more`, raise an error: before it, or when it is `done`."""
    rename, count = os.replace, iter(range(1000))

    def replace_or_fail(*paths: Path) -> None:
        fails = number <= next(count) <= number + more
        if done or not fails:
            rename(*paths)
        if fails:
            raise error

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "replace", replace_or_fail)
        yield


@pytest.mark.parametrize("earlier", [True, False], ids=["replaces", "first"])
@pytest.mark.parametrize(
    ("error", "done"), [(OSError(errno.ENOSPC, "full"), False), (SystemExit(143), True)], ids=["error", "signal"]
)
def test_a_publication_that_ends_between_two_of_its_steps_leaves_everything_as_it_was(
    tmp_path: Path, earlier: bool, error: BaseException, done: bool
) -> None:
    write_configs(tmp_path)
    if earlier:
        publish_mine(tmp_path, "old", ["yes", "no"], Serving())
    before, new, steps = read_tree(tmp_path), ["left", "right", "neither"], 7
    for step in range(steps):
        with failing(step, error, done=done), pytest.raises((SystemExit, RepositoryError)) as raised:
            publish_mine(tmp_path, "new", new, Serving(max_clips=2))
        assert done or "nothing was published" in str(raised.value)
        assert read_tree(tmp_path) == before, f"step {step}"
    with failing(steps, AssertionError("there are more steps")):
        publish_mine(tmp_path, "new", new, Serving(max_clips=2))
    assert (tmp_path / "mine_net" / "1" / "model.onnx").read_text() == "new"
    chosen = read_chosen(tmp_path, MINE)
    assert chosen is not None
    assert (chosen.classes, chosen.serving.max_clips, chosen.contract.weights_source) == (3, 2, "new")


def test_configs_and_code_are_written_completely_or_not_at_all(tmp_path: Path) -> None:
    write_configs(tmp_path)
    code = tmp_path / "decode" / "1" / "model.py"
    code.write_text("# of an older clipserve\n")
    before = read_tree(tmp_path)
    full, said = OSError(errno.ENOSPC, "full"), r"full.*nothing was published"
    with failing(0, full), pytest.raises(RepositoryError, match=said):
        write_configs(tmp_path)
    assert read_tree(tmp_path) == before
    shutil.rmtree(tmp_path / "timeline" / "1")
    before = read_tree(tmp_path)
    with failing(1, full), pytest.raises(RepositoryError, match=said):
        write_configs(tmp_path)
    assert read_tree(tmp_path) == before
    for number in range(1, 4):
        with failing(number, full), pytest.raises(RepositoryError, match=said):
            change_serving(tmp_path, MOTION, lambda _: Serving(max_clips=2, max_batch=4))
        assert read_tree(tmp_path) == before


def test_what_cannot_be_put_back_is_no_publication_of_nothing(tmp_path: Path) -> None:
    write_configs(tmp_path)
    error = PermissionError(errno.EACCES, "Permission denied", "labels.txt")
    said = r"labels.txt cannot be put back \(Permission denied\)"
    with failing(2, error, more=1), pytest.raises(RepositoryError, match=said) as raised:
        publish_mine(tmp_path, "new", ["yes", "no"], Serving(max_clips=2))
    assert "nothing was published" not in str(raised.value)


def test_an_export_keeps_what_was_chosen_while_it_was_at_work(
    repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    copy_model(repositories("torchscript"), tmp_path, timeline=True)

    def choose_meanwhile(step: str) -> None:
        if step == "publishing":
            change_serving(tmp_path, MOTION, lambda present: replace(present, instances=2, keep="1"))

    for serving in (None, lambda present: replace(present, queue_delay=7)):
        change_serving(tmp_path, MOTION, lambda _: Serving())
        export_network(
            PublishedSource(MOTION),
            format_name="torchscript",
            repository=tmp_path,
            serving=serving,
            progress=choose_meanwhile,
        )
        chosen = read_chosen(tmp_path, MOTION)
        assert chosen is not None
        assert chosen.serving == Serving(instances=2, keep="1", queue_delay=7 if serving else 0)


def test_an_export_leaves_the_staged_folder_of_another_alone(tmp_path: Path) -> None:
    """Whether another is at work does not show by the number of its process: in containers they are alike."""
    net = tmp_path / MOTION.net_name
    with staging(tmp_path, MOTION) as one:
        (one / "model.onnx").write_bytes(b"a network")
        (net / ".staging-killed").mkdir()
        with staging(tmp_path, MOTION) as other:
            assert one != other
            assert is_locked(one.parent)
            assert is_locked(other.parent)
        assert (one / "model.onnx").exists()
        assert list(net.iterdir()) == [one.parent]
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_cannot_be_written_is_refused_ahead_of_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "to" / "be" / "made")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match=r"cannot be written: Permission denied .*give another --repository"):
        require_writable(tmp_path / "file" / "repository")


def test_a_repository_on_two_file_systems_is_told_what_to_do(tmp_path: Path) -> None:
    across = OSError(errno.EXDEV, "Invalid cross-device link", "config.pbtxt", None, str(tmp_path / "decode"))
    said = r"Invalid cross-device link \(.*/decode\).*put all folders of the repository on one file system"
    with failing(0, across), pytest.raises(RepositoryError, match=said):
        write_configs(tmp_path)


def test_an_export_killed_in_the_middle_leaves_the_old_model_and_no_debris_for_long(
    repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    copy_model(repositories("torchscript"), tmp_path)
    published = (tmp_path / "motion_net" / "1" / "export.json").read_text()
    command = [sys.executable, "-m", "clipserve", "export", "motion", "--repository", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: list((tmp_path / "motion_net").glob(".staging-*")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "motion_net" / "1" / "export.json").read_text() == published
    assert list((tmp_path / "motion_net").glob(".staging-*"))
    export_motion(tmp_path)
    assert not list((tmp_path / "motion_net").glob(".staging-*"))
