"""The timelines that run: starts them, watches their clients, and ends them."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from clip_decode.errors import Busy, InvalidRequest, NotAVideo
from clip_decode.limits import check_bytes
from decode_model.in_flight import STOPPING, InFlight
from decode_model.triton import as_decode_error, as_triton_error, read_parameters
from decode_pool.video_memory import VideoMemory

from .config import TimelineConfig
from .metrics import TimelineMetrics
from .network import Network
from .request import Acknowledgement, TimelineRequest
from .timeline import POLL_SECONDS, Timeline

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
MICROSECONDS = 1e6
KEPT_NAMES = 1000  # of timelines, whose last acknowledgement may come after their end


class UnknownModel(Exception):
    """The client names a model that timelines do not serve."""


class UnknownTimeline(Exception):
    """The client acknowledges windows of a timeline that was not begun here.

    Triton has loaded this model again since. The timeline runs in the process of before, which no acknowledgement
    reaches any more, so that it soon sends nothing.
    """


class TimelineService:
    """What the requests of one model instance share. repository: the folder of all models."""

    def __init__(self, config: TimelineConfig, repository: Path, metrics: TimelineMetrics, in_flight: InFlight) -> None:
        self._config, self._metrics, self._in_flight = config, metrics, in_flight
        milliseconds = config.settings.run_milliseconds
        self._networks = {name: Network(served, repository, milliseconds) for name, served in config.networks.items()}
        self._running: set[Timeline] = set()
        self._ended: deque[str] = deque(maxlen=KEPT_NAMES)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="timelines", daemon=True)
        self._watcher.start()

    def start(self, request: Any) -> None:
        """Start a timeline, take an acknowledgement, or answer with an error."""
        sender = request.get_response_sender()
        try:
            parameters = read_parameters(request)
            if (acknowledgement := Acknowledgement.from_parameters(parameters)) is not None:
                self._acknowledge(acknowledgement)
                sender.send(flags=FINAL)
                return
            self._start(request, TimelineRequest.from_parameters(parameters), sender)
        except UnknownModel as unknown:
            answer = pb_utils.TritonError(str(unknown), pb_utils.TritonError.NOT_FOUND)
            sender.send(pb_utils.InferenceResponse(error=answer), flags=FINAL)
        except UnknownTimeline:
            answer = as_triton_error(Busy("this timeline does not run here any more; go on with first_window"))
            sender.send(pb_utils.InferenceResponse(error=answer), flags=FINAL)
        except Exception as exception:
            error = as_decode_error(exception)
            self._metrics.count_outcome(error.code)
            sender.send(pb_utils.InferenceResponse(error=as_triton_error(error)), flags=FINAL)

    def _start(self, request: Any, wish: TimelineRequest, sender: Any) -> None:
        network = self._find_network(wish)
        self._in_flight.begin()
        try:
            with self._lock:
                self._check_room(wish)
            video = self._read_video(request)
            timeout = request.timeout()
            timeline = Timeline(
                wish,
                video,
                network,
                self._config.settings,
                self._metrics,
                sender,
                timeout_seconds=timeout / MICROSECONDS if timeout else None,
                on_end=self._remove,
            )
        except BaseException:
            self._in_flight.end()
            raise
        with self._lock:
            self._running.add(timeline)
            self._metrics.set_running(len(self._running))
        try:
            timeline.start()
        except BaseException:  # The machine allows no more threads.
            self._remove(timeline)
            video.close()
            raise

    def _find_network(self, wish: TimelineRequest) -> Network:
        network = self._networks.get(wish.model)
        if network is None or not network.is_ready(wish.model_version):
            version = f" version {wish.model_version} of" if wish.model_version > 0 else ""
            ready = [name for name, other in self._networks.items() if other.is_ready(-1)]
            raise UnknownModel(
                f"timelines have no{version} model {wish.model!r:.80}; this server serves {', '.join(ready)}"
            )
        clips, most = wish.sampling.clips, network.served.max_clips
        if clips > most:
            raise InvalidRequest(
                f"{wish.sampling.views} views x {wish.sampling.crops} crops are {clips} clips, but this model takes at"
                f" most {most} of one window; ask for fewer views or crops"
            )
        return network

    def _check_room(self, wish: TimelineRequest) -> None:
        # One that has only its last response to send makes room: the next request may come as soon as that is sent.
        running = [timeline for timeline in self._running if not timeline.is_done]
        most = self._config.settings.max_timelines
        if len(running) >= most:
            raise Busy(f"{most} timelines run already; try again later")
        if wish.timeline and any(other.request.timeline == wish.timeline for other in running):
            raise InvalidRequest("a timeline of this name runs already; choose another name for each")

    def _read_video(self, request: Any) -> VideoMemory:
        videos = pb_utils.get_input_tensor_by_name(request, "VIDEO").as_numpy().ravel()
        if len(videos) != 1:
            raise InvalidRequest(f"VIDEO has {len(videos)} videos, but one is needed")
        check_bytes(len(videos[0]), self._config.settings.limits)
        if not videos[0]:
            raise NotAVideo("the file is empty")
        try:
            return VideoMemory(videos[0])
        except OSError as error:
            raise Busy(f"the server has no memory for this video ({error.strerror}); try again later") from error

    def _acknowledge(self, acknowledgement: Acknowledgement) -> None:
        with self._lock:
            running = [timeline for timeline in self._running if timeline.request.timeline == acknowledgement.timeline]
            for timeline in running:
                timeline.acknowledgements.receive(acknowledgement.windows)
            if not running and acknowledgement.timeline not in self._ended:
                raise UnknownTimeline

    def _remove(self, timeline: Timeline) -> None:
        with self._lock:
            self._running.discard(timeline)
            self._ended.append(timeline.request.timeline)
            self._metrics.set_running(len(self._running))
        self._in_flight.end()

    def _watch(self) -> None:
        """Runs in a thread: ends timelines whose client has gone, and all when the server stops."""
        while not self._closing.wait(POLL_SECONDS):
            with self._lock:
                running = list(self._running)
            for timeline in running:
                if self._in_flight.is_stopping:
                    timeline.end(Busy(STOPPING))
                timeline.check()

    def close(self) -> None:
        """End every timeline, and wait until they have ended."""
        self._closing.set()
        self._watcher.join()
        with self._lock:
            running = list(self._running)
        for timeline in running:
            timeline.end(Busy(STOPPING))
        for timeline in running:
            timeline.join()
