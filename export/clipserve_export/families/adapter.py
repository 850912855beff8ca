"""What every adapter defines, and how the one of a model is found."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import ModelSpec

PACKAGE = Path(__file__).parents[1]


class Adapter(ActionNetwork):
    """The networks of one family. A subclass defines `__init__`, `embed` and the class methods.

    Attributes:
        code: other modules of this package that decide what an exported file contains, such as `motion/network.py`.
    """

    code: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: nn.Module, contract: ClipContract) -> None:
        """Take the model apart: `projection`, and what `embed` needs."""
        super().__init__(contract)

    @classmethod
    def build(cls, spec: ModelSpec, *, classes: int) -> nn.Module:
        """The model with the parameter names of its checkpoints, ending in logits. torch's seed decides the weights."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, spec: ModelSpec, *, classes: int) -> dict[str, Tensor]:
        """The state dict of the built model: names, shapes and types. The values mean nothing."""
        with torch.device("meta"):
            return cls.build(spec, classes=classes).state_dict()

    @classmethod
    def projection_name(cls, spec: ModelSpec) -> str:
        """The name of the projection in the built model."""
        raise NotImplementedError

    @classmethod
    def published_weights(cls, spec: ModelSpec) -> str | Path:
        """The published checkpoint: its address, or its path in this package."""
        raise NotImplementedError

    @classmethod
    def model_input(cls, frames: Tensor) -> Any:
        """What the built model takes for float [B, 3, T, S, S], normalised."""
        return frames

    @classmethod
    def recipe_files(cls) -> list[Path]:
        """The code that decides what an exported file contains, beside what all families share."""
        modules = [sys.modules[ancestor.__module__] for ancestor in cls.__mro__]
        paths = [Path(str(module.__file__)) for module in modules if getattr(module, "__file__", None)]
        own = [path for path in paths if path.is_relative_to(PACKAGE)]
        return [*dict.fromkeys(own), *(PACKAGE / name for name in cls.code)]


def adapter_of(spec: ModelSpec) -> type[Adapter]:
    """The adapter of a model's family."""
    adapter: type[Adapter] = import_module(f"clipserve_export.families.{spec.family}").ADAPTER
    return adapter


def build_model(spec: ModelSpec, *, classes: int) -> nn.Module:
    """The model with the parameter names of its checkpoints. torch's seed decides the weights."""
    return adapter_of(spec).build(spec, classes=classes)


@cache
def projection_key(spec: ModelSpec) -> str:
    """The state-dict name of the projection's weight, whose first dimension is the number of classes."""
    return f"{adapter_of(spec).projection_name(spec)}.weight"


def served_network(spec: ModelSpec, state: Mapping[str, Tensor]) -> ActionNetwork:
    """The network of `spec` with the weights of `state`, in evaluation mode.

    Raises torch's RuntimeError when names or shapes in `state` are not those of the network.
    """
    model = build_model(spec, classes=state[projection_key(spec)].shape[0])
    model.load_state_dict(state)
    return adapter_of(spec)(model, spec.contract).eval().requires_grad_(False)
