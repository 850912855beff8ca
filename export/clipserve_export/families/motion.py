"""`motion`: a small X3D, trained on generated clips (clipserve_export.motion)."""

from pathlib import Path

from torch import nn

from clipserve_export.families.adapter import PACKAGE
from clipserve_export.families.hub import HubNetwork
from clipserve_export.motion.network import build_motion_network
from clipserve_export.specs import ModelSpec


class MotionNetwork(HubNetwork):
    """X3D at its narrowest, whose checkpoint is in this package."""

    code = ("motion/network.py",)

    @classmethod
    def build(cls, spec: ModelSpec, *, classes: int) -> nn.Module:
        """The network that `make motion` trains."""
        return build_motion_network(classes=classes)

    @classmethod
    def published_weights(cls, spec: ModelSpec) -> Path:
        """The committed checkpoint."""
        return PACKAGE / "motion" / "motion.pt"


ADAPTER = MotionNetwork
