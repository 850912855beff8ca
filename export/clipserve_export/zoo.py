"""PyTorchVideo's network builders, importable with and without torchvision.

`pytorchvideo.models.head` imports `torchvision.ops.RoIAlign` when it is loaded, for its detection heads only.
torchvision has no build for every torch build, and nothing here detects boxes, so where it is absent that one
name gets a stand-in while PyTorchVideo loads. It is gone afterwards: torch itself looks for torchvision later.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _NoRoIAlign:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("detection heads need torchvision, which is not installed")


@contextmanager
def _torchvision_gap_filled() -> Iterator[None]:
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        yield
        return
    torchvision, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
    ops.RoIAlign = _NoRoIAlign  # type: ignore[attr-defined]
    stand_ins = {"torchvision": torchvision, "torchvision.ops": ops}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def pytorchvideo(module: str) -> ModuleType:
    """The module `pytorchvideo.<module>`, for example `models.hub.x3d`."""
    with _torchvision_gap_filled():
        return importlib.import_module(f"pytorchvideo.{module}")
