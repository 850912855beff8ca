"""The decode step as Triton loads it: bytes of video files in, uint8 clips out.

    model.py                 starts and stops the step, and takes requests from Triton
    packages/decode_model/   Triton's side: the config, requests and responses, metrics
    packages/decode_pool/    worker processes and the queue in front of them; knows nothing of Triton
    packages/clip_decode/    decodes one video; runs in the workers

No video is opened in this process, because Triton does not restart it when it crashes. The response to a request is
sent as soon as its videos are decoded, so no request waits for a slower one.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

# First on the path, so that an installed clip_decode does not shadow the one of this repository.
sys.path.insert(0, str(Path(__file__).parent / "packages"))

from decode_model.config import StepConfig
from decode_model.in_flight import VARIABLE as IN_FLIGHT_VARIABLE
from decode_model.in_flight import InFlight
from decode_model.metrics import METRICS_VARIABLE, DecodeMetrics, MetricsPage
from decode_model.request import DecodeStep, RequestHandler
from decode_model.triton import read_config
from decode_pool.admission import NetworkBacklog
from decode_pool.nvdec import NvdecProcess, find_gpus, nvdec_processes
from decode_pool.pool import DecodePool
from decode_pool.settings import PoolSettings

START_SECONDS = 60.0


class TritonPythonModel:
    """One instance of the decode step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and start the workers."""
        config = StepConfig.from_parameters(read_config(args), os.environ)
        in_flight = InFlight(os.environ.get(IN_FLIGHT_VARIABLE, ""))
        nvdec = open_nvdec(config.pool)
        decoders = config.pool.worker_count(len(nvdec)) + sum(process.streams for process in nvdec)
        backlog = NetworkBacklog(
            {name: limit.for_decoders(decoders) for name, limit in config.backlog_limits.items()},
            MetricsPage().read_pending,
            on_unreadable=log_unreadable_metrics,
        )
        metrics = DecodeMetrics(pb_utils.MetricFamily)
        pool = DecodePool(
            config.pool,
            config.limits,
            backlog=backlog,
            nvdec=nvdec,
            on_restart=metrics.count_restart,
            on_decline=metrics.count_declined,
            log=pb_utils.Logger.log_error,
        )
        try:
            pool.wait_until_ready(START_SECONDS)
        except BaseException:
            pool.close()
            raise
        self.step = DecodeStep(config, pool, backlog, metrics, in_flight)

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue the videos of each request. Threads of the pool send the responses."""
        for request in requests:
            RequestHandler(self.step, request).start(request)
        self.step.metrics.set_waiting(self.step.pool.waiting)

    def finalize(self) -> None:
        """End the workers."""
        self.step.pool.close()


def open_nvdec(settings: PoolSettings) -> Sequence[NvdecProcess]:
    """The processes that decode with NVDEC; none where the config or the machine leaves decoding to CPUs.

    Raises:
        RuntimeError: the config requires NVDEC, and the machine has none.
    """
    if settings.decoder == "cpu":
        return ()
    gpus = find_gpus()
    if settings.decoder == "nvdec" and not gpus.devices:
        raise RuntimeError(f"decoder is nvdec, but {gpus.missing}; set it to auto or cpu, or add what is missing")
    pb_utils.Logger.log_info(
        f"NVDEC and CPUs decode videos; GPUs: {', '.join(gpus.devices)}"
        if gpus.devices
        else f"CPUs decode videos: {gpus.missing}"
    )
    return nvdec_processes(settings, gpus, log=pb_utils.Logger.log_info)


def log_unreadable_metrics(error: OSError) -> None:
    """Warn that the decode step cannot see how many requests wait for a network."""
    pb_utils.Logger.log_warn(
        f"the number of decoded clips that wait for a network is not limited, because Triton's metrics cannot be read"
        f" ({error}): leave metrics switched on, and set {METRICS_VARIABLE} where they have another address"
    )
