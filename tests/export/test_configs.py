"""The committed repository agrees with the specs, and the check notices when it does not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from clipserve_export.command_line import export
from clipserve_export.configs import parse_config
from clipserve_export.records import published_numbers
from clipserve_export.repository import find_drift, read_chosen, write_configs
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import SPECS

COMMITTED = Path(__file__).parents[2] / "model_repository"
KINETICS_FACTS = {"archery": 5, "deadlifting": 88, "sharpening knives": 290, "eating ice cream": 115}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The committed repository without its networks."""
    target = tmp_path / "model_repository"
    shutil.copytree(COMMITTED, target, ignore=lambda folder, names: {"1"} if folder.endswith("_net") else set())
    return target


def run(*arguments: str | Path) -> tuple[int, str]:
    app = Typer(add_completion=False)
    app.command()(export)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_the_committed_repository_has_not_drifted_from_the_specs() -> None:
    assert find_drift(COMMITTED) == []


def test_the_committed_configs_of_models_that_are_not_exported_have_the_default_options() -> None:
    for spec in SPECS.values():
        chosen = read_chosen(COMMITTED, spec)
        assert chosen is not None
        assert published_numbers(COMMITTED, spec) or chosen.serving == Serving()


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("x3d_m_net/config.pbtxt", ("dims: 16", "dims: 17")),
        ("x3d_m/config.pbtxt", ("CLIP_16X5_256_256", "CLIP_16X5_356_356")),
        ("decode/config.pbtxt", ("max_batch_size: 8", "max_batch_size: 9")),
        ("x3d_s_net/labels.txt", ("archery", "Archery")),
    ],
)
def test_the_check_fails_on_drift_and_says_where(copy: Path, path: str, change: tuple[str, str]) -> None:
    text = (copy / path).read_text()
    assert change[0] in text
    (copy / path).write_text(text.replace(*change))
    status, output = run("--check", "--repository", copy)
    assert status == 1
    assert path in output
    assert change[1] in output
    write_configs(copy)
    assert run("--check", "--repository", copy)[0] == 0


def test_a_missing_file_is_drift(copy: Path) -> None:
    (copy / "mvit_base_16x4" / "1" / ".gitkeep").unlink()
    assert len(find_drift(copy)) == 1


def test_only_in_the_checkout_a_model_without_configs_is_drift(copy: Path) -> None:
    for folder in ("x3d_m", "x3d_m_net"):
        shutil.rmtree(copy / folder)
    assert run("--check", "--repository", copy)[0] == 0
    assert len(find_drift(copy, every_model=True)) == 4, "two configs, the labels, the version folder"
    (copy / "x3d_m").mkdir()
    shutil.copy(COMMITTED / "x3d_m" / "config.pbtxt", copy / "x3d_m")
    status, output = run("--check", "--repository", copy)
    assert status == 1, "half of a model is there"
    assert "x3d_m_net/config.pbtxt" in output


def test_the_checkout_must_have_every_model(tmp_path: Path) -> None:
    """A checkout of its own, because this one is not to be changed."""
    for name in ("export/clipserve_export", "client/clipserve", "model_repository"):
        ignored = shutil.ignore_patterns("*.onnx", "*.pt", "__pycache__")
        shutil.copytree(COMMITTED.parent / name, tmp_path / name, ignore=ignored)
    shutil.rmtree(tmp_path / "model_repository" / "x3d_m")
    shutil.rmtree(tmp_path / "model_repository" / "x3d_m_net")
    paths = os.pathsep.join(str(tmp_path / name) for name in ("export", "client"))
    check = "from clipserve_export.repository import find_drift; from pathlib import Path"
    check += "; print(len(find_drift(Path('model_repository'))))"
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["4"]


def test_a_repository_that_is_not_there_has_drifted(tmp_path: Path) -> None:
    status, output = run("--check", "--repository", tmp_path / "typo")
    assert status == 1
    assert "decode/config.pbtxt" in output


HAND_SET = """
parameters { key: "max_seconds" value { string_value: "600" } }
parameters { key: "workers" value { string_value: "2" } }
"""


def test_parameters_of_the_decode_step_that_were_set_by_hand_are_kept(copy: Path) -> None:
    path = copy / "decode" / "config.pbtxt"
    path.write_text(path.read_text() + HAND_SET)
    write_configs(copy)
    assert run("--check", "--repository", copy)[0] == 0
    assert run("x3d_m", "--configs", "--max-queue", "3", "--repository", copy)[0] == 0
    parameters = {name: value.string_value for name, value in parse_config(path.read_text()).parameters.items()}
    assert parameters.items() >= {"max_seconds": "600", "workers": "2"}.items()
    assert json.loads(parameters["QUEUE_CLIP_16X5_256_256"])["requests"] == 3
    assert run("--check", "--repository", copy)[0] == 0


@pytest.mark.parametrize("model", ["decode", "timeline"])
def test_a_config_with_a_mistake_is_named_with_its_line_and_keeps_what_was_set(copy: Path, model: str) -> None:
    path = copy / model / "config.pbtxt"
    text = path.read_text() + 'parameters { key: "max_pixels" value { string_value: "9" } }\nparameters { key: "max_'
    path.write_text(text)
    for arguments in (("--configs",), ("x3d_m", "--configs", "--instances", "2"), ("--check",)):
        status, output = run(*arguments, "--repository", copy)
        assert (status, path.read_text()) == (1, text)
        assert f"{model}/config.pbtxt is no valid config (line {len(text.splitlines())}:" in output
    path.unlink()
    assert run("--configs", "--repository", copy)[0] == 0, "one that is not there is made"
    assert run("--check", "--repository", copy)[0] == 0


def test_a_parameter_of_the_decode_step_that_does_not_exist_is_drift(copy: Path) -> None:
    path = copy / "decode" / "config.pbtxt"
    path.write_text(path.read_text() + HAND_SET.replace("max_seconds", "max_second"))
    status, output = run("--check", "--repository", copy)
    assert status == 1
    assert "max_second" in output


def test_configs_name_no_machine() -> None:
    for path in COMMITTED.glob("*/config.pbtxt"):
        text = path.read_text()
        assert not re.search(r"/(home|work|root|usr|opt|tmp)\b|thread_count|cuda", text), path


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_the_chain_of_names_and_shapes_closes(spec) -> None:  # type: ignore[no-untyped-def]
    """What decode gives under the ensemble's name for it is what the network takes."""
    ensemble, net, decode = (
        parse_config((COMMITTED / name / "config.pbtxt").read_text()) for name in (spec.name, spec.net_name, "decode")
    )
    to_decode, to_net = ensemble.ensemble_scheduling.step
    (clip_name,) = (name for name, tensor in to_decode.output_map.items() if tensor == "CLIP")
    (given,) = (output for output in decode.output if output.name == clip_name)
    assert list(given.dims) == list(net.input[0].dims)
    assert list(given.dims) == [-1, spec.geometry.frames, spec.geometry.crop, spec.geometry.crop, 3]
    assert (to_decode.model_name, to_net.model_name) == ("decode", spec.net_name)
    assert [list(output.dims) for output in ensemble.output[:2]] == [list(output.dims) for output in net.output]
    labels = (COMMITTED / spec.net_name / "labels.txt").read_text().splitlines()
    assert len(labels) == net.output[0].dims[0]


def test_kinetics_labels_are_in_their_published_order() -> None:
    labels = (COMMITTED / "x3d_m_net" / "labels.txt").read_text().splitlines()
    assert {label: labels.index(label) for label in KINETICS_FACTS} == KINETICS_FACTS


NO_NETWORKS = "--configs writes no networks, and these have no effect then: --format, --weights, --version. Leave"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model was named: name one or more of x3d_xs"),
        (("x3d_q",), "no model 'x3d_q'; there are x3d_xs"),
        (("x3d_m", "x3d_s", "--weights", "some.pt"), "several were named: name one"),
        (("motion", "--format", "tensorflow"), "onnx"),
        (("motion", "--configs", "--format", "onnx", "--version", "7", "--weights", "absent.pt"), NO_NETWORKS),
        (("motion", "--check", "--configs", "--instances", "3"), "no effect then: MODELS, --configs, --instances."),
        (("motion", "--weights", "absent.pt"), "pretrained, random or the path"),
    ],
)
def test_a_wrong_command_is_told_what_is_allowed(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    status, output = run(*arguments, "--repository", tmp_path)
    assert status in (1, 2)
    assert said in " ".join(output.split())
