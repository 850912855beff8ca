"""Runs a file with more and more clips, and prints the peaks of its memory; see memory.py.

A process of its own, which imports nothing but the file's runtime: python -m clipserve_export.own.memory_program FORMAT
FILE T S COUNT...
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESET_PEAK = "5"  # for /proc/self/clear_refs


def load(form: str, path: str) -> Callable[[Any], object]:
    """A function that runs the file, with the memory options of a server."""
    if form == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda clips: session.run(None, {"CLIP": clips})
    import torch

    module = torch.jit.load(path, map_location="cpu")

    def run(clips: Any) -> object:
        with torch.no_grad():
            return module(torch.from_numpy(clips))

    return run


def read_status(name: str) -> float:
    """A value of /proc/self/status, in MiB."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def main() -> None:
    """Print MiB, one a line: when the file is loaded, and the peak of each run."""
    form, path, frames, side, *counts = sys.argv[1:]
    run = load(form, path)
    peaks = [read_status("VmRSS")]
    generator = np.random.default_rng(0)
    for count in map(int, counts):
        clips = generator.integers(0, 256, (1, count, int(frames), int(side), int(side), 3), dtype=np.uint8)
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        run(clips)
        peaks.append(read_status("VmHWM"))
    sys.stdout.write("".join(f"{peak}\n" for peak in peaks))


if __name__ == "__main__":
    main()
