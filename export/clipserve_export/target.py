"""The kind of device that a network is exported for, and its precision. Layout, batches and warm-up depend on them."""

from typing import Literal

Target = Literal["cpu", "gpu"]
Precision = Literal["fp32", "fp16", "bf16"]
LAYOUTS: dict[Target, str] = {"cpu": "channels_last_3d", "gpu": "contiguous"}  # of TorchScript files


def choose_target(wanted: Literal["auto", "cpu", "gpu"]) -> Target:
    """`wanted`; auto is gpu if torch finds a GPU on this machine."""
    if wanted != "auto":
        return wanted
    import torch  # here, because it takes seconds, which --help does not need

    return "gpu" if torch.cuda.is_available() else "cpu"
