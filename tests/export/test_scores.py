"""The served networks give PyTorchVideo's numbers, as published, for every model."""

import pytest
import torch
from torch import Tensor, nn

from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import projection_key, served_network
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import Weights, random_weights
from clipserve_export.zoo import pytorchvideo
from tests.export.small_mvit import SMALL_MVIT, build_small_mvit

KINETICS = [spec for spec in SPECS.values() if spec.family in ("x3d", "mvit")]  # the rest: test_families.py
MEAN, STD = 0.45, 0.225


def normalised(clip: Tensor) -> Tensor:
    """uint8 [T, S, S, 3] -> float [1, 3, T, S, S], written out apart from the code under test."""
    return ((clip.permute(3, 0, 1, 2).double() / 255.0 - MEAN) / STD).float()[None]


def published_model(spec: ModelSpec, weights: Weights) -> nn.Module:
    """The hub's own model. Its X3D of 0.1.5 ends in a softmax at each position, then their mean; MViT in logits."""
    hub = pytorchvideo("models.hub.x3d" if spec.family == "x3d" else "models.hub.vision_transformers")
    model: nn.Module = getattr(hub, spec.name)()
    model.load_state_dict(weights.state)
    return model.eval()


def projection_input(model: nn.Module, spec: ModelSpec, frames: Tensor) -> tuple[Tensor, Tensor]:
    """What the hub's model answers, and what its projection was given: [1, P, D] or [1, D]."""
    seen = []
    projection = model.get_submodule(projection_key(spec).removesuffix(".weight"))
    hook = projection.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        answer = model(frames)
    hook.remove()
    return answer, seen[0]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(spec, id=spec.name, marks=() if spec.name in ("x3d_xs", "small_mvit") else pytest.mark.long)
        for spec in (*KINETICS, SMALL_MVIT)
    ],
)
def networks(request: pytest.FixtureRequest) -> tuple[ModelSpec, ActionNetwork, nn.Module]:
    spec: ModelSpec = request.param
    if spec == SMALL_MVIT:
        return spec, *build_small_mvit()
    weights = random_weights(spec)
    return spec, served_network(spec, weights.state), published_model(spec, weights)


def test_scores_and_features_are_those_of_pytorchvideos_own_model_averaged_over_views(
    networks: tuple[ModelSpec, ActionNetwork, nn.Module],
) -> None:
    spec, network, published = networks
    clips = random_clips(spec.geometry, batch=1, views=2, seed=7)
    with torch.no_grad():
        scores, features = network(clips)
    expected_scores, expected_features = [], []
    for view in clips[0]:
        answer, embedding = projection_input(published, spec, normalised(view))
        expected_scores.append(answer[0] if spec.family == "x3d" else answer[0].softmax(0))
        expected_features.append(embedding.reshape(-1, embedding.shape[-1]).mean(0))
    torch.testing.assert_close(scores[0], torch.stack(expected_scores).mean(0), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(features[0], torch.stack(expected_features).mean(0), rtol=1e-3, atol=1e-4)
    assert features.shape[1] == spec.feature_size
    assert abs(float(scores.sum()) - 1) < 1e-5
    # Two views that answer alike would let a mean over the wrong axis pass.
    assert float((expected_features[0] - expected_features[1]).abs().max()) > 1e-2


def test_a_sure_network_can_say_so() -> None:
    """A second softmax would cap the best of 400 scores at e / (e + 399) = 0.0068."""
    spec = SPECS["x3d_xs"]
    network = served_network(spec, random_weights(spec).state)
    network.projection.weight.mul_(1000)
    with torch.no_grad():
        scores, _ = network(random_clips(spec.geometry, batch=1, views=1, seed=3))
    # Each of four positions is sure; they need not agree.
    assert float(scores.max()) > 0.2


def test_softmax_is_taken_at_each_position_before_the_mean() -> None:
    spec = SPECS["x3d_xs"]
    network = served_network(spec, random_weights(spec).state)
    network.projection.weight.mul_(50)
    clip = random_clips(spec.geometry, batch=1, views=1, seed=5)
    with torch.no_grad():
        embedding = network.embed(normalised(clip[0, 0]))
        scores, _ = network(clip)
        of_each = network.projection(embedding).softmax(-1).mean(1)
        of_the_mean = network.projection(embedding.mean(1)).softmax(-1)
    assert embedding.shape == (1, 4, 2048)  # 2 x 2 positions at the test crop
    torch.testing.assert_close(scores, of_each)
    assert float((scores - of_the_mean).abs().max()) > 1e-3
