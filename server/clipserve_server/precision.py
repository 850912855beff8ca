"""Which numbers a network is run in on the CPU.

bf16 keeps 8 bits of a float32's 24, and doubles the speed where the processor multiplies matrices
in it. How much a network's answers move depends on its weights; so each export measures that and
writes it into export.json, and "auto" goes by it.
"""

import json
import os
from pathlib import Path

from clipserve_server.errors import ServerStartError

PRECISION_VARIABLE = "CLIPSERVE_CPU_PRECISION"  # how the stand-ins, processes of Triton, are told
PRECISIONS = ("auto", "fp32", "bf16")


def choose_precision(wanted: str, *, processor_has_bf16: bool, record: Path) -> str:
    """ "fp32" or "bf16", from one of PRECISIONS.

    Raises:
        ServerStartError: `wanted` is none of them, or bf16 on a processor without it.
    """
    if check_precision(wanted) == "bf16" and not processor_has_bf16:
        raise ServerStartError("this processor does not compute in bf16: choose fp32 or auto")
    if wanted == "auto":
        return "bf16" if processor_has_bf16 and holds_in_bf16(record) else "fp32"
    return wanted


def check_precision(wanted: str) -> str:
    """Raise ServerStartError unless it is one of PRECISIONS."""
    if wanted not in PRECISIONS:
        raise ServerStartError(f"the precision on the CPU is one of {', '.join(PRECISIONS)}, got {wanted!r}")
    return wanted


def holds_in_bf16(record: Path) -> bool:
    """Whether the export that wrote this export.json found bf16 close enough."""
    try:
        return json.loads(record.read_text())["bf16"]["holds"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def wanted_precision() -> str:
    """What the environment says."""
    return os.environ.get(PRECISION_VARIABLE, "auto")
