"""Weights come from the source that the user names, or the export says what is wrong with them."""

import pickle
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipserve_export.errors import LabelsError, WeightsError
from clipserve_export.exporting import export_network
from clipserve_export.families.adapter import adapter_of, build_model, projection_key
from clipserve_export.labels import labels_for, read_labels
from clipserve_export.records import RECORD
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import SPECS
from clipserve_export.weights import load_weights, pretrained_path, read_checkpoint, read_tensors
from tests.export.conftest import Run

MOTION, X3D_XS = SPECS["motion"], SPECS["x3d_xs"]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache, and a network that refuses at once, on loopback."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    # The first call of urlopen reads the variables for the whole process: this one's is not for other tests.
    monkeypatch.setattr(urllib.request, "_opener", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of `motion` with five classes."""
    path = tmp_path / "five.pt"
    torch.save(build_model(MOTION, classes=5).state_dict(), path)
    return path


def export_motion(repository: Path, weights: Path, labels: Sequence[str] | None) -> None:
    export_network(
        PublishedSource(MOTION, str(weights)), format_name="torchscript", labels=labels, repository=repository
    )


@pytest.mark.parametrize("name", [name for name in SPECS if name != "motion"])
def test_a_failed_download_names_the_address_and_the_place_for_the_file(name: str, hub_cache: Path) -> None:
    spec = SPECS[name]
    with pytest.raises(WeightsError) as raised:
        load_weights(spec, "pretrained")
    address = str(adapter_of(spec).published_weights(spec))
    assert address.startswith("https://")
    assert address in str(raised.value)
    assert str(hub_cache / Path(address).name) in str(raised.value)
    assert not list(hub_cache.glob("*")), "a part of a download was left behind"


def test_a_checkpoint_put_into_the_hubs_cache_by_hand_needs_no_network(hub_cache: Path) -> None:
    state = build_model(X3D_XS, classes=400).state_dict()
    hub_cache.mkdir(parents=True)
    torch.save({"model_state": state, "epoch": 256}, pretrained_path(X3D_XS))
    weights = load_weights(X3D_XS, "pretrained")
    assert weights.origin == "pretrained (X3D_XS.pyth)"
    assert all(torch.equal(weights.state[name], value) for name, value in state.items())


WRAPPED = {
    "bare": (lambda state: state, ""),
    "pytorchvideo": (lambda state: {"model_state": state, "epoch": 3}, ""),
    "a script": (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, ""),
    "data parallel": (lambda state: prefixed("module.", state), "module."),
    "compiled": (lambda state: prefixed("_orig_mod.", state), "_orig_mod."),
    "lightning": (lambda state: {"state_dict": prefixed("model.", state), "epoch": 3}, "model."),
    "all of it": (lambda state: {"state_dict": prefixed("model.module._orig_mod.", state)}, "model.module._orig_mod."),
}


def motion_state() -> dict[str, torch.Tensor]:
    loaded: dict[str, Any] = torch.load(pretrained_path(MOTION))
    return loaded.get("model_state", loaded)


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(("wrap", "prefix"), WRAPPED.values(), ids=WRAPPED)
def test_a_file_may_hold_a_state_dict_as_training_programs_write_it(
    wrap: Callable[[Any], Any], prefix: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    state = torch.load(tiny_checkpoint)
    torch.save(wrap(state), tmp_path / "other.pt")
    weights = load_weights(MOTION, str(tmp_path / "other.pt"))
    assert weights.stripped == prefix
    assert weights.classes(MOTION) == 5
    assert list(weights.state) == list(state)


def test_a_name_without_the_prefix_of_the_others_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    state = prefixed("model.", torch.load(tiny_checkpoint)) | {"criterion.weight": torch.ones(5)}
    torch.save({"state_dict": state}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"begin with 'model\.', but 'criterion\.weight' does not"):
        load_weights(MOTION, str(tmp_path / "other.pt"))


def test_an_export_says_which_prefix_it_took_off(tmp_path: Path, run: Run) -> None:
    torch.save(prefixed("module.", motion_state()), tmp_path / "other.pt")
    status, said = run(
        "export", "motion", "--format", "torchscript", "--weights", tmp_path / "other.pt", "--repository", tmp_path
    )
    assert status == 0
    assert "removed this prefix from every name in the weights: 'module.'" in said


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_no_numbers_are_the_weights_fault(value: float, tmp_path: Path, tiny_checkpoint: Path) -> None:
    state = torch.load(tiny_checkpoint)
    name = list(state)[3]
    state[name].view(-1)[0] = value
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(
        WeightsError, match=rf"broken\.pt has NaN or infinite values in 1 of \d+ tensors, '{name}' first"
    ):
        load_weights(MOTION, str(tmp_path / "broken.pt"))


def test_a_network_that_answers_no_numbers_is_not_blamed_on_the_export(tmp_path: Path) -> None:
    state = motion_state()
    variance = next(name for name in state if name.endswith("running_var"))
    state[variance][0] = -1.0
    torch.save(state, tmp_path / "negative.pt")
    with pytest.raises(WeightsError, match="the network itself gives NaN"):
        export_motion(tmp_path / "repository", tmp_path / "negative.pt", None)
    assert not list((tmp_path / "repository").rglob("model.*"))


def test_labels_that_come_twice_are_named_with_their_lines(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\ntwo\nfive\n")
    with pytest.raises(LabelsError, match=r"line 4: the label 'two' equals that of line 2"):
        read_labels(labels)


def test_labels_that_evaluate_takes_for_one_name_are_named_with_both_lines(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    for other in ("a  b", "A_b", "a b "):
        labels.write_text(f"a b\nc\n{other}\n")
        with pytest.raises(LabelsError, match=rf"line 3: .*'{other.strip()}' equals that of line 1 \('a b'\)"):
            read_labels(labels)


def test_a_label_is_one_line_of_text(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    for wrong in ("0\tone", "one\0", "one\u2028two", "one\x85two"):
        labels.write_text(f"zero\n{wrong}\n", encoding="utf-8")
        with pytest.raises(LabelsError, match=r"line 2: .* or another control character: a label is a name alone"):
            read_labels(labels)
    labels.write_text("\ufeffé\r\nno-break\xa0blank\r\n日本\r\n\r\n", encoding="utf-8")
    assert read_labels(labels) == ["é", "no-break\xa0blank", "日本"]
    labels.write_bytes("é\n".encode("latin-1"))
    with pytest.raises(LabelsError, match="is not UTF-8"):
        read_labels(labels)


def test_weights_of_any_class_count_are_exported_with_their_labels(tmp_path: Path, tiny_checkpoint: Path) -> None:
    labels = ("one", "two", "three: with a colon", "four", "five")
    export_motion(tmp_path / "repository", tiny_checkpoint, labels)
    net = tmp_path / "repository" / "motion_net"
    assert "dims: 5" in (net / "config.pbtxt").read_text()
    assert (net / "labels.txt").read_text().splitlines() == list(labels)
    assert "five.pt" in (net / "1" / RECORD).read_text()


def test_a_label_file_of_another_length_stops_the_export_with_both_numbers(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    with pytest.raises(LabelsError, match=r"5 classes.*--labels has 3 labels"):
        export_motion(tmp_path / "repository", tiny_checkpoint, ("one", "two", "three"))
    with pytest.raises(LabelsError, match=r"5 classes.*12 labels"):
        export_motion(tmp_path / "repository", tiny_checkpoint, None)
    assert not list((tmp_path / "repository").rglob("model.*"))


def test_a_file_that_is_no_checkpoint_of_the_model_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    garbage, empty = tmp_path / "garbage.pt", tmp_path / "empty.pt"
    garbage.write_bytes(b"no checkpoint" * 100)
    empty.touch()
    for path in (garbage, empty):
        with pytest.raises(WeightsError, match="cannot be read"):
            load_weights(MOTION, str(path))
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(MOTION, str(tmp_path / "absent.pt"))
    with pytest.raises(WeightsError, match="no checkpoint of x3d_xs"):
        load_weights(X3D_XS, str(tiny_checkpoint))
    torch.save({"model_state": [1, 2, 3]}, tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="neither"):
        load_weights(MOTION, str(tmp_path / "list.pt"))
    state = torch.load(tiny_checkpoint)
    state.pop(next(iter(state)))
    torch.save(state, tmp_path / "lacking.pt")
    with pytest.raises(WeightsError, match="lacks 1 of"):
        load_weights(MOTION, str(tmp_path / "lacking.pt"))


REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "quantized": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), r"quantized \(torch\.qint8\)"),
    "meta": (lambda value: value.to("meta"), "meta device"),
    "sparse": (lambda value: value.to_sparse(), "not dense"),
    "complex": (lambda value: value.to(torch.complex64), r"is torch\.complex64.*float32"),
    "integer": (lambda value: value.to(torch.int32), r"is torch\.int32.*float32"),
    "float8": (lambda value: value.to(torch.float8_e4m3fn), r"is torch\.float8_e4m3fn.*float32"),
    "too large": (lambda value: value.double() * 1e300 + 1e300, "infinite"),
    "no class": (lambda value: value[:0], "has 0 rows"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_tensors_that_no_network_can_take_are_refused_in_a_sentence(
    change: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    state = torch.load(tiny_checkpoint)
    name = projection_key(MOTION)
    state[name] = change(state[name])
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=said) as raised:
        load_weights(MOTION, str(tmp_path / "other.pt"))
    assert repr(name) in str(raised.value)


def damage(content: bytes) -> bytes:
    """The zip with 40 bytes of its pickle overwritten."""
    place = content.index(b"data.pkl") + 80
    return content[:place] + b"\xff" * 40 + content[place + 40 :]


NO_CHECKPOINTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "web page": (
        lambda _: b"<!DOCTYPE html><html><body>Sign in",
        r"begins with b'<!DOCTYPE html>.*web page.*torch\.save",
    ),
    "lfs": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"pointer of Git LFS.*torch\.save"),
    "text": (lambda _: b"hello world, this is a text", r"begins with b'hello world.*torch\.save"),
    "empty": (lambda _: b"", r"it is empty.*torch\.save"),
    "cut off": (lambda content: content[: len(content) // 2], "damaged or cut off"),
    "damaged": (damage, "damaged or cut off"),
    "other pickle": (lambda _: pickle.dumps({"a": 1}, protocol=4), r"a pickle that torch\.save did not write"),
}


@pytest.mark.parametrize(("change", "said"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_another_kind_is_told_by_its_beginning_and_never_asks_for_trust(
    change: Callable[[bytes], bytes], said: str, trusted: bool, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(change(tiny_checkpoint.read_bytes()))
    if trusted and said.startswith("a pickle"):
        said = "Invalid magic number"  # torch.load's own words
    with pytest.raises(WeightsError, match=said) as raised:
        read_checkpoint(MOTION, path, origin="", trusted=trusted)
    assert "weights_only" not in str(raised.value)
    assert "trust" not in str(raised.value)


def test_a_zip_of_something_else_and_a_torchscript_program_are_told_apart(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(WeightsError, match=r"zip archive of something else \(of word/document\.xml\)"):
        load_weights(MOTION, str(tmp_path / "other.zip"))
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "program.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WeightsError, match="TorchScript program") as raised:
            load_weights(MOTION, str(tmp_path / "program.pt"))
    assert "weights_only" not in str(raised.value)


class Bomb:
    """Unpickled with trust, it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


def test_a_checkpoint_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state": Bomb()}, "bomb.pt")
    with pytest.raises(WeightsError, match="other objects, which are not loaded because they can run code"):
        load_weights(MOTION, "bomb.pt")
    assert not Path("exploded").exists()
    # The test itself must be able to fail: with trust, it does explode.
    with pytest.raises(WeightsError):
        read_checkpoint(MOTION, Path("bomb.pt"), origin="", trusted=True)
    assert Path("exploded").exists()


def test_random_weights_are_the_same_every_time() -> None:
    assert load_weights(X3D_XS, "random").sha256 == load_weights(X3D_XS, "random").sha256


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["run", "Run"], "class 1: the label 'Run' equals that of class 0"),
        (["run", " "], "class 1: a label is empty"),
    ],
)
def test_labels_that_come_with_the_weights_are_names_too(labels: list[str], said: str) -> None:
    spec = replace(MOTION, contract=replace(MOTION.contract, classes=2))
    with pytest.raises(LabelsError, match=said):
        labels_for(spec, None, labels)
    # One line of the file for each.
    assert labels_for(spec, None, ["run", "jump\nhigh"]) == ["run", "jump high"]


def test_a_safetensors_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(WeightsError, match="cannot be read as a safetensors file"):
            read_tensors(tmp_path / f"{name}.safetensors")
