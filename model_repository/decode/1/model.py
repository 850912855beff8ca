"""The decode step: bytes of video files in, uint8 clips out.

Triton's side of it only: tensors, parameters, errors and metrics. No video is opened in this process: decode_pool hands
the bytes to workers that may die, and clip_decode is what they do. Requests are answered as their videos are done, so
none waits for a slower one.
"""

import json
import math
import os
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# First on the path, so that an installed clip_decode does not shadow the one of this repository.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "packages"))

from clip_decode.errors import Busy, DecodeError, Failed, InvalidRequest
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits, check_bytes
from clip_decode.sampling import Sampling
from decode_pool.messages import Decoded, Job
from decode_pool.metrics import DecodeMetrics
from decode_pool.metrics_page import VARIABLE, MetricsPage
from decode_pool.networks import Bound, Networks
from decode_pool.nvdec import NvdecProcess, find_gpus, nvdec_processes
from decode_pool.pool import DecodePool
from decode_pool.settings import PoolSettings
from decode_pool.under_way import VARIABLE as UNDER_WAY_VARIABLE
from decode_pool.under_way import UnderWay

REPORT = "REPORT"
LIMITS_VARIABLE = "CLIPSERVE_DECODE_LIMITS"
START_SECONDS = 60.0
SHARED_MEMORY = Path("/dev/shm")
# With so much free there, nobody else takes the room of an answer before it is sent.
AMPLE_BYTES, AMPLE_TIMES = 64 * 2**20, 4
NOBODY = "clipserve_no_such_model"
# Stands above the config's `decoder`.
DECODER_VARIABLE = "CLIPSERVE_DECODER"


class TritonPythonModel:
    """One instance of the decode step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read geometries, limits and settings from the config's parameters, and start the workers."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        # A server whose shared memory holds less than the config lets in says to what the limits come down.
        self.lowered = json.loads(os.environ.get(LIMITS_VARIABLE, "{}"))
        values |= self.lowered
        self.geometries = {
            name: Geometry.from_config(json.loads(values.pop(name)))
            for name in list(values)
            if name.startswith("CLIP_")
        }
        # What a network's memory allows, where that is less than the sampling's own bound.
        self.max_clips = {name: int(values.pop(f"MAX_{name}")) for name in self.geometries if f"MAX_{name}" in values}
        bounds = {
            name: Bound.from_config(values.pop(f"QUEUE_{name}"))
            for name in self.geometries
            if f"QUEUE_{name}" in values
        }
        if chosen := os.environ.get(DECODER_VARIABLE):
            values["decoder"] = chosen
        self.under_way = UnderWay(os.environ.get(UNDER_WAY_VARIABLE, ""))
        settings = PoolSettings.from_config(values)
        limits = Limits.from_config({name: value for name, value in values.items() if name not in settings.names()})
        self.limits = limits
        nvdec = open_nvdec(settings)
        decoders = settings.worker_count(len(nvdec)) + sum(process.streams for process in nvdec)
        self.networks = Networks(
            {name: bound.for_decoders(decoders) for name, bound in bounds.items()},
            MetricsPage().read_waiting,
            on_blind=log_blindness,
        )
        self.metrics = DecodeMetrics(pb_utils.MetricFamily)
        self.pool = DecodePool(
            settings,
            limits,
            networks=self.networks,
            nvdec=nvdec,
            on_restart=self.metrics.count_restart,
            on_decline=self.metrics.count_declined,
            log=pb_utils.Logger.log_error,
        )
        try:
            self.pool.wait_until_ready(START_SECONDS)
        except BaseException:
            self.pool.close()
            raise

    def finalize(self) -> None:
        """End the workers."""
        self.pool.close()

    def check_clips(self, geometries: Iterable[str], sampling: Sampling) -> None:
        """Raise InvalidRequest where a network takes fewer clips of a video than are asked for."""
        for name in geometries:
            most = self.max_clips.get(name, sampling.clips)
            if sampling.clips > most:
                why = " (the server's shared memory, /dev/shm, holds no more)" if f"MAX_{name}" in self.lowered else ""
                raise InvalidRequest(
                    f"{sampling.views} views x {sampling.crops} crops are {sampling.clips} clips, but this model"
                    f" takes at most {most} of one video{why}; ask for fewer views or crops"
                )

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue the videos of each request; the pool's threads answer."""
        for request in requests:
            Answer(self, request).begin(request)
        self.metrics.show_waiting(self.pool.waiting)


class Answer:
    """A request on its way: one video or several, all done or the first error."""

    def __init__(self, model: TritonPythonModel, request: Any) -> None:
        # Not the request itself: as long as it is there, its videos are in shared memory, too.
        self.model, self.sender = model, request.get_response_sender()
        self.wanted = set(request.requested_output_names())
        self.is_sent = False
        self.is_under_way = False
        self.lock = threading.Lock()
        self.sizes: Counter[str] = Counter()  # bytes of clips, by output
        self.futures: list[Future[Decoded]] = []
        self.missing = 0
        # Microseconds; 0 where the request names none.
        timeout = request.timeout()
        self.seconds = timeout / 1e6
        self.deadline = time.monotonic() + self.seconds if timeout else math.inf

    @property
    def is_overdue(self) -> bool:
        """Whether the request's own timeout has passed."""
        return time.monotonic() > self.deadline

    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more.

        Triton tells a step of an ensemble nothing of a cancellation that comes while the step has the request
        (server issue 6739): the timeout is what reaches us.
        """
        return self.is_overdue or self.sender.is_cancelled()

    def begin(self, request: Any) -> None:
        """Queue every video, or refuse the request."""
        try:
            self.model.under_way.begin()
            self.is_under_way = True
            for job in self.read_jobs(request):
                self.sizes.update(job.sizes)
                self.futures.append(self.model.pool.submit(job, cancelled=self.is_abandoned, deadline=self.deadline))
        except Exception as error:
            for future in self.futures:
                future.cancel()
            self.futures.clear()
            self.refuse(error)
            return
        self.missing = len(self.futures)
        for future in self.futures:
            future.add_done_callback(self.note)

    def read_jobs(self, request: Any) -> list[Job]:
        """One for each video of the request."""
        geometries = {name: geometry for name, geometry in self.model.geometries.items() if name in self.wanted}
        sampling = Sampling.from_parameters(read_parameters(request))
        self.model.check_clips(geometries, sampling)
        videos = pb_utils.get_input_tensor_by_name(request, "VIDEO").as_numpy().ravel()
        for video in videos:
            check_bytes(len(video), self.model.limits)
        return [Job(bytes(video), geometries, sampling) for video in videos]

    def note(self, future: Future[Decoded]) -> None:
        """One video is done, one way or the other; the last one sends the answer."""
        self.count(future)
        with self.lock:
            self.missing -= 1
            if self.missing:
                return
        try:
            self.finish()
        except Exception as error:
            # Whatever it is, a request must not wait for ever for its answer; a second one Triton refuses.
            failed = explain(error)
            if not self.is_sent:
                self.send_error(failed)
        finally:
            # They refer back to this object, and a circle would keep the clips until the collector comes by.
            self.futures.clear()

    def count(self, future: Future[Decoded]) -> None:
        """Into the metrics."""
        metrics = self.model.metrics
        metrics.show_waiting(self.model.pool.waiting)
        if future.cancelled():
            metrics.count_outcome("expired" if self.is_overdue else "cancelled")
        elif isinstance(error := future.exception(), DecodeError):
            metrics.count_outcome(error.code)
        else:
            metrics.count_outcome("ok")
            decoded = future.result()
            metrics.observe(decoded.seconds, decoded.decoder)

    def finish(self) -> None:
        """Send the clips, or the first error."""
        if any(future.cancelled() for future in self.futures):
            if self.is_overdue:
                self.send_error(Busy(f"decoding did not begin within {self.seconds:g} s, the timeout of the request"))
                return
            self.send(error=pb_utils.TritonError("the request was cancelled", pb_utils.TritonError.CANCELLED))
            return
        for future in self.futures:
            error = future.exception()
            if isinstance(error, DecodeError):
                self.send_error(error)
                return
        if self.is_overdue:
            self.send_error(Busy(f"decoding took longer than {self.seconds:g} s, the timeout of the request"))
            return
        if self.model.networks.refusal(self.sizes, self.deadline):
            # By what was seen last: ask before the work is thrown away.
            self.model.networks.look()
            if refusal := self.model.networks.refusal(self.sizes, self.deadline):
                self.send_error(refusal)
                return
        decoded = [future.result() for future in self.futures]
        tensors = [pb_utils.Tensor(name, stack([item.clips[name] for item in decoded])) for name in decoded[0].clips]
        if REPORT in self.wanted:
            tensors.append(pb_utils.Tensor(REPORT, np.array([[item.report] for item in decoded], dtype=np.object_)))
        size = self.sizes.total()
        if not store(tensors, size):
            # What could be stored gives way to the error.
            tensors.clear()
            self.send_error(
                Busy(
                    f"the server's shared memory, /dev/shm, has no room for the {size / 2**20:.0f} MiB of clips of this"
                    " request; try again later, or ask for fewer views or crops"
                )
            )
            return
        self.model.networks.send(self.sizes)
        self.send(tensors)

    def refuse(self, error: Exception) -> None:
        """Answer a request that was not queued."""
        refusal = explain(error)
        self.model.metrics.count_outcome(refusal.code)
        self.send_error(refusal)

    def send_error(self, error: DecodeError) -> None:
        """Refuse the request.

        UNAVAILABLE where trying again may help, INTERNAL where the server is at fault, INVALID_ARGUMENT otherwise.
        """
        status = pb_utils.TritonError.UNAVAILABLE if error.retryable else pb_utils.TritonError.INVALID_ARG
        if isinstance(error, Failed):
            status = pb_utils.TritonError.INTERNAL
        # The code in brackets is what a client goes by; the sentence is for people.
        self.send(error=pb_utils.TritonError(f"[{error.code}] {error.message}", status))

    def send(self, tensors: Sequence[Any] = (), error: Any = None) -> None:
        """The one response of this request."""
        response = pb_utils.InferenceResponse(list(tensors), error) if error else pb_utils.InferenceResponse(tensors)
        self.is_sent = True
        try:
            # When it returns, Triton 2.51 has handed the clips to the network.
            self.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            if self.is_under_way:
                self.model.under_way.end()


def log_blindness(error: OSError) -> None:
    """How many requests wait for a network cannot be seen."""
    pb_utils.Logger.log_warn(
        f"decoded clips that wait for a network are not bounded, because Triton's metrics cannot be read ({error}):"
        f" leave them switched on, and set {VARIABLE} where they have another address"
    )


def explain(error: Exception) -> DecodeError:
    """The error to answer with; one that nobody expected goes to the log with its traceback."""
    if isinstance(error, DecodeError):
        # Its traceback holds the request, and with it shared memory, for as long as something holds the error.
        return error.with_traceback(None)
    for line in "".join(traceback.format_exception(error)).splitlines():
        pb_utils.Logger.log_error(line)
    return Failed(f"answering met a defect of the server ({type(error).__name__}); its log has the traceback")


def store(tensors: Sequence[Any], size: int) -> bool:
    """Put an answer's tensors, of `size` bytes, into shared memory ahead of sending it; False where there is no room.

    A response that does not fit as it is sent is lost: Triton 2.51 counts it as sent and takes no other, and the caller
    waits until its deadline. A request to another model stores its tensors in the same way and says what went wrong,
    and what is stored once is not stored again. So ask a model that nobody has, whenever room may be short.
    """
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free > AMPLE_BYTES + AMPLE_TIMES * size:
        return True
    answer = pb_utils.InferenceRequest(model_name=NOBODY, requested_output_names=[REPORT], inputs=list(tensors)).exec()
    return NOBODY in answer.error().message()


def open_nvdec(settings: PoolSettings) -> Sequence[NvdecProcess]:
    """The processes that decode by NVDEC, none where it is not to be used.

    Raises:
        RuntimeError: the config demands NVDEC, and there is none.
    """
    if settings.decoder == "cpu":
        return ()
    gpus = find_gpus()
    if settings.decoder == "nvdec" and not gpus.devices:
        raise RuntimeError(f"decoder is nvdec, but {gpus.missing}; say auto or cpu, or add what is missing")
    pb_utils.Logger.log_info(
        f"videos are decoded by NVDEC on {len(gpus.devices)} GPUs and by CPUs"
        if gpus.devices
        else f"videos are decoded by CPUs: {gpus.missing}"
    )
    return nvdec_processes(settings, gpus)


def stack(clips: Sequence[Any]) -> Any:
    """[N, V, T, S, S, 3]; a single video's clip is not copied."""
    return clips[0][None] if len(clips) == 1 else np.stack(clips)


def read_parameters(request: Any) -> Mapping[str, object]:
    """The request's own parameters, without those Triton and its clients add for themselves."""
    parameters: dict[str, object] = json.loads(request.parameters() or "{}")
    return {name: value for name, value in parameters.items() if not name.startswith("triton_")}
