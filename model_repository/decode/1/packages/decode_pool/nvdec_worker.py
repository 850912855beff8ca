"""The process that decodes with NVDEC: python -m decode_pool.nvdec_worker SETTINGS SOCKETS LIMITS MEGABYTES

Each socket has a thread, which decodes the jobs that come over it, as decode_pool.worker does, or leaves them to a CPU.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import threading
from multiprocessing.connection import Connection

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.decoder import Nvdec
from clip_decode.engine import decode_clips_with_nvdec
from clip_decode.limits import Limits

from .nvdec import PACKAGE
from .settings import PoolSettings
from .worker import READY, confine, work


def main() -> None:
    """Run the command line above."""
    settings, descriptors, given_limits, _ = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors.split(",")]
    # The kernel sets no limits on files and memory here: CUDA maps files, and more memory than the machine has. The
    # pool watches the memory that is used.
    confine()
    limits, nvdec = Limits(**json.loads(given_limits)), _open(PoolSettings(**json.loads(settings)))
    gc.freeze()
    for connection in connections:
        connection.send_bytes(READY)
    threads = [
        threading.Thread(
            target=work,
            args=(
                connection,
                lambda job: decode_clips_with_nvdec(nvdec, job.video, job.geometries, job.sampling, limits),
            ),
        )
        for connection in connections
    ]
    for thread in threads:
        thread.start()


def _open(settings: PoolSettings) -> Nvdec:
    nvdec = Nvdec(
        importlib.import_module(PACKAGE),
        Cuda(),
        streams=settings.nvdec_streams,
        megabytes=settings.nvdec_megabytes,
        least_pixels=settings.nvdec_min_pixels,
    )
    nvdec.errors.listen()
    return nvdec


if __name__ == "__main__":
    main()
