"""Checkpoints of Hugging Face give the scores that transformers' own processor and model give for the same frames.

The checkpoints are tiny and random, and saved by transformers itself. V-JEPA 2's processor needs torchvision, which no
CPU build of torch has here; VideoMAE's has the same steps and the numbers of the checkpoint's file.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipserve_export.clips import random_clips
from clipserve_export.errors import ContractError, ExportError, WeightsError
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.own.hugging_face import HuggingFaceSource
from clipserve_export.specs import Geometry
from clipserve_export.weights import read_tensors
from tests.export.conftest import Run
from tests.export.small_checkpoint import (
    BUILDERS,
    CROP,
    FRAMES,
    LABELS,
    MEAN,
    PICTURE,
    SHORT_SIDE,
    make_processor,
    save_checkpoint,
    transformers,
)


def expected_scores(kind: str, model: Any, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By transformers alone: its processor, its model, and one softmax."""
    pixels = make_processor(kind)(list(frames), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, FRAMES, 3, CROP, CROP)
    with torch.no_grad():
        logits = model(pixels).logits
    scores: NDArray[np.float32] = logits.softmax(-1)[0].numpy()
    return scores


FORM_CASES = [
    pytest.param(kind, form, marks=() if (kind, form) == ("videomae", "torchscript") else pytest.mark.long)
    for kind in BUILDERS
    for form in FORMATS
]


@pytest.mark.parametrize(("kind", "form"), FORM_CASES)
def test_scores_are_those_of_transformers_for_the_same_frames(kind: str, form: FormatName, tmp_path: Path) -> None:
    model = save_checkpoint(kind, tmp_path)
    source = HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None)
    loaded = source.load()
    contract = loaded.contract
    assert (contract.frames, contract.short_side, contract.crop) == (FRAMES, SHORT_SIDE, CROP)
    assert (contract.classes, contract.feature_size, list(loaded.labels or ())) == (3, 32, list(LABELS.values()))
    path = tmp_path / FORMATS[form].filename
    FORMATS[form].write(loaded.network, source.spec.geometry, path)
    # Frames of the size that the resize makes, so that only its rounding is left out.
    size = Geometry(frames=FRAMES, stride=1, short_side=SHORT_SIDE, crop=SHORT_SIDE)
    frames = random_clips(size, batch=2, views=1, seed=3)[:, 0].numpy()
    margin = (SHORT_SIDE - CROP) // 2
    clips = frames[:, :, margin : margin + CROP, margin : margin + CROP]
    scores, features = FORMATS[form].load(path)(np.ascontiguousarray(clips[:, None]))
    expected = np.stack([expected_scores(kind, model, each) for each in frames])
    assert np.abs(expected[0] - expected[1]).max() > 0.005, "these weights do not tell one clip from another"
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert features.shape == (2, 32)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "videomae" else pytest.mark.long) for kind in BUILDERS]
)
def test_a_traced_network_makes_its_tensors_where_its_clips_are(kind: str, tmp_path: Path) -> None:
    """On torch's device "meta", which has shapes and no values, in place of a GPU."""
    save_checkpoint(kind, tmp_path)
    source = HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None)
    FORMATS["torchscript"].write(source.load().network, source.spec.geometry, tmp_path / "model.pt", target="gpu")
    graph: Any = torch.jit.load(tmp_path / "model.pt").graph.copy()
    graph.eraseInput(0)  # the module
    weights = []
    for constant in graph.findAllNodes("prim::Constant"):
        if constant.hasAttribute("value") and constant.kindOf("value") == "t" and constant.t("value").dim():
            constant.output().replaceAllUsesWith(graph.addInput())
            weights.append(constant.t("value").to("meta"))
    clip = random_clips(source.spec.geometry, batch=2, views=2, seed=3).to("meta")
    scores, features = torch._C._create_function_from_graph("forward", graph)(clip, *weights)
    assert (scores.device.type, scores.shape, features.shape) == ("meta", (2, 3), (2, 32))


def test_an_export_shows_the_licence_and_keeps_the_labels(tmp_path: Path, run: Run) -> None:
    save_checkpoint("videomae", tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    repository = tmp_path / "repository"
    arguments = ["--name", "mine", "--format", "torchscript", "--repository", repository]
    status, said = run("export", f"hf:{tmp_path / 'checkpoint'}", *arguments)
    assert status == 0, said
    assert "licence of the weights: cc-by-nc-4.0" in said
    assert (repository / "mine_net" / "labels.txt").read_text() == "waving\nclapping\nrunning\n"
    contract = json.loads((repository / "mine_net" / "1" / "contract.json").read_text())
    assert contract["weights_licence"] == "cc-by-nc-4.0"
    assert contract["mean"] == MEAN


@pytest.mark.long
def test_an_export_prints_no_warnings_about_training(tmp_path: Path) -> None:
    """As transformers does for ViViT, whose config names no loss."""
    save_checkpoint("vivit", tmp_path / "checkpoint")
    command = [sys.executable, "-m", "clipserve", "export", f"hf:{tmp_path / 'checkpoint'}", "--name", "mine"]
    options = ["--format", "torchscript", "--repository", str(tmp_path / "repository")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=True)
    assert "[transformers]" not in done.stdout + done.stderr
    assert "licence of the weights" in done.stdout + done.stderr


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = save_checkpoint("videomae", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has no \*\.safetensors.*save_pretrained"):
        HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None).load()


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (
            "config.json",
            {"model_type": "bert"},
            "is of a bert, but only videomae, timesformer, vivit, vjepa2 are supported",
        ),
        ("config.json", {"model_type": ["videomae"]}, "but only videomae, timesformer"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 32}}, "do not say short_side"),
        ("preprocessor_config.json", {"do_center_crop": False}, "do not say short_side, crop"),
        ("preprocessor_config.json", {"crop_size": 48}, "crop 48 does not fit"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "a number for each of 3 channels"),
        ("preprocessor_config.json", {"image_mean": None}, "do not say mean, deviation"),
    ],
)
def test_files_that_say_what_decoding_cannot_do_are_refused(
    file: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save_checkpoint("videomae", tmp_path)
    values = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(values | changes))
    with pytest.raises(ContractError, match=said):
        HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None)


@pytest.mark.parametrize("left", ["nothing", "some"])
def test_labels_that_a_checkpoint_lacks_are_given_by_a_file(left: str, tmp_path: Path, run: Run) -> None:
    save_checkpoint("videomae", tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    config["id2label"] = {"0": "waving", "2": "running", "3": "sitting"}
    if left == "nothing":  # transformers leaves them out of a checkpoint with two unnamed classes
        del config["id2label"], config["label2id"]
        config["num_labels"] = 3
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.txt").write_text("one\ntwo\nthree\n")
    place = ["--name", "mine", "--format", "torchscript", "--repository", tmp_path / "repository"]
    status, said = run("export", f"hf:{tmp_path / 'checkpoint'}", *place)
    assert (status, "has 3 classes and no names for them: give a file by --labels" in said) == (1, True), said
    status, said = run("export", f"hf:{tmp_path / 'checkpoint'}", "--labels", tmp_path / "mine.txt", *place)
    assert status == 0, said
    assert (tmp_path / "repository" / "mine_net" / "labels.txt").read_text() == "one\ntwo\nthree\n"


def test_a_pretrained_network_without_a_head_is_no_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(patch_size=8, tubelet_size=2, **PICTURE)
    transformers.VideoMAEModel(config).save_pretrained(tmp_path)
    make_processor("videomae").save_pretrained(tmp_path)
    source = HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None)
    with pytest.raises(WeightsError, match=r"lacks . weights of VideoMAEForVideoClassification, 'classifier\.bias'"):
        source.load()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"id2label": ["one", "two", "three"]},
            r"id2label is \['one', 'two', 'three'\], but must name each class by its",
        ),
        ({"num_hidden_layers": 1}, "weights of layers that config.json does not name, 'videomae.encoder.layer.1."),
        ({"id2label": {"waving": 0}}, "must name each class by its number"),
        ({"id2label": {"0": {"name": "waving"}, "1": "running", "2": "sitting"}}, "must name each class by its number"),
        ({"id2label": {"0": "waving"}}, r"'classifier.bias' has the shape \[3\], and config.json makes it \[1\]"),
        ({"intermediate_size": 48}, "has the shape .* the configuration is of another network than the weights"),
    ],
)
def test_a_configuration_that_contradicts_the_weights_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save_checkpoint("videomae", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ExportError, match=said):
        HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None).load()


def test_a_checkpoint_in_float16_is_computed_in_float32(tmp_path: Path) -> None:
    save_checkpoint("videomae", tmp_path).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    network = HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None).load().network
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


def test_a_pointer_in_place_of_weights_is_told_apart(tmp_path: Path) -> None:
    save_checkpoint("videomae", tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(WeightsError, match=r"as a pointer of Git LFS \(git lfs pull fetches the file\) does"):
        HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None).load()
    with pytest.raises(WeightsError, match="as a pointer of Git LFS"):
        read_tensors(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ContractError, match="cannot be read: maximum recursion depth exceeded"):
        HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=None)


def test_weights_of_another_file_are_not_for_a_checkpoint(tmp_path: Path, run: Run) -> None:
    save_checkpoint("videomae", tmp_path)
    status, said = run("export", f"hf:{tmp_path}", "--name", "mine", "--weights", tmp_path / "model.safetensors")
    assert status == 1
    assert "has weights of its own" in said


def test_a_contract_file_replaces_values_of_the_checkpoint(tmp_path: Path) -> None:
    save_checkpoint("videomae", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "mine.toml").write_text("stride = 2\nshort_side = 36\ncrop = 32\nmean = 0.5\ndeviation = 0.5\n")
    source = HuggingFaceSource.named(str(tmp_path), name="mine", contract_file=tmp_path / "mine.toml")
    contract = source.spec.contract
    assert (contract.stride, contract.short_side, contract.mean) == (2, 36, (0.5, 0.5, 0.5))


def test_a_folder_that_is_not_there_is_no_repository_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such folder"):
        HuggingFaceSource.named(str(tmp_path / "absent"), name="mine", contract_file=None)
