"""SlowFast: Feichtenhofer et al., "SlowFast Networks for Video Recognition", https://arxiv.org/abs/1812.03982."""

import torch
from torch import Tensor

from clipserve_export.families.hub import HubNetwork

FRAMES_RATIO = 4  # alpha: the fast pathway sees so many times the frames of the slow one


class SlowFastNetwork(HubNetwork):
    """The hub's SlowFast ends in logits. The clip has the frames of the fast pathway."""

    hub = "models.hub.slowfast"

    @classmethod
    def model_input(cls, frames: Tensor) -> list[Tensor]:
        """Slow and fast pathway. SlowFast's pack_pathway_output picks the slow frames in this way."""
        count = frames.shape[2]
        slow = torch.linspace(0, count - 1, count // FRAMES_RATIO, device=frames.device).long()
        return [frames.index_select(2, slow), frames]


ADAPTER = SlowFastNetwork
