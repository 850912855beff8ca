"""A network as it is served: uint8 clips in, probabilities and features out.

The graph does all arithmetic: scaling to [0, 1], mean and standard deviation, the network, one softmax, the means. An
adapter (`clipserve_export.families`) takes the head of a network apart, because models do not end alike: X3D and
R(2+1)D of pytorchvideo 0.1.5 end in a softmax, its other models in logits. A second softmax over probabilities would be
an error that nobody notices.
"""

import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract


class ActionNetwork(nn.Module):
    """The common part of the served networks. A subclass defines `embed` and `projection`.

    The softmax is computed for each position and each view, and then averaged, as in the published test protocol. The
    softmax of averaged logits would be another value.
    """

    projection: nn.Linear
    mean: float | Tensor
    deviation: float | Tensor

    def __init__(self, contract: ClipContract) -> None:
        super().__init__()
        self.contract = contract
        for name in ("mean", "deviation"):
            values = getattr(contract, name)
            if len(set(values)) == 1:
                setattr(self, name, values[0])
            else:
                self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1), persistent=False)

    def embed(self, frames: Tensor) -> Tensor:
        """float [B, 3, T, S, S], normalised -> float [B, P, D]: one embedding for each of P positions."""
        raise NotImplementedError

    def rewrite(self) -> None:
        """Replace parts by faster ones of the same function, in place."""

    def normalise(self, clips: Tensor) -> Tensor:
        """uint8 [B, T, S, S, 3] RGB -> float [B, 3, T, S, S]. In memory the channels stay last."""
        if self.contract.channel_order == "BGR":
            clips = clips.flip(-1)
        return (clips.permute(0, 4, 1, 2, 3).float() / 255 - self.mean) / self.deviation

    def answer(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """float [B, 3, T, S, S], normalised -> scores float [B, K], features float [B, D] or None."""
        embedding = self.embed(frames)
        return self.projection(embedding).softmax(-1).mean(1), embedding.mean(1)

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """uint8 [N, V, T, S, S, 3] RGB -> SCORES float [N, K], FEATURES float [N, D]; SCORES alone without features."""
        batch, views = clip.shape[0], clip.shape[1]
        scores, features = self.answer(self.normalise(clip.flatten(0, 1)))
        scores = scores.reshape(batch, views, -1).mean(1)
        if features is None:
            return scores
        return scores, features.reshape(batch, views, -1).mean(1)


def as_tuple(answers: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a served network answers: scores, and features if it has any."""
    return (answers,) if isinstance(answers, Tensor) else answers
