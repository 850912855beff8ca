"""A network of a user becomes a model, or a sentence says what is wrong with it."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_dynamic

from clipserve.contract import ClipContract
from clipserve_export import exporting
from clipserve_export.clips import random_clips
from clipserve_export.formats import FORMATS, load_torchscript
from clipserve_export.network import ActionNetwork
from clipserve_export.own.builder import build_network
from clipserve_export.own.contract_file import read_contract_file
from clipserve_export.own.network import adapt_module
from clipserve_export.own.source import hash_values, load_checkpoint, own_spec
from clipserve_export.repository import find_drift, find_spec, read_config, write_configs
from clipserve_export.serving.changes import present_serving
from clipserve_export.specs import Geometry
from tests.export.conftest import Run
from tests.motion_repository import change_config, set_parameters

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=3, ends=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, classes)
        self.ends = ends or nn.Identity()

    def forward(self, frames):
        return self.ends(self.head(self.conv(frames).relu().mean((2, 3, 4))))


def build(classes=3):
    return Net(classes)


def squared():
    return Net(ends=Square())


class Square(nn.Module):
    def forward(self, logits):
        return logits + logits**2


class Ends(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def squeezed():
    return Net(ends=Ends(lambda logits: logits.squeeze()))


def of_two_clips():
    return Net(ends=Ends(lambda logits: logits.view(2, -1)))


def mixing():
    return Net(ends=Ends(lambda logits: logits - logits.mean(0)))


def random():
    return Net(ends=Ends(torch.nn.functional.dropout))


def alike():
    net = Net()
    net.inner = nn.ModuleDict({"conv": nn.Conv3d(3, 8, 1), "head": nn.Linear(8, 3)})
    return net


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def lazy_buffer():
    return nn.Sequential(nn.LazyBatchNorm3d(affine=False), Net())


def on_meta():
    with torch.device("meta"):
        return Net()


def scripted():
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4 * 32 * 32 * 3, 3)))


class Twice(Net):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Dropout(), self.head)

    def forward(self, frames):
        return self.classifier(self.conv(frames).relu().mean((2, 3, 4)))


class Dead(Net):
    def forward(self, frames):
        return self.head(self.conv(frames).clamp(max=0).relu().mean((2, 3, 4)))


class Counted(Net):
    def forward(self, frames):
        rest = torch.zeros(1, 1).expand(len(frames), -1)
        return torch.cat((super().forward(frames)[:, :2], rest), 1)


class Versioned(Net):
    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        pass


def with_median():
    return Net(ends=Ends(lambda logits: logits - logits.median(1, keepdim=True)[0]))


def leaves():
    raise SystemExit("usage: train.py --data DIR")


def of_many(num_classes=3):
    return Net(num_classes)


def softened():
    return Net(ends=nn.Softmax(-1))


def halved():
    return Net().half()


def of_one_clip():
    return Net(ends=nn.Flatten(0))


def broken():
    raise KeyError("no such backbone")


def of_bytes():
    return nn.Sequential(Scaled(), Net())


class Scaled(nn.Module):
    def forward(self, pixels):
        return pixels.float() / 255


nothing = None
number = int
"""
CONTRACT = """
frames = 4
stride = 8
short_side = 40
crop = 32
mean = [0.485, 0.456, 0.406]
deviation = [0.229, 0.224, 0.225]
"""
GEOMETRY = Geometry(frames=4, stride=8, short_side=40, crop=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a user."""
    (tmp_path / "my_nets.py").write_text(CODE)
    (tmp_path / "mine.toml").write_text(CONTRACT)
    (tmp_path / "mine.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


def export(run: Run, folder: Path, function: str = "build", *more: str | Path) -> tuple[int, str]:
    arguments = ["--name", "mine", "--contract", folder / "mine.toml", "--labels", folder / "mine.txt"]
    place = ["--format", "torchscript", "--repository", folder / "repository"]
    return run("export", f"{folder / 'my_nets.py'}:{function}", *arguments, *place, *more)


def adapt(folder: Path, function: str) -> tuple[nn.Module, ActionNetwork]:
    """The user's module, and the network that serves it."""
    contract, interface = read_contract_file(folder / "mine.toml")
    module = build_network(f"{folder / 'my_nets.py'}:{function}", classes=None)
    return module, adapt_module(module, own_spec("mine", contract), interface)


def load_state(folder: Path, function: str = "build") -> dict[str, torch.Tensor]:
    names: dict[str, object] = {}
    exec(CODE, names)
    return names[function]().state_dict()  # type: ignore[operator, no-any-return]


def test_a_network_is_published_with_its_contract_and_its_features(folder: Path, run: Run) -> None:
    state = {name: value + 0.01 for name, value in load_state(folder).items()}
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, folder / "mine.pt")
    status, said = export(run, folder, "build", "--weights", folder / "mine.pt")
    assert status == 0, said
    assert "'module.'" in said
    assert "the network has no embedding" not in said
    repository = folder / "repository"
    contract = ClipContract.from_json((repository / "mine_net" / "1" / "contract.json").read_text())
    assert (contract.classes, contract.feature_size, contract.mean) == (3, 8, (0.485, 0.456, 0.406))
    assert contract.weights_source == "file (mine.pt)"
    ensemble = read_config(repository, "mine")
    assert json.loads(ensemble.parameters["contract"].string_value) == json.loads(contract.to_json())
    assert "CLIP_4X8_40_32" in [output.name for output in read_config(repository, "decode").output]
    write_configs(repository)
    assert find_drift(repository) == []
    assert "mine_net" in read_config(repository, "decode").parameters["QUEUE_CLIP_4X8_40_32"].string_value
    # What the file computes, written out apart from the code under test.
    clip = random_clips(GEOMETRY, batch=2, views=2, seed=5)
    scores, features = FORMATS["torchscript"].load(repository / "mine_net" / "1" / "model.pt")(clip.numpy())
    mean, deviation = torch.tensor(contract.mean), torch.tensor(contract.deviation)
    frames = ((clip.flatten(0, 1) / 255 - mean) / deviation).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        hidden = torch.nn.functional.conv3d(frames, state["conv.weight"], state["conv.bias"], stride=2).relu()
        embedding = hidden.mean((2, 3, 4))
        expected = (embedding @ state["head.weight"].T + state["head.bias"]).softmax(-1)
    np.testing.assert_allclose(scores, expected.view(2, 2, 3).mean(1), atol=1e-5)
    np.testing.assert_allclose(features, embedding.view(2, 2, 8).mean(1), atol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_network_without_an_embedding_answers_scores_alone_and_the_export_says_so(
    folder: Path, run: Run, target: str
) -> None:
    status, said = export(run, folder, "squared", "--target", target)
    assert status == 0, said
    assert "the network has no embedding" in said
    assert "in features" not in said
    names = [output.name for output in read_config(folder / "repository", "mine").output]
    assert names == ["SCORES", "REPORT"]
    # Exported again, when its clips took so much that fewer share a run.
    change_config(folder / "repository", "mine_net", lambda config: setattr(config, "max_batch_size", 4))
    set_parameters(folder / "repository", "mine_net", {"clip_megabytes": "150"})
    spec = find_spec(folder / "repository", "mine")
    assert spec.clip_megabytes == 150
    source = own_spec("mine", spec.contract)
    assert present_serving(folder / "repository", source, FORMATS["torchscript"]).max_batch is None, "nobody chose it"


@pytest.mark.parametrize("function", ["scripted", "Versioned"])
def test_a_network_that_is_no_plain_module_is_published(folder: Path, run: Run, function: str) -> None:
    status, said = export(run, folder, function)
    assert status == 0, said


@pytest.mark.parametrize(
    ("layer", "pack"),
    [
        (nn.Linear, lambda module: quantize_dynamic(module, {nn.Linear})),
        (nn.LSTM, lambda module: quantize_dynamic(module, {nn.LSTM})),
        (nn.Linear, lambda module: torch.jit.script(quantize_dynamic(module, {nn.Linear}))),
        (nn.Linear, lambda module: torch.jit.freeze(torch.jit.trace(module, torch.zeros(1, 300)))),
    ],
    ids=["quantized", "quantized LSTM", "quantized script", "frozen script"],
)
@pytest.mark.filterwarnings("ignore")  # torch.ao.quantization is deprecated
def test_a_digest_sees_weights_that_are_no_plain_tensors(
    layer: Callable[[int, int], nn.Module], pack: Callable[[nn.Module], nn.Module]
) -> None:
    module = nn.Sequential(layer(300, 40)).eval()
    before = pack(module)
    with torch.no_grad():
        next(module.parameters())[20, 150] += 0.1  # in the middle, which the text of a tensor leaves out
    assert hash_values(before) == hash_values(before) != hash_values(pack(module))


@pytest.mark.long
def test_what_torch_cannot_write_is_named(folder: Path, run: Run) -> None:
    """torch.onnx says it ahead of general advice in colours."""
    status, said = export(run, folder, "with_median", "--format", "onnx")
    assert (status, "No ONNX function found for <OpOverload(op='aten.median'" in said) == (1, True), said


def test_a_network_that_cannot_be_halved_is_exported_in_fp32_on_a_machine_with_a_gpu(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = replace(FORMATS["torchscript"], load=lambda path, *, device="cpu": load_torchscript(path))
    monkeypatch.setitem(FORMATS, "torchscript", on_cpu)
    monkeypatch.setattr(exporting, "comparing_device", lambda *_: "cuda")
    contract = "frames = 4\nstride = 8\nshort_side = 40\ncrop = 32\n[network]\ntype = 'uint8'\n"
    (folder / "mine.toml").write_text(contract)
    status, said = export(run, folder, "of_bytes", "--target", "gpu", "--precision", "fp16")
    assert status == 1
    assert "cannot be written as torchscript" in said
    status, said = export(run, folder, "of_bytes", "--target", "gpu")
    assert status == 0, said
    assert "torchscript, fp32, for a GPU" in said
    assert "fp32, because fp16 fails: the network cannot be written as torchscript: " in said
    record = json.loads((folder / "repository" / "mine_net" / "1" / "export.json").read_text())
    assert record["precision_reason"].startswith("fp16 fails: ")


def test_a_rollback_to_a_larger_network_lowers_what_runs_at_once(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs would take 8 x 30 x 700 MiB with the limits of the small one."""
    repository = folder / "repository"

    def limits() -> tuple[int, str]:
        net = read_config(repository, "mine_net")
        return net.max_batch_size, net.parameters["max_clips_at_once"].string_value

    for version, megabytes, expected in ((1, 700, (1, "2")), (2, 1, (8, "2048"))):
        monkeypatch.setattr(exporting, "measure_clip_megabytes", lambda *_, megabytes=megabytes: megabytes)
        status, said = export(run, folder, "build", "--version", str(version))
        assert status == 0, said
        assert limits() == expected
    for keep, expected in (("1", (1, "2")), ("latest", (8, "2048")), ("all", (1, "2"))):
        assert run("versions", "mine", "--serve", keep, "--repository", repository)[0] == 0
        assert limits() == expected
        assert find_drift(repository) == []
    assert json.loads(read_config(repository, "timeline").parameters["MODEL_mine"].string_value)["max_batch"] == 1


@pytest.mark.parametrize(
    ("format_name", "precision", "megabytes"),
    [("onnx", "fp16", "60"), ("torchscript", "fp32", "60"), ("torchscript", "fp16", "120")],
)
def test_what_a_clip_takes_is_told_in_float32(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, format_name: str, precision: str, megabytes: str
) -> None:
    """On a CPU, LibTorch runs a file in fp16 as it is, and ONNX Runtime runs it in float32."""
    monkeypatch.setattr(exporting, "measure_clip_megabytes", lambda *_: 60)
    options = ("--target", "gpu", "--precision", precision, "--format", format_name)
    status, said = export(run, folder, "build", *options)
    assert status == 0, said
    assert read_config(folder / "repository", "mine_net").parameters["clip_megabytes"].string_value == megabytes


def test_probabilities_get_no_second_softmax(folder: Path, run: Run) -> None:
    status, said = export(run, folder, "softened")
    assert status == 1
    assert 'answers = "probabilities"' in said
    (folder / "mine.toml").write_text(CONTRACT + '\n[network]\nanswers = "probabilities"\n')
    module, network = adapt(folder, "softened")
    clip = random_clips(GEOMETRY, batch=2, views=1, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(network(clip), module(network.normalise(clip[:, 0])))
    assert "do not sum to 1" in export(run, folder, "build")[1]


@pytest.mark.parametrize("function", ["build", "of_many"])
def test_a_function_may_take_the_number_of_labels(folder: Path, function: str) -> None:
    for classes, built in ((4, 4), (None, 3)):
        network = build_network(f"{folder / 'my_nets.py'}:{function}", classes=classes)
        assert network.get_parameter("head.weight").shape[0] == built


def test_labels_may_come_from_a_pipe(folder: Path, run: Run) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\nthree\n")
    os.close(writing)
    status, said = export(run, folder, "build", "--labels", f"/dev/fd/{reading}")
    os.close(reading)
    assert status == 0, said


def test_a_module_is_found_where_the_user_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "nets_of_this_test").mkdir()
    (folder / "my_nets.py").rename(folder / "nets_of_this_test" / "small.py")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert build_network("nets_of_this_test.small:build", classes=2).get_parameter("head.weight").shape[0] == 2


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_may_end_as_the_first_name_does(folder: Path, prefix: str) -> None:
    """As those of ResNets do: conv1.weight, and layer1.0.conv1.weight."""
    module = build_network(f"{folder / 'my_nets.py'}:alike", classes=None)
    state = {f"{prefix}{name}": value + 1 for name, value in reversed(module.state_dict().items())}
    torch.save(state, folder / "mine.pt")
    assert load_checkpoint(module, "mine", folder / "mine.pt") == prefix
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[prefix + name])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("absent", "has no function 'absent'; it has Net, build, squared"),
        ("nothing", "has no function 'nothing'"),
        ("number", "returns int, but must return an nn.Module"),
        ("broken", "KeyError: 'no such backbone' (my_nets.py, line"),
        ("of_one_clip", "for 2 clips the network returns [6], but must return [2, classes]"),
        ("squeezed", "for 1 clips the network returns [3], but must return [1, 3]"),
        ("of_two_clips", "takes 2 clips at once and not 1: RuntimeError: shape '[2, -1]' is invalid"),
        ("mixing", "it mixes the clips of a run, or it is random"),
        ("random", "as F.dropout(x) is without training=self.training"),
        ("lazy", "whose '1.weight' has no shape yet"),
        ("lazy_buffer", "whose '0.running_mean' has no shape yet"),
        ("on_meta", "whose 'conv.weight' is on the meta device"),
        ("leaves", "failed: SystemExit: usage: train.py --data DIR"),
    ],
)
def test_a_builder_that_fails_is_told_why(folder: Path, run: Run, function: str, said: str) -> None:
    status, output = export(run, folder, function)
    assert status == 1
    assert said in output
    assert not (folder / "repository").exists()


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        (CONTRACT + "classes = 5\n", "the contract says classes = 5, but the network returns 3 values"),
        (CONTRACT + "feature_size = 9\n", "feature_size = 9, but the network has 8 values"),
        (
            CONTRACT.replace("crop = 32", "crop = 2"),
            "does not take float32 [batch, 3, 4, 2, 2], the clip",
        ),
        (CONTRACT.replace("crop = 32", "crop = 64"), "crop 64 does not fit"),
        (CONTRACT.replace("frames = 4", ""), "a contract needs frames"),
        (CONTRACT + "frame = 4\n", "a contract has no 'frame'"),
        (CONTRACT + "[network]\nlayout = 'CHW'\n", "BCTHW or BTCHW"),
        (CONTRACT + "[network]\nlayout = 'BTCHW'\n", "does not take float32 [batch, 4, 3, 32, 32]"),
        (CONTRACT + "[network]\nhead = 'fc'\n", "no nn.Linear of this name; it has head"),
        (CONTRACT + "[network]\nfeatures = 'pool'\n", "features is 'pool', and only the tensors of a ready ONNX file"),
        (CONTRACT.replace("0.485", "123.7"), "pixels are in [0, 1], and so is their mean: divide"),
        ("frames: 4", "is not TOML"),
        (f"frames = {'4' * 5000}", "is not TOML"),
        (f"frames = {'[' * 5000}", "is not TOML"),
    ],
)
def test_a_contract_that_contradicts_the_network_is_refused(folder: Path, run: Run, contract: str, said: str) -> None:
    (folder / "mine.toml").write_text(contract)
    status, output = export(run, folder)
    assert status == 1
    assert said in output


def test_files_that_editors_of_windows_write_are_read(folder: Path) -> None:
    for line_end in ("\n", "\r\n"):
        (folder / "mine.toml").write_bytes(("\ufeff" + CONTRACT.replace("\n", line_end)).encode())
        assert read_contract_file(folder / "mine.toml")[0].frames == 4


def test_versions_take_the_same_clips_and_have_the_same_features(folder: Path, run: Run) -> None:
    status, output = export(run, folder)
    assert status == 0, output
    status, output = export(run, folder, "squared", "--version", "2")
    assert status == 1
    assert "has feature_size = 8, and this network None" in output
    (folder / "mine.toml").write_text(CONTRACT.replace("short_side = 40", "short_side = 36"))
    status, output = export(run, folder, "build", "--version", "2")
    assert status == 1
    assert "has short_side = 40, and this network 36" in output
    assert export(run, folder, "squared", "--version", "1")[0] == 0, "the only version may change"


def test_weights_of_another_shape_are_shown_beside_the_networks(folder: Path, run: Run) -> None:
    state = load_state(folder)
    torch.save(state | {"head.bias": torch.zeros(7)}, folder / "mine.pt")
    said = export(run, folder, "build", "--weights", folder / "mine.pt")[1]
    assert "misshapes 1 of 4 tensors, 'head.bias' first ([7], and the network's is [3])" in said
    said = export(run, folder, "build", "--weights", "random")[1]
    assert "without --weights the network keeps those that its function sets" in said


def test_a_head_may_have_two_names(folder: Path) -> None:
    """The first one is not that by which the network calls it."""
    assert adapt(folder, "Twice")[1].contract.feature_size == 8


def test_an_embedding_may_be_zero(folder: Path, run: Run) -> None:
    status, said = export(run, folder, "Dead")
    assert (status, "0.0e+00 in features" in said) == (0, True), said


def test_a_number_of_clips_that_tracing_fixes_is_explained(folder: Path, run: Run) -> None:
    status, said = export(run, folder, "Counted")
    assert (status, "as len(x) does: write x.shape[0]" in said) == (1, True), said


def test_a_network_in_float16_has_its_embedding(folder: Path) -> None:
    (folder / "mine.toml").write_text(CONTRACT + "[network]\ntype = 'float16'\n")
    module, network = adapt(folder, "halved")
    clip = random_clips(GEOMETRY, batch=2, views=1, seed=5)
    with torch.no_grad():
        scores, features = network(clip)
        expected = module(network.normalise(clip[:, 0]).half()).float().softmax(-1)
    assert features.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=0)


def test_weights_with_other_names_are_shown_beside_the_networks(folder: Path, run: Run) -> None:
    state = load_state(folder)
    torch.save({name.replace("conv", "stem.0"): value for name, value in state.items()}, folder / "mine.pt")
    status, said = export(run, folder, "build", "--weights", folder / "mine.pt")
    assert status == 1
    assert (
        "lacks 2 of 4 tensors, 'conv.bias' first (among the file's own names: 'stem.0.bias', 'stem.0.weight')" in said
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x3d_m", "published model"),
        ("decode", "is not decode"),
        ("mine_net", "does not end in _net"),
        ("a b", "letters"),
    ],
)
def test_a_name_that_means_something_else_is_refused(folder: Path, run: Run, name: str, said: str) -> None:
    status, output = export(run, folder, "build", "--name", name)
    assert status == 1
    assert said in output


def test_nothing_runs_that_was_not_named(folder: Path, run: Run) -> None:
    (folder / "my_nets.py").write_text("raise SystemExit(99)")
    status, output = run("export", "my_nets", "--repository", folder / "repository")
    assert status == 1
    assert "there is no model 'my_nets'" in output
    status, output = run("export", f"{folder / 'my_nets.py'}:build", "--repository", folder / "repository")
    assert (status, "give --name" in output) == (1, True)
