"""C2D, I3D and Slow, each a ResNet-50: Feichtenhofer et al., "SlowFast Networks", https://arxiv.org/abs/1812.03982."""

from clipserve_export.families.hub import HubNetwork


class ResNetNetwork(HubNetwork):
    """The hub's ResNets end in logits."""

    hub = "models.hub.resnet"


ADAPTER = ResNetNetwork
