"""How a network of any origin takes clips and answers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
from torch import Tensor

from clipserve.contract import ClipContract
from clipserve_export.errors import ContractError

Layout: TypeAlias = Literal["BCTHW", "BTCHW", "BTHWC"]
NumberType: TypeAlias = Literal["float32", "float16", "uint8"]
Answers: TypeAlias = Literal["logits", "probabilities"]

# The axes of float [B, C, T, H, W], and of uint8 [B, T, H, W, C], in the order of each layout.
FROM_FRAMES: dict[Layout, tuple[int, ...]] = {
    "BCTHW": (0, 1, 2, 3, 4),
    "BTCHW": (0, 2, 1, 3, 4),
    "BTHWC": (0, 2, 3, 4, 1),
}
FROM_CLIP: dict[Layout, tuple[int, ...]] = {
    "BCTHW": (0, 4, 1, 2, 3),
    "BTCHW": (0, 1, 4, 2, 3),
    "BTHWC": (0, 1, 2, 3, 4),
}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """The table [network] of a contract file. Every value has a default.

    Attributes:
        layout: of the input: batch, channels, time, height, width.
        type: of the input. uint8: the network normalises its pixels, 0 to 255, itself.
        answers: "logits", or "probabilities" for a network that ends in a softmax.
        head: the submodule of an nn.Module that turns the embedding into logits, an nn.Linear; "": it is searched.
        input: of a file: the name of the input; "": the only one.
        scores: of a file: the name of the output; "": the only one.
        features: of a file: the name of the output with the embedding; "": there is none.

    Raises:
        ValueError: a value is not allowed.
    """

    layout: Layout = "BCTHW"
    type: NumberType = "float32"
    answers: Answers = "logits"
    head: str = ""
    input: str = ""
    scores: str = ""
    features: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("layout", Layout), ("type", NumberType), ("answers", Answers)):
            if getattr(self, name) not in get_args(allowed):
                choices = " or ".join(get_args(allowed))
                raise ValueError(f"[network] {name} is {getattr(self, name)!r}, but must be {choices}")
        for name in ("head", "input", "scores", "features"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"[network] {name} is {getattr(self, name)!r}, but must be a name")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Raises ValueError for a name that does not exist, or a value that is not allowed."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"[network] has no {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**values)

    def refuse(self, *names: str, reason: str) -> None:
        """Raise ContractError where one of these values was given: it would have no effect."""
        if given := [name for name in names if getattr(self, name)]:
            raise ContractError(f"[network] {given[0]} is {getattr(self, given[0])!r}, and {reason}: leave it out")

    def arrange(self, frames: Tensor) -> Tensor:
        """float [B, 3, T, S, S] -> the layout and type of the network."""
        arranged = frames.permute(FROM_FRAMES[self.layout])
        if self.type == "uint8":
            return arranged.mul(255).round().to(torch.uint8)
        return arranged.half() if self.type == "float16" else arranged

    def describe_input(self, contract: ClipContract) -> str:
        """The shape that the network must take, such as `float32 [batch, 3, 16, 224, 224]`."""
        return f"{self.type} [batch, {', '.join(map(str, self.input_dims(contract)))}]"

    def input_dims(self, contract: ClipContract) -> list[int]:
        """Without the batch."""
        sizes = {"C": 3, "T": contract.frames, "H": contract.crop, "W": contract.crop}
        return [sizes[axis] for axis in self.layout[1:]]
