"""PyTorchVideo's networks of blocks: stages, then a head that pools to a grid of positions and projects each."""

from pathlib import Path
from typing import ClassVar, cast

from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.families.adapter import Adapter
from clipserve_export.specs import ModelSpec
from clipserve_export.zoo import pytorchvideo


class HubNetwork(Adapter):
    """A model that a function of PyTorchVideo's hub builds. A subclass names the module of that function.

    A clip that is larger than the training crop is pooled to several positions (2 x 2; x3d_l 3 x 3).
    """

    hub: ClassVar[str]

    def __init__(self, model: nn.Module, contract: ClipContract) -> None:
        super().__init__(model, contract)
        *stages, head = model.get_submodule("blocks").children()
        self.stages = nn.Sequential(*stages)
        pool = head.pool
        self.pool = pool if isinstance(pool, nn.Module) else nn.Identity()  # SlowFast pools in the stage before
        self.projection = head.get_submodule("proj")  # type: ignore[assignment]

    def embed(self, frames: Tensor) -> Tensor:
        """One embedding for each position of the pooled grid."""
        positions: Tensor = self.pool(self.stages(self.model_input(frames)))
        return positions.flatten(2).transpose(1, 2)

    @classmethod
    def build(cls, spec: ModelSpec, *, classes: int) -> nn.Module:
        """The hub's model without its last activation."""
        build = getattr(pytorchvideo(cls.hub), spec.name)
        return cast(nn.Module, build(model_num_class=classes, head_activation=None))

    @classmethod
    def projection_name(cls, spec: ModelSpec) -> str:
        """In the last block. How many there are depends on the model."""
        (name,) = (name for name in cls.shapes(spec, classes=1) if name.endswith(".proj.weight"))
        return name.removesuffix(".weight")

    @classmethod
    def published_weights(cls, spec: ModelSpec) -> str | Path:
        """The hub's address."""
        return str(pytorchvideo(cls.hub).checkpoint_paths[spec.name])
