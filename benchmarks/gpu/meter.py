"""Time and memory of a program on a device, and the device's best rate of multiplying matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.plan import Engine
from benchmarks.gpu.programs import Program, conditions

NUMBERS = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Meter:
    """Measures on one device.

    Args:
        device: the device that programs run on.
        min_seconds: the shortest time of one measurement.
    """

    def __init__(self, device: torch.device, *, min_seconds: float) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        self._min_seconds = min_seconds

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds_per_call(self, call: Callable[[], object]) -> float:
        """Seconds a call, with calls queued back to back and all data on the device."""
        call()  # warm-up: another program ran before
        self.wait()
        started = time.perf_counter()
        call()
        self.wait()
        once = time.perf_counter() - started
        times = max(2, min(200, round(self._min_seconds / max(once, 1e-6))))
        if not self.on_gpu:
            started = time.perf_counter()
            for _ in range(times):
                call()
            return (time.perf_counter() - started) / times
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(times):
            call()
        last.record()
        last.synchronize()
        milliseconds: float = first.elapsed_time(last)
        return milliseconds / 1000 / times

    def round_trip(self, program: Program, clip: Tensor) -> float:
        """Seconds from a clip in the host's page-locked memory to the answer on the host, one run at a time."""
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            scores, features = program(clip.to(self.device, non_blocking=True))
            scores.cpu(), features.cpu()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def host_clip(self, clip: Tensor) -> Tensor:
        """A copy in page-locked memory, which the GPU reads by itself."""
        return clip.cpu().pin_memory() if self.on_gpu else clip

    def settle(self, engine: Engine, program: Program, clip: Tensor) -> float | None:
        """Run until compilers and recordings are done; returns the MiB of a run beside the weights (GPU only)."""
        if not self.on_gpu:
            for _ in range(2):
                program(clip)
            return None
        torch.cuda.empty_cache()
        held, free = torch.cuda.memory_allocated(self.device), torch.cuda.mem_get_info(self.device)[0]
        program(clip)
        self.wait()
        if not engine.graphed:
            for _ in range(3):
                program(clip)
            self.wait()
            torch.cuda.reset_peak_memory_stats(self.device)
            held = torch.cuda.memory_allocated(self.device)
            program(clip)
            self.wait()
        peak = torch.cuda.max_memory_allocated(self.device) - held
        if engine.program.startswith("onnxruntime"):
            # It does not allocate through torch: compare the free memory of the device.
            peak = max(0, free - torch.cuda.mem_get_info(self.device)[0])
        return peak / 2**20

    def matrix_rate(self, precision: str, sizes: tuple[int, ...]) -> float:
        """The best rate of large matrix products in a precision, in operations a second."""
        best = 0.0
        with conditions(Engine("eager", precision, "contiguous")):
            for size in sizes:
                left, right = (
                    torch.randn(size, size, device=self.device, dtype=torch.float32).to(NUMBERS[precision])
                    for _ in range(2)
                )
                out = torch.empty_like(left)

                def multiply(left: Tensor = left, right: Tensor = right, out: Tensor = out) -> None:
                    torch.matmul(left, right, out=out)

                seconds = min(self.seconds_per_call(multiply) for _ in range(3))
                best = max(best, 2 * size**3 / seconds)
        return best

    def operations(self, program: Program, clip: Tensor) -> int:
        """The multiplications and additions of convolutions and matrix products, as torch runs them."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, torch.no_grad():
            program(clip)
        return int(counter.get_total_flops())
