"""What a measurement uses: the GPU and its decoder by nvidia-smi, the processor by the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from benchmarks.harness.machine import own_seconds, tree_seconds

INTERVAL_MILLISECONDS = 250
QUERY = ("utilization.gpu", "utilization.decoder", "memory.used")


@dataclass
class Use:
    """Of one measurement. Percents are means; of several GPUs, too. None: nvidia-smi does not say."""

    gpu_percent: float | None = None
    decoder_percent: float | None = None
    gpu_megabytes: float | None = None  # the largest, of one GPU, without what was taken before the first server
    cores: float = 0.0  # that the server's processes kept busy


class UsageMonitor:
    """Watches the GPUs as long as the block lasts. Without nvidia-smi it only counts processor time.

    The export, in this process, holds memory of the GPU from then on: that is not the server's.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._readings: list[tuple[float, list[float | None]]] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        if command := shutil.which("nvidia-smi"):
            options = [f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
            self._process = subprocess.Popen(
                [command, *options, f"--loop-ms={INTERVAL_MILLISECONDS}"], stdout=subprocess.PIPE, text=True
            )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._thread.join()

    @contextmanager
    def watch(self) -> Iterator[Use]:
        """Yield the use of the block; it is known after the block."""
        use, started, before = Use(), time.monotonic(), _children_seconds()
        yield use
        ended = time.monotonic()
        use.cores = (_children_seconds() - before) / (ended - started)
        columns = list(zip(*(values for moment, values in self._readings if started <= moment <= ended), strict=True))
        known = [[value for value in column if value is not None] for column in columns]
        if all(known) and known:
            taken_before = self._readings[0][1][2] or 0
            use.gpu_percent, use.decoder_percent = fmean(known[0]), fmean(known[1])
            use.gpu_megabytes = max(known[2]) - taken_before

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            values = [_number(text) for text in line.split(",")]
            if len(values) == len(QUERY):
                self._readings.append((time.monotonic(), values))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", or a message
        return None


def _children_seconds() -> float:
    return tree_seconds(os.getpid()) - own_seconds()
