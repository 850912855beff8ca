"""How many GPUs there are for decoding.

decode_pool/nvdec.py of the model repository asks the driver, which only a process that ends may load.
"""

from __future__ import annotations

import os
from pathlib import Path


def available_gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs this process may use, by their device files and CUDA_VISIBLE_DEVICES.

    devices: the folder of the device files.
    """
    count = len(list(devices.glob("nvidia[0-9]*")))
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return count
    return min(count, sum(not name.strip().startswith("-") for name in named.split(",") if name.strip()))
