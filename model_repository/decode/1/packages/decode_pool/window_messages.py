"""The messages between the server and a process that decodes the windows of one video.

The server sends a JSON header and the file descriptor of the video. The worker sends a JSON header for each window, and
the pixels of its clips; in between, a line that says that it goes on; then the end, or an error. As in messages.py,
nothing is pickled, and every value that comes from a worker is checked.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling
from clip_decode.windows import PlannedWindow, Span, WindowClips, WindowedVideo, WindowLimits, Windows

from .messages import MAX_HEADER_BYTES, raise_error
from .video_memory import VideoMemory, map_video

_FACTS = {"str": str, "int": int, "float": (int, float), "bool": bool}


@dataclass(frozen=True)
class WindowJob:
    """The windows wanted of one video."""

    video: VideoMemory
    geometry: Geometry
    windows: Windows
    sampling: Sampling
    limits: WindowLimits

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """The shape of the clips of a window: [V, T, S, S, 3]."""
        side = self.geometry.crop
        return (self.sampling.clips, self.geometry.frames, side, side, 3)


@dataclass(frozen=True)
class ReceivedJob:
    """A WindowJob as the worker gets it."""

    video: memoryview
    geometry: Geometry
    windows: Windows
    sampling: Sampling
    limits: WindowLimits


class Ended(Exception):
    """The worker has sent every window."""


def send_window_job(connection: Connection, job: WindowJob, worker: int) -> None:
    """Called by the server. worker: the worker's process id."""
    header = {
        "size": job.video.size,
        "geometry": asdict(job.geometry),
        "windows": asdict(job.windows),
        "sampling": asdict(job.sampling),
        "limits": asdict(job.limits),
    }
    connection.send_bytes(json.dumps(header).encode())
    send_handle(connection, job.video.descriptor, worker)


def receive_window_job(connection: Connection) -> ReceivedJob:
    """Called by the worker. Raises EOFError when the server is gone."""
    header = json.loads(connection.recv_bytes())
    return ReceivedJob(
        video=map_video(recv_handle(connection), header["size"]),
        geometry=Geometry(**header["geometry"]),
        windows=Windows(**header["windows"]),
        sampling=Sampling(**header["sampling"]),
        limits=WindowLimits(**header["limits"]),
    )


def send_window(connection: Connection, decoded: WindowClips) -> None:
    """Called by the worker."""
    window = decoded.window
    header = {
        "window": [*asdict(window.span).values(), window.first_frame, window.end_frame],
        "frame_numbers": window.frame_numbers.tolist(),
        "facts": [window.policy, window.quality, decoded.method],
        "video": asdict(decoded.video),
    }
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(decoded.clips.data.cast("B"))


def send_sign_of_life(connection: Connection) -> None:
    """Called by the worker."""
    connection.send_bytes(b"{}")


def send_end(connection: Connection) -> None:
    """Called by the worker."""
    connection.send_bytes(json.dumps({"end": True}).encode())


def receive_window(connection: Connection, job: WindowJob) -> WindowClips | None:
    """Called by the server. None for a sign of life.

    Raises:
        Ended: there are no more windows.
        DecodeError: the worker's answer is one; a traceback that came with it is its note.
        OSError, EOFError, ValueError, KeyError, TypeError: the answer breaks off, or is none.
    """
    header = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    if not header:
        return None
    if "end" in header:
        raise Ended
    raise_error(header)
    clips = np.empty(job.shape, np.uint8)
    window = _read_window(header)
    video = _read_video(header["video"])
    if connection.recv_bytes_into(clips.data.cast("B")) != clips.nbytes:
        raise ValueError("a worker answered with a clip of the wrong size")
    method = "selected" if header["facts"][2] == "selected" else "whole"
    return WindowClips(window, clips, method, video)  # type: ignore[arg-type]


def _read_window(header: dict[str, Any]) -> PlannedWindow:
    number, start, end, first, last = header["window"]
    numbers: npt.NDArray[np.int32] = np.array(header["frame_numbers"], np.int32)
    whole = all(isinstance(value, int) for value in (number, first, last))
    if not whole or numbers.ndim != 2 or not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError("a worker answered with a window that is none")
    policy, quality = header["facts"][:2]
    return PlannedWindow(Span(number, start, end), first, last, numbers, policy, quality)


def _read_video(facts: dict[str, Any]) -> WindowedVideo:
    values = {field.name: facts[field.name] for field in fields(WindowedVideo)}
    for field in fields(WindowedVideo):
        value = values[field.name]
        if not isinstance(value, _FACTS[str(field.type)]) or (isinstance(value, float) and not math.isfinite(value)):  # type: ignore[arg-type]
            raise ValueError(f"a worker answered with {field.name} {value!r:.40}")
    return WindowedVideo(**values)
