"""One timeline: windows are decoded, run through the network, and sent, each in a thread or a process of its own."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from clip_decode.errors import Busy, DecodeError, TimedOut
from clip_decode.windows import WindowClips
from decode_model.triton import as_decode_error, as_triton_error, store
from decode_pool.video_memory import VideoMemory
from decode_pool.window_messages import WindowJob
from decode_pool.window_stream import WindowStream

from .acknowledgements import Acknowledgements
from .config import TimelineSettings
from .metrics import TimelineMetrics
from .network import FEATURES, SCORES, Answers, Network, best_labels
from .request import TimelineRequest

WINDOWS, PROGRESS = "WINDOWS", "PROGRESS"
POLL_SECONDS = 0.25
# While no window is ready, the client hears so often that its timeline goes on. A damaged film of two hours is decoded
# once as a whole before its first window, and on a CPU four timelines share a network that takes 20 s for the 30 clips
# of a window: minutes, in which a server that hangs would look the same.
SIGN_OF_LIFE_SECONDS = 1.0
# Decoded windows that wait for the network, as long as they are small.
WAITING_BYTES, MIN_WAITING = 64 * 2**20, 2


# Held while Triton is asked whether a client has gone, and while a last response is sent: see Timeline.check.
_ASKING = threading.Lock()


class Cancelled(Exception):
    """The client has gone, or asked to stop."""


class Ended(Exception):
    """There are no more windows."""


class Timeline:
    """Answers one request.

    Args:
        request: what the client asks for.
        video: the bytes; closed at the end.
        network: the model's.
        sender: Triton's, of the responses.
        timeout_seconds: of the request; None for none.
        on_end: called at the very end.

    Attributes:
        request, acknowledgements: of the client.
        is_done: whether it has only its last response to send.
    """

    def __init__(
        self,
        request: TimelineRequest,
        video: VideoMemory,
        network: Network,
        settings: TimelineSettings,
        metrics: TimelineMetrics,
        sender: Any,
        *,
        timeout_seconds: float | None,
        on_end: Callable[[Timeline], None],
    ) -> None:
        self.request, self._video, self._network, self._settings = request, video, network, settings
        self._metrics, self._sender, self._on_end = metrics, sender, on_end
        self.acknowledgements = Acknowledgements(request.max_unacknowledged, request.windows.first_window)
        self._deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        job = WindowJob(video, network.served.geometry, request.windows, request.sampling, settings.window_limits)
        self._stream = WindowStream(job, settings.process, settings.limits, on_restart=metrics.count_restart)
        clip_bytes = math.prod(job.shape)
        most = max(MIN_WAITING, min(2 * network.served.max_batch, WAITING_BYTES // clip_bytes))
        self._decoded: queue.Queue[WindowClips | Exception] = queue.Queue(most)  # The last one is an exception.
        self._ending: Exception | None = None  # Why it ends early.
        self._sent_at = time.monotonic()
        self.is_done = False
        self._labels: Sequence[str] = ()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)
        self._decoder = threading.Thread(target=self._decode, name="timeline-decode", daemon=True)

    def start(self) -> None:
        """Start the threads. Raises Busy where the machine allows no more of them."""
        _start(self._thread)

    def end(self, reason: Exception) -> None:
        """End early, from any thread: with an error, or Cancelled. Does not wait."""
        if self._ending is None:
            self._ending = reason
        self._stream.close()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def check(self) -> None:
        """End it if the client has gone, or its time is over; else say that it goes on. One thread calls it often."""
        # Triton 2.51 may lose the end of one request when it is asked about another meanwhile. It then keeps the model,
        # and stops only after its exit timeout.
        with self._lock, _ASKING:
            if self._sender is None:
                return
            if self._sender.is_cancelled():
                self.end(Cancelled())
        if time.monotonic() > self._deadline:
            self.end(TimedOut(f"the timeline took longer than {self._timeout_seconds:g} s, the timeout of the request"))
        if self.request.timeline and self.acknowledgements.silent_seconds > self._settings.max_paused_seconds:
            self.end(
                TimedOut(
                    f"the client has acknowledged no window for {self._settings.max_paused_seconds} s; go on with"
                    " first_window"
                )
            )
        # Not to a client that does not read: Triton would keep what it is told.
        if time.monotonic() > self._sent_at + SIGN_OF_LIFE_SECONDS and not self.acknowledgements.silent_seconds:
            with contextlib.suppress(Exception):  # of Triton, where shared memory is full
                self._send_response([])

    def _run(self) -> None:
        outcome, error = "ok", None
        try:
            _start(self._decoder)
            self._labels = self._network.read_labels()
            for windows in self._batches():
                self._answer(windows)
        except Cancelled:
            outcome = "cancelled"
        except Exception as exception:
            error = as_decode_error(exception)
            outcome = error.code
        finally:
            self.end(Ended())
            if self._decoder.ident is not None:  # It has started.
                self._decoder.join()
            self._video.close()
            self._metrics.count_outcome(outcome)
            self.is_done = True
            try:
                self._send_end(error)
            finally:
                self._on_end(self)

    def _decode(self) -> None:
        """Runs in a thread: decoded windows into the queue, which is bounded."""
        try:
            for window in self._stream:
                if not self._put(window):
                    return
            self._put(Ended())
        except Exception as error:
            self._put(error)

    def _put(self, item: WindowClips | Exception) -> bool:
        while self._ending is None:
            try:
                self._decoded.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _batches(self) -> Iterator[list[WindowClips]]:
        """Decoded windows: those that wait, as many as may share a run."""
        windows: list[WindowClips] = []
        while True:
            item = self._take(wait=not windows)
            if isinstance(item, WindowClips):
                windows.append(item)
                if len(windows) < self._network.shared_runs(len(item.clips)).wanted:
                    continue
            if windows:
                yield windows
                windows = []
            if isinstance(item, Ended):
                return
            if isinstance(item, Exception):
                raise item

    def _take(self, *, wait: bool) -> WindowClips | Exception | None:
        """What comes next; None where nothing is there yet and nothing is waited for."""
        while True:
            if self._ending is not None:
                raise self._ending
            try:
                return self._decoded.get(timeout=POLL_SECONDS) if wait else self._decoded.get_nowait()
            except queue.Empty:
                if not wait:
                    return None

    def _answer(self, windows: Sequence[WindowClips]) -> None:
        request = self.request
        outputs = (SCORES, FEATURES) if request.features else (SCORES,)
        answers = self._network.run(windows, outputs, request.model_version)
        while request.timeline and not self.acknowledgements.may_send(POLL_SECONDS):
            if self._ending is not None:
                raise self._ending
        self._send(windows, answers)
        sent = windows[-1].window.span.number + 1
        self.acknowledgements.record_sent(sent)
        self._metrics.count_windows(len(windows))

    def _send(self, windows: Sequence[WindowClips], answers: Answers) -> None:
        scores = answers[SCORES]
        texts = [self._describe(window, row) for window, row in zip(windows, scores, strict=True)]
        progress = json.dumps(self._describe_progress(windows[-1]))
        tensors = [
            pb_utils.Tensor(WINDOWS, np.array(texts, dtype=np.object_)),
            pb_utils.Tensor(PROGRESS, np.array([progress], dtype=np.object_)),
            *(pb_utils.Tensor(name, np.ascontiguousarray(values)) for name, values in answers.items()),
        ]
        if not store(tensors, sum(map(len, texts)) + sum(values.nbytes for values in answers.values())):
            tensors.clear()  # The error needs the room that the stored tensors take.
            raise Busy("the server's shared memory, /dev/shm, has no room for an answer; try again later")
        self._send_response(tensors)

    def _send_response(self, tensors: list[Any]) -> None:
        """Send windows, or a response without any: a sign of life."""
        with self._lock:
            if self._ending is None:
                self._sent_at = time.monotonic()
                self._sender.send(pb_utils.InferenceResponse(tensors))

    def _describe(self, decoded: WindowClips, scores: Any) -> str:
        window = decoded.window
        report = {
            "frame_numbers": window.frame_numbers.tolist(),
            "policy": window.policy,
            "quality": window.quality,
            "method": decoded.method,
        }
        return json.dumps(
            {
                "index": window.span.number,
                "start_seconds": window.span.start_seconds,
                "end_seconds": window.span.end_seconds,
                "start_frame": window.first_frame,
                "end_frame": window.end_frame,
                "top": [
                    [label.score, label.number, label.name]
                    for label in best_labels(scores, self._labels, self.request.top_k)
                ],
                "report": report,
            }
        )

    def _describe_progress(self, decoded: WindowClips) -> dict[str, Any]:
        video = decoded.video
        version = self.request.model_version
        return {
            "windows_total": video.windows,
            "duration_seconds": video.duration_seconds,
            "truncated": video.truncated,
            "model_version": str(version) if version > 0 else None,
            "video": {**vars(video)},
        }

    def _send_end(self, error: DecodeError | None) -> None:
        """The final response: empty, or the error."""
        with self._lock, _ASKING:
            # Let go of: Triton does not unload a model, and so does not stop, while a sender exists.
            sender, self._sender = self._sender, None
            final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            if error is None:
                sender.send(flags=final)
            else:
                sender.send(pb_utils.InferenceResponse(error=as_triton_error(error)), flags=final)


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        raise Busy("the server can start no thread for this timeline at the moment; try again later") from error
