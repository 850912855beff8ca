"""What evaluation needs beyond the client, loaded when it is used."""

import importlib
from typing import Any


def load(module: str) -> Any:
    """Import a module of the extra `evaluation`.

    Raises:
        ModuleNotFoundError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name is None or not module.startswith(missing.name.partition(".")[0]):
            raise  # something inside the module is missing, not the module
        raise ModuleNotFoundError(
            f"evaluation needs {missing.name.partition('.')[0]}: pip install 'clipserve[evaluation]'",
            name=missing.name,
        ) from missing
