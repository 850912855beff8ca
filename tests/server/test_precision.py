"""The library and the precision in which ONNX networks run on a CPU."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from typer.testing import CliRunner

from clipserve.command_line import build_app
from clipserve_export.clips import random_clips
from clipserve_export.formats import FormatName
from clipserve_export.parity import BF16
from clipserve_export.specs import SPECS
from clipserve_server.backends.openvino_runtime import OpenVinoRuntime
from clipserve_server.errors import ServerStartError
from clipserve_server.options import choose_precision
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton, change_config, infer

MOTION = SPECS["motion"]
CLIP = random_clips(MOTION.geometry, batch=2, views=3, seed=5).numpy()


@pytest.fixture(scope="module")
def exported(repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_model(repositories("onnx"), tmp_path_factory.mktemp("repository"))


def ask(repository: Path, precision: str) -> tuple[np.ndarray, str]:  # type: ignore[type-arg]
    """FEATURES of CLIP, and what Triton wrote into its log."""
    with (
        KilledTriton(repository, **ANY_PORTS, cpu_precision=precision) as triton,
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        return infer(client, CLIP)[1], triton.log_path.read_text()


def difference(one: np.ndarray, other: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.abs(one - other).max() / np.abs(other).max())


@pytest.mark.long
def test_openvino_and_onnx_runtime_give_one_answer(exported: Path, tmp_path: Path) -> None:
    by_openvino, log = ask(exported, "fp32")
    assert "runs in OpenVINO: fp32" in log
    path = exported / "motion_net" / "config.pbtxt"
    text = path.read_text()
    change_config(exported, "motion_net", lambda config: config.ClearField("optimization"))
    try:
        by_onnx_runtime, log = ask(exported, "fp32")
    finally:
        path.write_text(text)
    assert "OpenVINO" not in log
    assert difference(by_openvino, by_onnx_runtime) < 1e-5


@pytest.mark.needs("bf16")
def test_bf16_runs_in_bf16_and_stays_near(exported: Path) -> None:
    in_bf16, log = ask(exported, "bf16")
    assert "runs in OpenVINO: bf16" in log
    in_fp32, _ = ask(exported, "fp32")
    assert 1e-5 < difference(in_bf16, in_fp32) < 2 * BF16.features


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.needs("bf16"))])
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(exported: Path, precision: str) -> None:
    """To the bit: clips that come together take another way than one that comes alone."""
    runtime = OpenVinoRuntime(
        exported / "motion_net" / "1" / "model.onnx", ["SCORES", "FEATURES"], threads=2, precision=precision
    )
    clips = random_clips(MOTION.geometry, batch=5, views=1, seed=6).numpy()
    together = runtime.run({"CLIP": clips})
    alone = [runtime.run({"CLIP": clip[None]}) for clip in clips]
    for column, rows in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(column, np.concatenate(rows))


@pytest.mark.needs("bf16")
def test_an_export_says_whether_its_network_holds_in_bf16(exported: Path) -> None:
    found = json.loads((exported / "motion_net" / "1" / "export.json").read_text())["bf16"]
    assert found["parity"]["feature_error"] > 1e-5
    held = found["parity"]["feature_error"] <= BF16.features and found["parity"]["score_error"] <= BF16.scores
    assert found["holds"] == (held and found["parity"]["top1_agreements"] == found["parity"]["clips"])


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "held", "chosen"),
    [
        ("auto", True, True, "bf16"),
        ("auto", True, False, "fp32"),
        ("auto", True, None, "fp32"),
        ("auto", False, True, "fp32"),
        ("fp32", True, True, "fp32"),
        ("bf16", True, False, "bf16"),
    ],
)
def test_bf16_is_chosen_only_where_the_export_found_it_holds(
    tmp_path: Path, wanted: str, has_bf16: bool, held: bool | None, chosen: str
) -> None:
    record = tmp_path / "export.json"
    record.write_text(json.dumps({"bf16": None if held is None else {"holds": held}}))
    assert choose_precision(wanted, processor_has_bf16=has_bf16, record=record) == chosen


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_without_a_record_of_the_export_auto_is_fp32(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "export.json").write_text(text)
    assert choose_precision("auto", processor_has_bf16=True, record=tmp_path / "export.json") == "fp32"


def test_a_precision_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="does not compute in bf16"):
        choose_precision("bf16", processor_has_bf16=False, record=tmp_path / "export.json")
    with pytest.raises(ServerStartError, match="auto, fp32, bf16, got 'fp8'"):
        Triton(tmp_path, cpu_precision="fp8")


def test_the_environment_sets_the_precision_of_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSERVE_CPU_PRECISION", "int8")
    done = CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), ["serve", "--repository", str(tmp_path)])
    assert done.exit_code == 2
    assert "'int8' is not one of" in done.stderr
