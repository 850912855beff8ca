"""What a server can be told beside its models and ports, and how it tells the processes of Triton: by environment.

bf16 keeps 8 bits of a float32's 24, and doubles the speed where the processor multiplies matrices in it. How far a
network's answers move depends on its weights. So each export measures that and writes it into export.json, where
CpuPrecision.AUTO looks it up.
"""

import json
import os
from enum import StrEnum
from pathlib import Path

from clipserve_server.errors import ServerStartError

DECODER_VARIABLE = "CLIPSERVE_DECODER"  # for the decode step
PRECISION_VARIABLE = "CLIPSERVE_CPU_PRECISION"  # for the substitute backends
LOG_VARIABLE = "CLIPSERVE_LOG"  # the file of the log, which errors about a dead decode worker name
METRICS_VARIABLE = "CLIPSERVE_METRICS_URL"  # where the decode step reads how many requests wait for a network
LIMITS_VARIABLE = "CLIPSERVE_DECODE_LIMITS"  # parameters of the decode step that shared memory lowers, as JSON


class Decoder(StrEnum):
    """What decodes videos.

    NVDEC is the video decoder of NVIDIA's GPUs, with the CPU beside it; it fails on a machine that has none. AUTO is
    NVDEC on a machine that has it, and CPU elsewhere.
    """

    AUTO = "auto"
    CPU = "cpu"
    NVDEC = "nvdec"


class CpuPrecision(StrEnum):
    """What ONNX networks compute in on a CPU. AUTO is bf16 where the processor has it and the export says it holds."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def check_precision(wanted: str) -> CpuPrecision:
    """Raise ServerStartError unless `wanted` is a CpuPrecision."""
    try:
        return CpuPrecision(wanted)
    except ValueError:
        allowed = ", ".join(CpuPrecision)
        raise ServerStartError(f"the precision on the CPU must be one of {allowed}, got {wanted!r}") from None


def wanted_precision() -> str:
    """The precision that the environment names."""
    return os.environ.get(PRECISION_VARIABLE, CpuPrecision.AUTO)


def choose_precision(wanted: str, *, processor_has_bf16: bool, record: Path) -> str:
    """ "fp32" or "bf16", from a CpuPrecision.

    record: the network's export.json.

    Raises:
        ServerStartError: `wanted` is no CpuPrecision, or bf16 on a processor without it.
    """
    precision = check_precision(wanted)
    if precision == CpuPrecision.BF16 and not processor_has_bf16:
        raise ServerStartError("this processor does not compute in bf16: choose fp32 or auto")
    if precision == CpuPrecision.AUTO:
        return "bf16" if processor_has_bf16 and holds_in_bf16(record) else "fp32"
    return str(precision)


def holds_in_bf16(record: Path) -> bool:
    """Whether the export that wrote this export.json found the answers in bf16 close enough."""
    try:
        return json.loads(record.read_text())["bf16"]["holds"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False
