"""What a network is exported for: where it runs, and in which numbers. Layout, batches and warm-up follow from it."""

from typing import Literal

Target = Literal["cpu", "gpu"]
Precision = Literal["fp32", "fp16", "bf16"]
LAYOUTS: dict[Target, str] = {"cpu": "channels_last_3d", "gpu": "contiguous"}  # of TorchScript files


def choose_target(wanted: Literal["auto", "cpu", "gpu"]) -> Target:
    """`wanted`; auto is what this machine has, as torch sees it."""
    if wanted != "auto":
        return wanted
    import torch  # takes seconds, which the command line's --help need not

    return "gpu" if torch.cuda.is_available() else "cpu"
