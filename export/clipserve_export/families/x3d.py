"""X3D: Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", https://arxiv.org/abs/2004.04730."""

from torch import nn

from clipserve_export.families.hub import HubNetwork
from clipserve_export.specs import ModelSpec
from clipserve_export.zoo import pytorchvideo


class X3DNetwork(HubNetwork):
    """The hub's X3D. It ends in a softmax in pytorchvideo 0.1.5, and in logits on its git main."""

    hub = "models.hub.x3d"

    @classmethod
    def build(cls, spec: ModelSpec, *, classes: int) -> nn.Module:
        """The hub's model with SiLU.

        PyTorchVideo's Swish is a custom autograd function, which cannot be exported. SiLU is the same function.
        """
        model = super().build(spec, classes=classes)
        replace_swish(model)
        return model


def replace_swish(module: nn.Module) -> None:
    """Replace every PyTorchVideo Swish by `torch.nn.SiLU`, in place."""
    swish = pytorchvideo("layers.swish").Swish
    for name, child in module.named_children():
        if isinstance(child, swish):
            setattr(module, name, nn.SiLU())
        else:
            replace_swish(child)


ADAPTER = X3DNetwork
