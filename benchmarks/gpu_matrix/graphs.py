"""CUDA graphs: a program's kernels recorded once for a batch, and started again as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WARM_UPS = 4  # TorchScript profiles one run, optimises in the next, and may do so again


class Graphed:
    """Records anew when another batch comes. What it gives is written over by its next run."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._graph: torch.cuda.CUDAGraph | None = None
        self._clip: Tensor | None = None
        self._answer: tuple[Tensor, Tensor] | None = None

    def __call__(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """See Program."""
        if self._clip is None or self._clip.shape != clip.shape:
            self._record(clip)
        assert self._clip is not None
        assert self._graph is not None
        assert self._answer is not None
        self._clip.copy_(clip)
        self._graph.replay()
        return self._answer

    def release(self) -> None:
        """Give the recording's memory back."""
        self._graph = self._clip = self._answer = None

    def _record(self, clip: Tensor) -> None:
        self.release()
        self._clip = clip.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._program(self._clip)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        # What compilers took to find their way is not what a recording holds.
        torch.cuda.reset_peak_memory_stats()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._answer = self._program(self._clip)
