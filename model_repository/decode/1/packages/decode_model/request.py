"""One inference request: its videos go to the pool, and one response comes back: the clips, or an error."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from clip_decode.errors import Busy, DecodeError
from clip_decode.limits import check_bytes
from clip_decode.sampling import Sampling
from decode_pool.admission import NetworkBacklog
from decode_pool.messages import Decoded, Job
from decode_pool.pool import DecodePool

from .config import StepConfig
from .in_flight import InFlight
from .metrics import DecodeMetrics
from .triton import as_decode_error, as_triton_error, read_parameters, store

REPORT = "REPORT"


@dataclass(frozen=True)
class DecodeStep:
    """What the requests of one model instance share."""

    config: StepConfig
    pool: DecodePool
    backlog: NetworkBacklog
    metrics: DecodeMetrics
    in_flight: InFlight


class RequestHandler:
    """Answers one request, which has one video or several. The response has all clips, or the first error."""

    def __init__(self, step: DecodeStep, request: Any) -> None:
        # Keeps no reference to the request: its videos stay in shared memory as long as the request exists.
        self.step, self.sender = step, request.get_response_sender()
        self.requested_outputs = set(request.requested_output_names())
        self.is_sent = False
        self.is_in_flight = False
        self.lock = threading.Lock()
        self.sizes: Counter[str] = Counter()  # bytes of clips, by output
        self.futures: list[Future[Decoded]] = []
        self.undone = 0
        # Microseconds; 0 when the request has no timeout.
        timeout = request.timeout()
        self.timeout_seconds = timeout / 1e6
        self.deadline = time.monotonic() + self.timeout_seconds if timeout else math.inf

    @property
    def is_overdue(self) -> bool:
        """Whether the request's timeout has passed."""
        return time.monotonic() > self.deadline

    def is_abandoned(self) -> bool:
        """Whether the client no longer waits for the response.

        Triton does not tell a step of an ensemble when the client cancels (server issue 6739), so the timeout counts.
        """
        return self.is_overdue or self.sender.is_cancelled()

    def start(self, request: Any) -> None:
        """Queue every video, or respond with an error."""
        step = self.step
        try:
            step.in_flight.begin()
            self.is_in_flight = True
            for job in self.read_jobs(request):
                self.sizes.update(job.sizes)
                self.futures.append(step.pool.submit(job, cancelled=self.is_abandoned, deadline=self.deadline))
        except Exception as error:
            for future in self.futures:
                future.cancel()
            self.futures.clear()
            refusal = as_decode_error(error)
            step.metrics.count_outcome(refusal.code)
            self.send_error(refusal)
            return
        self.undone = len(self.futures)
        for future in self.futures:
            future.add_done_callback(self.on_done)

    def read_jobs(self, request: Any) -> list[Job]:
        """One job for each video of the request."""
        config = self.step.config
        geometries = {name: shape for name, shape in config.geometries.items() if name in self.requested_outputs}
        sampling = Sampling.from_parameters(read_parameters(request))
        config.check_clips(geometries, sampling)
        videos = pb_utils.get_input_tensor_by_name(request, "VIDEO").as_numpy().ravel()
        for video in videos:
            check_bytes(len(video), config.limits)
        return [Job(bytes(video), geometries, sampling) for video in videos]

    def on_done(self, future: Future[Decoded]) -> None:
        """Called when a video is decoded, refused or cancelled. The last video sends the response."""
        self.count(future)
        with self.lock:
            self.undone -= 1
            if self.undone:
                return
        try:
            self.respond()
        except Exception as error:
            # A request without a response would wait for ever. Triton refuses a second response.
            failed = as_decode_error(error)
            if not self.is_sent:
                self.send_error(failed)
        finally:
            # The futures refer to this object: the cycle would keep the clips until the garbage collector runs.
            self.futures.clear()

    def count(self, future: Future[Decoded]) -> None:
        """Count the outcome of a video."""
        metrics = self.step.metrics
        metrics.set_waiting(self.step.pool.waiting)
        if future.cancelled():
            metrics.count_outcome("expired" if self.is_overdue else "cancelled")
        elif isinstance(error := future.exception(), DecodeError):
            metrics.count_outcome(error.code)
        else:
            metrics.count_outcome("ok")
            decoded = future.result()
            metrics.observe(decoded.seconds, decoded.decoder)

    def respond(self) -> None:
        """Send the clips, or the first error."""
        if any(future.cancelled() for future in self.futures) and not self.is_overdue:
            self.send(error=pb_utils.TritonError("the request was cancelled", pb_utils.TritonError.CANCELLED))
            return
        if error := self.find_error():
            self.send_error(error)
            return
        decoded = [future.result() for future in self.futures]
        tensors = [pb_utils.Tensor(name, stack([video.clips[name] for video in decoded])) for name in decoded[0].clips]
        if REPORT in self.requested_outputs:
            tensors.append(pb_utils.Tensor(REPORT, np.array([[video.report] for video in decoded], dtype=np.object_)))
        size = self.sizes.total()
        if not store(tensors, size):
            tensors.clear()  # The error needs the room that the stored tensors take.
            self.send_error(
                Busy(
                    f"the server's shared memory, /dev/shm, has no room for the {size / 2**20:.0f} MiB of clips of this"
                    " request; try again later, or ask for fewer views or crops"
                )
            )
            return
        self.step.backlog.record_sent(self.sizes)
        self.send(tensors)

    def find_error(self) -> DecodeError | None:
        """Why there is no response with clips: a video failed, or the deadline passes before the network is done."""
        if any(future.cancelled() for future in self.futures):
            return Busy(f"decoding did not begin within {self.timeout_seconds:g} s, the timeout of the request")
        for future in self.futures:
            if isinstance(error := future.exception(), DecodeError):
                return error
        if self.is_overdue:
            return Busy(f"decoding took longer than {self.timeout_seconds:g} s, the timeout of the request")
        backlog = self.step.backlog
        if backlog.deadline_error(self.sizes, self.deadline):
            # That was the state of the last poll. Look again before the decoded clips are thrown away.
            backlog.poll()
            return backlog.deadline_error(self.sizes, self.deadline)
        return None

    def send_error(self, error: DecodeError) -> None:
        """Respond with an error."""
        self.send(error=as_triton_error(error))

    def send(self, tensors: Sequence[Any] = (), error: Any = None) -> None:
        """Send the one response of this request."""
        response = pb_utils.InferenceResponse(list(tensors), error) if error else pb_utils.InferenceResponse(tensors)
        self.is_sent = True
        try:
            # When this returns, Triton 2.51 has given the clips to the network.
            self.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            if self.is_in_flight:
                self.step.in_flight.end()


def stack(clips: Sequence[Any]) -> Any:
    """[N, V, T, S, S, 3]. The clips of a single video are not copied."""
    return clips[0][None] if len(clips) == 1 else np.stack(clips)
