"""PyTorchVideo's network builders, importable with and without torchvision.

When `pytorchvideo.models.head` is imported, it imports `torchvision.ops.RoIAlign` for its detection heads, which are
not used here. torchvision has no build for every build of torch. Where it is not installed, a placeholder takes that
name while PyTorchVideo is imported. It is removed afterwards, because torch itself looks for torchvision later.
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
def _torchvision_placeholder() -> Iterator[None]:
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        yield
        return
    torchvision, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
    ops.RoIAlign = _NoRoIAlign  # type: ignore[attr-defined]
    placeholders = {"torchvision": torchvision, "torchvision.ops": ops}
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name in placeholders:
            del sys.modules[name]


def pytorchvideo(module: str) -> ModuleType:
    """The module `pytorchvideo.<module>`, for example `models.hub.x3d`."""
    with _torchvision_placeholder():
        return importlib.import_module(f"pytorchvideo.{module}")
