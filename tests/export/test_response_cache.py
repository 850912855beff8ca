"""Why only the network has a response cache, and what that answers, in a real Triton.

Triton's key is the model's name and version and the bytes of its inputs (TritonCache::Hash in core's cache_manager.cc).
The tests of what the key leaves out fail on a release that has learned it: then more could be cached.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import VideoClassifier
from clipserve_export.clips import random_clips
from clipserve_export.repository import write_serving
from clipserve_export.serving.choices import Serving
from clipserve_server.wheel import find_wheel
from tests.export.conftest import MOTION
from tests.motion_repository import ANY_PORTS, KilledTriton, change_config, clip_input, video_input

pytestmark = pytest.mark.long

CLIP = random_clips(MOTION.geometry, batch=1, views=2, seed=1).numpy()


@contextmanager
def caching(repository: Path) -> Iterator[triton_grpc.InferenceServerClient]:
    folder = find_wheel().binary.parents[1] / "caches"
    options = [f"--cache-directory={folder}", "--cache-config=local,size=33554432"]
    with (
        KilledTriton(repository, models=["motion"], options=options, **ANY_PORTS) as triton,
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        client.url = triton.grpc_url
        yield client


def infer(client: triton_grpc.InferenceServerClient, clip: np.ndarray, *outputs: str) -> triton_grpc.InferResult:  # type: ignore[type-arg]
    wanted = [triton_grpc.InferRequestedOutput(name) for name in outputs]
    return client.infer("motion_net", [clip_input(clip)], outputs=wanted)


def hits(client: triton_grpc.InferenceServerClient, model: str) -> int:
    (statistics,) = client.get_inference_statistics(model).model_stats
    return int(statistics.inference_stats.cache_hit.count)


def enable(repository: Path, model: str) -> None:
    change_config(repository, model, lambda config: setattr(config.response_cache, "enable", True))


@pytest.mark.parametrize("model", ["motion", "decode"])
def test_cached_ahead_of_the_network_a_request_for_one_part_gets_the_answer_of_another(
    repository: Path, model: str, real_videos: list[Path]
) -> None:
    enable(repository, model)
    with caching(repository) as client, VideoClassifier("motion", client.url) as classifier:
        whole = classifier.classify(real_videos[0])
        part = classifier.classify(real_videos[0], start=1.0, end=2.0)
        assert hits(client, model) == 1
    assert part.top == whole.top, "request parameters are in the key by now"


def test_the_key_leaves_out_shapes_and_outputs(repository: Path) -> None:
    """So an ensemble with a cached network takes one video a request; only it and tests should ask the network."""
    write_serving(repository, MOTION, Serving(cache=True))
    with caching(repository) as client:
        assert infer(client, CLIP, "SCORES").as_numpy("SCORES").shape == (1, 12)
        two_videos = CLIP.reshape(2, 1, *CLIP.shape[2:])
        assert infer(client, two_videos, "SCORES").as_numpy("SCORES").shape == (1, 12), "shapes are in the key by now"
        assert infer(client, CLIP, "FEATURES").as_numpy("FEATURES") is None, "outputs are in the key by now"


def test_with_the_cache_every_question_about_a_video_gets_its_own_answer(
    repository: Path, real_videos: list[Path]
) -> None:
    write_serving(repository, MOTION, Serving(cache=True))
    questions: list[Callable[[VideoClassifier], object]] = [
        lambda classifier: classifier.classify(real_videos[0]).top,
        lambda classifier: classifier.classify(real_videos[0], start=1.0, end=2.0).top,
        lambda classifier: classifier.classify(real_videos[0], sampling="clip", views=2).top,
        lambda classifier: classifier.classify(real_videos[1]).top,
        lambda classifier: classifier.classify(real_videos[0], features=True).features.tolist(),
        lambda classifier: classifier.classify(real_videos[0]).top,
    ]
    with (
        KilledTriton(repository, models=["motion"], **ANY_PORTS) as plain,
        VideoClassifier("motion", plain.grpc_url) as asked,
    ):
        expected = [question(asked) for question in questions]
    with caching(repository) as client, VideoClassifier("motion", client.url) as classifier:
        assert [question(classifier) for question in questions] == expected
        assert hits(client, "motion_net") == 2
        with pytest.raises(InferenceServerException, match="batch-size must be <= 1"):
            client.infer("motion", [video_input(*[real_videos[0].read_bytes()] * 2)])


def test_the_cache_outlives_the_weights_of_a_version_that_is_replaced(repository: Path) -> None:
    """Which is why an export says so; see `explain_publication`."""
    write_serving(repository, MOTION, Serving(cache=True))
    with caching(repository) as client:
        before = infer(client, CLIP, "SCORES").as_numpy("SCORES")
        prefer_class(repository / "motion_net" / "1" / "model.onnx", 3)
        client.load_model("motion_net")
        np.testing.assert_array_equal(infer(client, CLIP, "SCORES").as_numpy("SCORES"), before)
        assert infer(client, CLIP[:, :1], "SCORES").as_numpy("SCORES").argmax() == 3, "the new weights do answer"
    assert before.argmax() != 3


def prefer_class(path: Path, number: int) -> None:
    model = onnx.load(path)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "projection.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[number] += 20
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)
