"""From a file over gRPC to PyTorch's own numbers, for every model in both formats.

Calls are retried: large networks on few cores are busy at times.
"""

import asyncio
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import AsyncVideoClassifier, ScoredLabel, VideoClassifier
from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import served_network
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.parity import FLOAT32
from clipserve_export.repository import read_config
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import load_weights, offline_weights
from tests.service import Service


def decode_plainly(path: Path, spec: ModelSpec) -> torch.Tensor:
    """uint8 [1, 1, T, S, S, 3] as PyTorchVideo would: every frame, its index rule, its bilinear resize, its crop."""
    geometry = spec.geometry
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    indices = torch.linspace(0, len(frames) - 1, geometry.frames).clamp(0, len(frames) - 1).long()
    clip = torch.from_numpy(np.stack([frames[index] for index in indices])).permute(0, 3, 1, 2)
    height, width = clip.shape[-2:]
    scale = geometry.short_side / min(height, width)
    size = [geometry.short_side if side == min(height, width) else math.floor(side * scale) for side in (height, width)]
    scaled = interpolate(clip.float(), size=size, mode="bilinear", align_corners=False)
    top, left = (math.ceil((side - geometry.crop) / 2) for side in size)
    crop = scaled[:, :, top : top + geometry.crop, left : left + geometry.crop]
    return crop.round().byte().permute(0, 2, 3, 1)[None, None]


def infer(url: str, model: str, name: str, array: np.ndarray, **parameters: object) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """SCORES and FEATURES of `model` by plain tritonclient."""
    kind = "BYTES" if array.dtype == np.object_ else "UINT8"
    with triton_grpc.InferenceServerClient(url) as client:
        tensor = triton_grpc.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        result = client.infer(model, [tensor], parameters=parameters)
        return {output: result.as_numpy(output) for output in ("SCORES", "FEATURES")}


# Not PyTorchVideo's ResNets, whose exports take minutes: tests/export/test_families.py compares them at small clips.
SERVED_FAMILIES = ("motion", "x3d", "mvit")
# The largest of their families, with the same code; tests/export/test_scores.py compares their numbers.
TOO_LARGE = ("x3d_l", "mvit_base_32x3")
SERVED = [
    pytest.param(spec, id=spec.name, marks=() if spec.name in ("motion", "x3d_s") else pytest.mark.long)
    for spec in SPECS.values()
    if spec.family in SERVED_FAMILIES and spec.name not in TOO_LARGE
]


@pytest.fixture(params=SERVED)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return request.param  # type: ignore[no-any-return]


def test_a_file_gives_what_pytorchvideo_gives_for_it(
    service: Service, spec: ModelSpec, real_videos: list[Path]
) -> None:
    """Frames, resize, crop and network at once; `reference` quality is PyTorchVideo's resize but for rounding."""
    path = next(path for path in real_videos if path.name == "bikes.mp4")
    with torch.no_grad():
        network = served_network(spec, load_weights(spec, offline_weights(spec)).state)
        scores, features = network(decode_plainly(path, spec))
    video = np.array([[path.read_bytes()]], dtype=np.object_)
    served = infer(service.url, spec.name, "VIDEO", video, quality="reference")
    assert served["SCORES"].sum() == pytest.approx(1, abs=1e-5)
    # Rounding a grey level the other way moves X3D's features by a percent and hardly its scores.
    np.testing.assert_allclose(served["SCORES"], scores, atol=1e-3)
    assert cosine(served["FEATURES"], features.numpy()) > 0.9999
    # And by the client, with the faster resize that is the default.
    with VideoClassifier(spec.name, url=service.url) as classifier:
        prediction = classifier.classify(path, top_k=scores.shape[1], features=True, retry=True)
    assert sum(scored.score for scored in prediction) == pytest.approx(1, abs=1e-4)
    assert prediction.features is not None
    assert cosine(prediction.features, features.numpy()) > 0.99


def cosine(one: np.ndarray, other: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(one.ravel() @ other.ravel() / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_served_network_is_the_exported_one_to_four_digits(service: Service, spec: ModelSpec) -> None:
    """The net step alone, on one and the same uint8 clip."""
    clip = random_clips(spec.geometry, batch=1, views=2, seed=11)
    with torch.no_grad():
        scores, _ = served_network(spec, load_weights(spec, offline_weights(spec)).state)(clip)
    served = infer(service.url, spec.net_name, "CLIP", clip.numpy())
    np.testing.assert_allclose(served["SCORES"], scores, atol=FLOAT32.scores)


def test_labels_come_with_the_index_they_have_in_the_label_file(
    service: Service, spec: ModelSpec, real_videos: list[Path]
) -> None:
    labels = (service.repository / spec.net_name / "labels.txt").read_text().splitlines()
    with VideoClassifier(spec.name, url=service.url) as classifier:
        prediction = classifier.classify(real_videos[0], top_k=3, retry=True)
    assert len(prediction) == 3
    assert all(labels[scored.index] == scored.label for scored in prediction)


def test_the_report_says_what_was_looked_at(service: Service, spec: ModelSpec, real_videos: list[Path]) -> None:
    path = next(path for path in real_videos if path.name == "bigbuckbunny.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size, rate = (stream.width, stream.height), float(stream.average_rate or 0)
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    with VideoClassifier(spec.name, url=service.url) as classifier:
        report = classifier.classify(path, report=True, retry=True).report
    assert report is not None
    assert (report["codec"], report["frames"]) == ("h264", len(times))
    assert (report["width"], report["height"]) == size
    assert report["fps"] == pytest.approx(rate, rel=0.01)
    assert report["duration_seconds"] == pytest.approx(len(times) / rate, rel=0.01)
    assert report["truncated"] is False
    assert 0 < report["decode_milliseconds"] < 30_000
    # One view, uniform: the first frame, the last, and those between at PyTorchVideo's numbers.
    ((used,),) = report["timestamps_seconds"].values()
    numbers = torch.linspace(0, len(times) - 1, spec.geometry.frames).long()
    assert used == pytest.approx([times[number] - times[0] for number in numbers], abs=2e-3)
    assert json.dumps(report)


async def test_the_async_client_gives_the_same_answers_many_at_a_time(
    service: Service, real_videos: list[Path]
) -> None:
    with VideoClassifier("motion", url=service.url) as classifier:
        expected = [classifier.classify(path, top_k=12, retry=True).labels for path in real_videos]
    async with AsyncVideoClassifier("motion", url=service.url) as classifier_:
        answers = await asyncio.gather(*(classifier_.classify(path, top_k=12, retry=True) for path in real_videos * 4))
    for answer, wanted in zip(answers, expected * 4, strict=True):
        assert answer.top.label == wanted[0].label
        # Batched with others, the last digits may differ.
        assert dict(scores_of(answer.labels)) == pytest.approx(dict(scores_of(wanted)), abs=1e-4)


def scores_of(labels: Iterable[ScoredLabel]) -> list[tuple[str, float]]:
    return [(scored.label, scored.score) for scored in labels]


def test_a_path_bytes_and_an_open_file_are_the_same_video(service: Service, real_videos: list[Path]) -> None:
    path = real_videos[0]
    with VideoClassifier("motion", url=service.url) as classifier, path.open("rb") as file:
        answers = [classifier.classify(video).labels for video in (path, str(path), path.read_bytes(), file)]
    assert answers == [answers[0]] * 4


def test_a_clip_that_is_not_the_models_shape_is_refused_by_its_config(service: Service) -> None:
    """A traced X3D would take a wrong crop in silence."""
    assert list(read_config(service.repository, "motion_net").input[0].dims) == [-1, 8, 64, 64, 3]
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        infer(service.url, "motion_net", "CLIP", np.zeros((1, 1, 8, 56, 56, 3), np.uint8))


def test_a_video_that_never_touched_a_disk_is_classified(service: Service) -> None:
    video = io.BytesIO()
    write_motion_video(video, "growing", 5_000_000, container="mp4")
    video.seek(0)
    with VideoClassifier("motion", url=service.url) as classifier:
        assert classifier.classify(video).top.label == "growing"
