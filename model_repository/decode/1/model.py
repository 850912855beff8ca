"""The decode step: bytes of video files in, uint8 clips out.

Triton's side of it only: tensors, parameters, errors and metrics. No video is opened in this process: decode_pool hands
the bytes to workers that may die, and clip_decode is what they do. Requests are answered as their videos are done, so
none waits for a slower one.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from clip_decode.errors import Busy, DecodeError, InvalidRequest
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling
from decode_pool.messages import Decoded, Job
from decode_pool.metrics import DecodeMetrics
from decode_pool.metrics_page import VARIABLE, MetricsPage
from decode_pool.networks import Bound, Networks
from decode_pool.pool import DecodePool
from decode_pool.settings import PoolSettings

REPORT = "REPORT"
LIMITS_VARIABLE = "CLIPSERVE_DECODE_LIMITS"
START_SECONDS = 60.0


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
        self.networks = Networks(bounds, MetricsPage().read_waiting, on_blind=log_blindness)
        settings = PoolSettings.from_config(values)
        limits = Limits.from_config({name: value for name, value in values.items() if name not in settings.names()})
        self.metrics = DecodeMetrics(pb_utils.MetricFamily)
        self.pool = DecodePool(
            settings,
            limits,
            networks=self.networks,
            on_restart=self.metrics.count_restart,
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
            Answer(self, request).begin()
        self.metrics.show_waiting(self.pool.waiting)


class Answer:
    """A request on its way: one video or several, all done or the first error."""

    def __init__(self, model: TritonPythonModel, request: Any) -> None:
        self.model, self.request = model, request
        self.sender = request.get_response_sender()
        self.lock = threading.Lock()
        self.sizes: Counter[str] = Counter()  # bytes of clips, by output
        self.futures: list[Future[Decoded]] = []
        self.missing = 0
        # Microseconds; 0 where the request names none.
        timeout = request.timeout()
        self.seconds = timeout / 1e6
        self.deadline = time.monotonic() + self.seconds if timeout else None

    @property
    def is_overdue(self) -> bool:
        """Whether the request's own timeout has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more.

        Triton tells a step of an ensemble nothing of a cancellation that comes while the step has the request
        (server issue 6739): the timeout is what reaches us.
        """
        return self.is_overdue or self.sender.is_cancelled()

    def begin(self) -> None:
        """Queue every video, or refuse the request."""
        try:
            wanted = set(self.request.requested_output_names())
            geometries = {name: geometry for name, geometry in self.model.geometries.items() if name in wanted}
            sampling = Sampling.from_parameters(read_parameters(self.request))
            self.model.check_clips(geometries, sampling)
            videos = pb_utils.get_input_tensor_by_name(self.request, "VIDEO").as_numpy().ravel()
            jobs = [Job(bytes(video), geometries, sampling) for video in videos]
            for job in jobs:
                self.sizes.update(job.sizes)
                self.futures.append(self.model.pool.submit(job, cancelled=self.is_abandoned))
        except DecodeError as error:
            for future in self.futures:
                future.cancel()
            self.model.metrics.count_outcome(error.code)
            self.send_error(error)
            return
        self.missing = len(self.futures)
        for future in self.futures:
            future.add_done_callback(self.note)

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
            # Whatever it is, a request must not wait for ever for its answer.
            self.send(error=pb_utils.TritonError(f"the decode step broke: {error}", pb_utils.TritonError.INTERNAL))
            raise
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
            metrics.observe_seconds(future.result().seconds)

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
        decoded = [future.result() for future in self.futures]
        wanted = self.request.requested_output_names()
        tensors = [pb_utils.Tensor(name, stack([item.clips[name] for item in decoded])) for name in decoded[0].clips]
        if REPORT in wanted:
            tensors.append(pb_utils.Tensor(REPORT, np.array([[item.report] for item in decoded], dtype=np.object_)))
        self.model.networks.send(self.sizes)
        self.send(tensors)

    def send_error(self, error: DecodeError) -> None:
        """Refuse the request: UNAVAILABLE where trying again may help, INVALID_ARGUMENT otherwise."""
        status = pb_utils.TritonError.UNAVAILABLE if error.retryable else pb_utils.TritonError.INVALID_ARG
        # The code in brackets is what a client goes by; the sentence is for people.
        self.send(error=pb_utils.TritonError(f"[{error.code}] {error.message}", status))

    def send(self, tensors: Sequence[Any] = (), error: Any = None) -> None:
        """The one response of this request."""
        response = pb_utils.InferenceResponse(list(tensors), error) if error else pb_utils.InferenceResponse(tensors)
        self.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def log_blindness(error: OSError) -> None:
    """How many requests wait for a network cannot be seen."""
    pb_utils.Logger.log_warn(
        f"decoded clips that wait for a network are not bounded, because Triton's metrics cannot be read ({error}):"
        f" leave them switched on, and set {VARIABLE} where they have another address"
    )


def stack(clips: Sequence[Any]) -> Any:
    """[N, V, T, S, S, 3]; a single video's clip is not copied."""
    return clips[0][None] if len(clips) == 1 else np.stack(clips)


def read_parameters(request: Any) -> Mapping[str, object]:
    """The request's own parameters, without those Triton and its clients add for themselves."""
    parameters: dict[str, object] = json.loads(request.parameters() or "{}")
    return {name: value for name, value in parameters.items() if not name.startswith("triton_")}
