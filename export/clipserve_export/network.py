"""A network as it is served: uint8 clips in, probabilities and features out.

The graph does all arithmetic: scaling to [0, 1], mean and standard deviation, the network, one softmax, the means. The
head is taken apart, because the hub's models do not end alike: X3D of pytorchvideo 0.1.5 ends in a softmax, its git
main and all MViTs end in logits. A second softmax over probabilities would be an error that nobody notices.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from clipserve_export.motion.network import build_motion_network
from clipserve_export.specs import ModelSpec
from clipserve_export.zoo import pytorchvideo

# For RGB in [0, 1], the same for every channel (pytorchvideo docs/source/model_zoo.md).
MEAN, STD = 0.45, 0.225


def normalise(clips: Tensor) -> Tensor:
    """uint8 [B, T, S, S, 3] RGB -> float [B, 3, T, S, S]. In memory the channels stay last."""
    return (clips.permute(0, 4, 1, 2, 3).float() / 255 - MEAN) / STD


class ActionNetwork(nn.Module):
    """The common part of the served networks. A subclass defines `embed` and `projection`.

    The softmax is computed for each position and each view, and then averaged, as in the published test protocol. The
    softmax of averaged logits would be another value.
    """

    projection: nn.Linear

    def embed(self, frames: Tensor) -> Tensor:
        """float [B, 3, T, S, S], normalised -> float [B, P, D]: one embedding for each of P positions."""
        raise NotImplementedError

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [N, V, T, S, S, 3] RGB -> SCORES float [N, K], FEATURES float [N, D]."""
        batch, views = clip.shape[0], clip.shape[1]
        embedding = self.embed(normalise(clip.flatten(0, 1)))
        scores = self.projection(embedding).softmax(-1).mean(1)
        features = embedding.mean(1)
        return (
            scores.reshape(batch, views, -1).mean(1),
            features.reshape(batch, views, -1).mean(1),
        )


class X3DNetwork(ActionNetwork):
    """X3D pools to a grid of positions when the clip is larger than its training crop (2 x 2; x3d_l 3 x 3)."""

    def __init__(self, x3d: nn.Module) -> None:
        super().__init__()
        *stages, head = x3d.get_submodule("blocks").children()
        self.stages = nn.Sequential(*stages)
        self.pool = head.get_submodule("pool")
        self.projection = head.get_submodule("proj")  # type: ignore[assignment]

    def embed(self, frames: Tensor) -> Tensor:
        positions: Tensor = self.pool(self.stages(frames))
        return positions.flatten(2).transpose(1, 2)


class MViTNetwork(ActionNetwork):
    """MViT has one position: its class token."""

    def __init__(self, mvit: nn.Module) -> None:
        super().__init__()
        self.projection = mvit.get_submodule("head.proj")  # type: ignore[assignment]
        mvit.head = None  # type: ignore[assignment]
        self.trunk = mvit

    def embed(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.trunk(frames)
        return tokens[:, :1]


def build_hub_model(spec: ModelSpec, *, classes: int) -> nn.Module:
    """The model as PyTorchVideo builds it, with its checkpoints' parameter names. torch's seed decides the weights."""
    if spec.family == "motion":
        return build_motion_network(classes=classes)
    if spec.family == "x3d":
        build = getattr(pytorchvideo("models.hub.x3d"), spec.name)
        # PyTorchVideo's Swish is a custom autograd function, which cannot be exported. SiLU is the same function.
        model: nn.Module = build(model_num_class=classes, head_activation=None)
        replace_swish(model)
        return model
    build = getattr(pytorchvideo("models.hub.vision_transformers"), spec.name)
    mvit: nn.Module = build(head_num_classes=classes, head_activation=None)
    return mvit


def replace_swish(module: nn.Module) -> None:
    """Replace every PyTorchVideo Swish by `torch.nn.SiLU`, in place."""
    swish = pytorchvideo("layers.swish").Swish
    for name, child in module.named_children():
        if isinstance(child, swish):
            setattr(module, name, nn.SiLU())
        else:
            replace_swish(child)


def projection_key(spec: ModelSpec) -> str:
    """The state-dict name of the projection's weight, whose first dimension is the number of classes."""
    return "head.proj.weight" if spec.family == "mvit" else "blocks.5.proj.weight"


def served_network(spec: ModelSpec, state: Mapping[str, Tensor]) -> ActionNetwork:
    """The network of `spec` with the weights of `state`, in evaluation mode.

    Raises torch's RuntimeError when names or shapes in `state` are not those of the network.
    """
    model = build_hub_model(spec, classes=state[projection_key(spec)].shape[0])
    model.load_state_dict(state)
    network = MViTNetwork(model) if spec.family == "mvit" else X3DNetwork(model)
    return network.eval().requires_grad_(False)
