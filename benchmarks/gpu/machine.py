"""The GPU that was measured on, as its driver and torch describe it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import torch

from benchmarks.harness.machine import processor_name
from clipserve_server.packages import find_versions

QUERY = (
    *("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory"),
    *("clocks.sm", "clocks.memory", "temperature.gpu", "power.draw"),
)
PACKAGES = ("torch", "numpy", "triton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "pytorchvideo")


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Name, driver, CUDA, power limit, clocks and versions; after a measurement, with the clocks under load."""
    described: dict[str, Any] = {
        "device": processor_name(),
        "python": sys.version.split()[0],
        "versions": find_versions(PACKAGES),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        described |= {
            "device": facts.name,
            "host": processor_name(),
            "multiprocessors": facts.multi_processor_count,
            "compute_capability": f"{facts.major}.{facts.minor}",
            "memory_gibibytes": round(facts.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvidia-smi": _ask_driver(device.index or 0),
        }
    return described


def _ask_driver(index: int) -> dict[str, str]:
    command = shutil.which("nvidia-smi")
    if not command:
        return {}
    query = [command, f"--id={index}", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    values = [value.strip() for value in answer.stdout.strip().split(",")]
    return dict(zip(QUERY, values, strict=True)) if len(values) == len(QUERY) else {"error": answer.stdout[:200]}
