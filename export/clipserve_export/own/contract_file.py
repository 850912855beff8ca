"""The contract that a user writes for a network, in TOML."""

import tomllib
from pathlib import Path
from typing import Any

from clipserve.contract import ClipContract
from clipserve_export.errors import ContractError
from clipserve_export.own.interface import Interface

EXAMPLE = """frames = 16          # of a clip
stride = 4           # distance between two of them, in frames at 30 a second
short_side = 256     # the short side of a frame is scaled to it
crop = 224           # side of the square that is cut out
mean = [0.45, 0.45, 0.45]             # of red, green, blue, on [0, 1]
deviation = [0.225, 0.225, 0.225]
"""


def read_contract_file(path: Path) -> tuple[ClipContract, Interface]:
    """The contract of a network, and how it takes clips. Raises ContractError."""
    values = read_values(path)
    table = values.pop("network", {})
    try:
        if not isinstance(table, dict):
            raise ValueError("network is a table, which [network] begins")
        contract, interface = ClipContract.from_values(values), Interface.from_values(table)
        if interface.type == "uint8" and (any(contract.mean) or set(contract.deviation) != {1.0}):
            raise ValueError(
                "a network that takes uint8 gets pixels as they are: leave mean and deviation out, or give type"
            )
        if max(contract.mean) > 1:
            raise ValueError(
                f"mean is {list(contract.mean)}, but pixels are in [0, 1], and so is their mean: divide mean and"
                " deviation by 255"
            )
    except ValueError as error:
        raise ContractError(f"--contract {path}: {error}") from error
    return contract, interface


def read_values(path: Path) -> dict[str, Any]:
    """What the file says. Raises ContractError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ContractError(f"--contract {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number of 5000 digits, arrays in arrays
        raise ContractError(f"--contract {path} is not TOML: {error}. A whole contract:\n{EXAMPLE}") from error
