"""CSN: Tran et al., "Video Classification with Channel-Separated Convolutional Networks", arXiv 1904.02811."""

from clipserve_export.families.hub import HubNetwork


class CSNNetwork(HubNetwork):
    """The hub's CSN ends in logits."""

    hub = "models.hub.csn"


ADAPTER = CSNNetwork
