"""Human-action recognition for video: the client of a clipserve server.

>>> from clipserve import VideoClassifier
>>> with VideoClassifier("x3d_m") as classifier:
...     print(classifier.classify("archery.mp4").top)
archery 0.93

>>> with VideoClassifier("x3d_m") as classifier:
...     table = classifier.classify_many("videos/", parallel=5).table()
>>> table.show()

public.py lists the names. The first use of one of them imports it (PEP 562): gRPC and numpy take most of a second on a
small machine, and the program `clipserve` handles Ctrl-C before that.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipserve.public import *  # noqa: F403
else:  # type checkers would take any name

    def __getattr__(name: str) -> Any:
        value = None
        if name in ("__all__", "__version__") or (name.isidentifier() and not name.startswith("__")):
            is_module = find_spec(f"clipserve.{name}") is not None
            value = (
                import_module(f"clipserve.{name}")
                if is_module
                else getattr(import_module("clipserve.public"), name, None)
            )
        if value is None:
            raise AttributeError(f"module 'clipserve' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(import_module("clipserve.public").__all__)
