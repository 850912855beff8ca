"""Prints how many GPUs there are whose NVDEC can be used, or what is missing: python -m decode_pool.gpus"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys

PACKAGE = "PyNvVideoCodec"
# What the package loads; the last two come with the container's driver capability `video`.
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1")


def look() -> tuple[int, str]:
    """How many, and what is missing where it is none."""
    if importlib.util.find_spec(PACKAGE) is None:
        return 0, f"the package {PACKAGE} is not installed"
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return (
                0,
                f"{name} of NVIDIA's driver is not found (in a container: NVIDIA_DRIVER_CAPABILITIES must have video)",
            )
    driver = ctypes.CDLL(LIBRARIES[0])
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return 0, "the driver finds no GPU"
    return count.value, ""


if __name__ == "__main__":
    found, missing = look()
    sys.stdout.write(json.dumps({"count": found, "missing": missing}))
