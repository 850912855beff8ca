"""R(2+1)D: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", arXiv 1711.11248."""

from clipserve_export.families.hub import HubNetwork


class R2Plus1DNetwork(HubNetwork):
    """The hub's R(2+1)D ends in a softmax."""

    hub = "models.hub.r2plus1d"


ADAPTER = R2Plus1DNetwork
