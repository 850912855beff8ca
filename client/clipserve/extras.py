"""Packages that only some extras install. They are imported when they are used: the client itself does without them."""

import importlib
from typing import Any

from clipserve.errors import InvalidRequest


def load(module: str, extra: str) -> Any:
    """Import a module of a package that `pip install 'clipserve[extra]'` installs.

    Raises:
        InvalidRequest: the package cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name in (package, module)
        reason = "is not installed" if absent else f"does not import ({error})"
        raise InvalidRequest(f"this needs {package}, which {reason}: pip install 'clipserve[{extra}]'") from error
