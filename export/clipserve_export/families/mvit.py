"""MViT: Fan et al., "Multiscale Vision Transformers", https://arxiv.org/abs/2104.11227."""

from typing import cast

from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.families.adapter import Adapter
from clipserve_export.families.token_blocks import rewrite_blocks
from clipserve_export.specs import ModelSpec
from clipserve_export.zoo import pytorchvideo

HUB = "models.hub.vision_transformers"


class MViTNetwork(Adapter):
    """MViT has one position: its class token."""

    code = ("families/token_blocks.py",)

    def __init__(self, model: nn.Module, contract: ClipContract) -> None:
        super().__init__(model, contract)
        self.projection = model.get_submodule("head.proj")  # type: ignore[assignment]
        model.head = None  # type: ignore[assignment]
        self.trunk = model

    def embed(self, frames: Tensor) -> Tensor:
        """The class token."""
        tokens: Tensor = self.trunk(frames)
        return tokens[:, :1]

    def rewrite(self) -> None:
        """The hub's blocks copy every token several times, and compute tokens that nobody reads."""
        rewrite_blocks(self.trunk)

    @classmethod
    def build(cls, spec: ModelSpec, *, classes: int) -> nn.Module:
        """The hub's model without its last activation."""
        build = getattr(pytorchvideo(HUB), spec.name)
        return cast(nn.Module, build(head_num_classes=classes, head_activation=None))

    @classmethod
    def shapes(cls, spec: ModelSpec, *, classes: int) -> dict[str, Tensor]:
        """Built with values, because the hub's function reads some of them while it builds."""
        return cls.build(spec, classes=classes).state_dict()

    @classmethod
    def projection_name(cls, spec: ModelSpec) -> str:
        """The head's."""
        return "head.proj"

    @classmethod
    def published_weights(cls, spec: ModelSpec) -> str:
        """The hub's address."""
        return str(pytorchvideo(HUB).checkpoint_paths[spec.name])


ADAPTER = MViTNetwork
