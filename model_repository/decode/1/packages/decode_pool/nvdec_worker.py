"""The process that decodes with NVDEC: python -m decode_pool.nvdec_worker SETTINGS EXCLUDED SOCKETS LIMITS MEGABYTES

Each socket has a thread, which decodes the jobs that come over it, as decode_pool.worker does, or leaves them to a CPU.
Before it is ready, it creates decoders for the common kinds of streams, and compares NVDEC with FFmpeg where the
settings want that, but for the EXCLUDED of these steps. It says over its first socket which one it is at: a driver may
hang, or end the process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.engine import decode_clips_with_nvdec
from clip_decode.errors import Declined
from clip_decode.limits import Limits
from clip_decode.report import Report

from .messages import READY, Clips, Job
from .nvdec import PACKAGE
from .nvdec_comparison import EVERYTHING, choose_least_pixels
from .settings import PoolSettings
from .worker import confine, work

_COMPARISON = "the comparison of decoders"


def main() -> None:
    """Run the command line above."""
    settings, excluded, descriptors, given_limits, _ = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors.split(",")]
    # The kernel sets no limits on files and memory here: CUDA maps files, and more memory than the machine has. The
    # pool watches the memory that is used.
    confine()
    limits = Limits(**json.loads(given_limits))
    nvdec, found = _prepare(
        PoolSettings(**json.loads(settings)),
        json.loads(excluded),
        lambda step: connections[0].send_bytes(step.encode()),
    )
    gc.freeze()
    for connection in connections:
        connection.send_bytes(READY + found.encode())

    def decode(job: Job) -> tuple[Clips, Report]:
        try:
            return decode_clips_with_nvdec(nvdec, job.video, job.geometries, job.sampling, limits)
        except Declined as reason:
            if nvdec.is_lost:
                sys.stderr.write(f"the GPU is lost: {reason}\n")
                os._exit(1)  # The pool starts another process, and CPUs decode what this one had.
            raise

    for connection in connections:
        threading.Thread(target=work, args=(connection, decode)).start()


def _prepare(settings: PoolSettings, excluded: Sequence[str], on_step: Callable[[str], None]) -> tuple[Nvdec, str]:
    """NVDEC with its first decoders, and what was found out about it, for the log.

    on_step: called with each step before it is taken, unless it is excluded.
    """
    nvdec = Nvdec(
        importlib.import_module(PACKAGE),
        Cuda(),
        megabytes=settings.nvdec_megabytes,
        least_pixels=settings.nvdec_min_pixels or EVERYTHING,
        excluded=excluded,
    )
    nvdec.errors.listen()
    found = nvdec.warm_up(on_step)
    if not settings.nvdec_min_pixels and _COMPARISON not in excluded:
        on_step(_COMPARISON)
        nvdec.least_pixels, figures = choose_least_pixels(nvdec)
        found = f"{found}; {figures}"
    return nvdec, " ".join(found.split())  # One line: errors of PyNvVideoCodec have several.


if __name__ == "__main__":
    main()
