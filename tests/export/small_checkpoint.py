"""Checkpoints of Hugging Face's video classifiers, tiny and random, as their authors would save them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

SHORT_SIDE, CROP, FRAMES = 40, 32, 4
LABELS = {0: "waving", 1: "clapping", 2: "running"}
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZES = {"size": {"shortest_edge": SHORT_SIDE}, "crop_size": {"height": CROP, "width": CROP}}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "id2label": LABELS,
}
PICTURE = {"image_size": CROP, "num_frames": FRAMES, **SMALL}


def build_videomae() -> Any:
    return transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(patch_size=8, tubelet_size=2, **PICTURE)
    )


def build_timesformer() -> Any:
    return transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(patch_size=8, **PICTURE))


def build_vivit() -> Any:
    return transformers.VivitForVideoClassification(transformers.VivitConfig(tubelet_size=[2, 8, 8], **PICTURE))


def build_vjepa2() -> Any:
    sizes = {"crop_size": CROP, "patch_size": 8, "frames_per_clip": FRAMES, "tubelet_size": 2, "mlp_ratio": 2}
    predictor = {"pred_hidden_size": 32, "pred_num_hidden_layers": 2, "pred_num_attention_heads": 2}
    config = transformers.VJEPA2Config(num_pooler_layers=1, **sizes, **predictor, **SMALL)
    return transformers.VJEPA2ForVideoClassification(config)


def make_processor(kind: str) -> Any:
    if kind == "vivit":
        return transformers.VivitImageProcessor(**SIZES)
    return transformers.VideoMAEImageProcessorPil(image_mean=MEAN, image_std=DEVIATION, **SIZES)


BUILDERS: dict[str, Callable[[], Any]] = {
    "videomae": build_videomae,
    "timesformer": build_timesformer,
    "vivit": build_vivit,
    "vjepa2": build_vjepa2,
}


def save_checkpoint(kind: str, folder: Path) -> Any:
    """A checkpoint as its authors would save it. Returns the model."""
    torch.manual_seed(0)
    model = BUILDERS[kind]().eval()
    with torch.no_grad():
        model.classifier.weight.mul_(200)  # far from even scores, so that a wrong pixel shows
    model.save_pretrained(folder)
    if kind == "vjepa2":
        steps = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "rescale_factor": 1 / 255}
        numbers = {"do_normalize": True, "image_mean": MEAN, "image_std": DEVIATION}
        (folder / "video_preprocessor_config.json").write_text(json.dumps({**SIZES, **steps, **numbers}))
    else:
        make_processor(kind).save_pretrained(folder)
    return model
