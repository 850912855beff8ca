"""What evaluation needs beyond the client, loaded when it is used."""

import importlib
from typing import Any

from clipserve.errors import InvalidRequest

MEASURING = ("sklearn.metrics", "scipy.stats")
DRAWING = ("matplotlib", "jinja2")


def load(module: str) -> Any:
    """Import a module of the extra `evaluation`.

    Raises:
        InvalidRequest: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        package = module.partition(".")[0]
        if missing.name is None or missing.name.partition(".")[0] != package:
            raise  # something that the module itself needs
        raise InvalidRequest(f"evaluation needs {package}: pip install 'clipserve[evaluation]'") from missing


def check_installed(modules: tuple[str, ...]) -> None:
    """Raise InvalidRequest now, and not after hours of asking a server."""
    for module in modules:
        load(module)
