"""A model gets into the repository whole or not at all."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.exports import copy_model

from clipserve_export import exporting
from clipserve_export.configs import parse_config
from clipserve_export.errors import ParityError
from clipserve_export.exporting import export_model
from clipserve_export.formats import FORMATS, Format, FormatName, load_onnx, write_onnx
from clipserve_export.network import ActionNetwork
from clipserve_export.repository import publish, staging
from clipserve_export.specs import SPECS, Geometry

MOTION = SPECS["motion"]


def export_motion(repository: Path, format_name: FormatName = "torchscript", *, reuse: bool = False) -> bool:
    record = export_model(
        MOTION,
        format_name=format_name,
        weights_source="pretrained",
        labels_file=None,
        repository=repository,
        reuse=reuse,
    )
    return record is not None


def write_a_wrong_network(network: ActionNetwork, geometry: Geometry, path: Path) -> None:
    network.projection.bias[0] += 0.5
    try:
        write_onnx(network, geometry, path)
    finally:
        network.projection.bias[0] -= 0.5


def test_an_export_that_computes_something_else_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Format("onnx", "onnxruntime", "model.onnx", write_a_wrong_network, load_onnx)
    monkeypatch.setitem(exporting.FORMATS, "onnx", wrong)
    with pytest.raises(ParityError, match="nothing was written"):
        export_motion(tmp_path, "onnx")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


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


def test_an_onlooker_never_sees_half_a_model(repositories: Callable[[FormatName], Path], tmp_path: Path) -> None:
    """Formats alternate, so that config and file must change together. Only what an export does in the end is done."""
    copy_model(repositories("torchscript"), tmp_path)
    labels = (tmp_path / MOTION.net_name / "labels.txt").read_text().splitlines()
    net, finished, torn, looks = tmp_path / "motion_net", threading.Event(), [], 0

    def look() -> None:
        nonlocal looks
        while not finished.is_set():
            try:
                before = (net / "1").stat().st_ino
                config = parse_config((net / "config.pbtxt").read_text())
                size = (net / "1" / config.default_model_filename).stat().st_size
                record = json.loads((net / "1" / "export.json").read_text())
                after = (net / "1").stat().st_ino
            except FileNotFoundError:
                # Allowed only where the version folder itself was away.
                continue_ok = not (net / "1").exists() or (net / "1").stat().st_mtime > started
                if not continue_ok:
                    torn.append("a file is missing")
                continue
            if before == after:
                looks += 1
                if size != record["file_bytes"] or FORMATS[record["format"]].backend != config.backend:
                    torn.append(f"{config.backend} config beside a {record['format']} file of {size} bytes")

    started = time.time()
    onlooker = threading.Thread(target=look)
    onlooker.start()
    try:
        names: tuple[FormatName, FormatName] = ("onnx", "torchscript")
        for format_name in names * 50:
            with staging(tmp_path, MOTION) as staged:
                shutil.copytree(repositories(format_name) / MOTION.net_name / "1", staged, dirs_exist_ok=True)
                publish(tmp_path, MOTION, FORMATS[format_name], labels, staged)
    finally:
        finished.set()
        onlooker.join()
    assert torn == []
    assert looks > 100


def test_an_export_killed_in_the_middle_leaves_the_old_model_and_no_debris_for_long(
    repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    copy_model(repositories("torchscript"), tmp_path)
    published = (tmp_path / "motion_net" / "1" / "export.json").read_text()
    command = [sys.executable, "-m", "clipserve", "export", "motion", "--repository", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "motion_net").glob(".staging-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "motion_net" / "1" / "export.json").read_text() == published
    assert list((tmp_path / "motion_net").glob(".staging-*"))
    export_motion(tmp_path)
    assert not list((tmp_path / "motion_net").glob(".staging-*"))
