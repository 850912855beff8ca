"""PyTorchVideo's network builders, importable with and without torchvision.

`pytorchvideo.models.head` imports `torchvision.ops.RoIAlign` when it is loaded, for its detection heads only.
torchvision has no build for every torch build, and nothing here detects boxes, so where it is absent that one
name gets a stand-in that refuses to be used.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _NoRoIAlign:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("detection heads need torchvision, which is not installed")


def _fill_the_torchvision_gap() -> None:
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        return
    torchvision, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
    ops.RoIAlign = _NoRoIAlign  # type: ignore[attr-defined]
    torchvision.ops = ops  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": torchvision, "torchvision.ops": ops})


def pytorchvideo(module: str) -> ModuleType:
    """The module `pytorchvideo.<module>`, for example `models.hub.x3d`."""
    _fill_the_torchvision_gap()
    return importlib.import_module(f"pytorchvideo.{module}")
