"""What goes between the pool and a worker, over one socket.

To the worker: a JSON head, then the bytes of the video. Back: word that it has them, which tells a worker that died
before from one that died of the video; then a JSON head, which is a report or an error, then the pixels of each clip.
Nothing is pickled: a worker that a hostile video has taken over can send wrong pixels, not code.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from clip_decode.errors import Declined, DecodeError
from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling

Clips = dict[str, npt.NDArray[np.uint8]]
MAX_HEAD_BYTES = 1 << 20
MAX_TRACEBACK_LENGTH = 16_384
TAKEN = b"taken"


@dataclass(frozen=True)
class Job:
    """One video to decode."""

    video: bytes
    geometries: Mapping[str, Geometry]
    sampling: Sampling

    def shape(self, name: str) -> tuple[int, int, int, int, int]:
        """Of the clips called `name`: [V, T, S, S, 3]."""
        geometry = self.geometries[name]
        return (self.sampling.clips, geometry.frames, geometry.crop, geometry.crop, 3)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the clips of each name."""
        return {name: math.prod(self.shape(name)) for name in self.geometries}


@dataclass(frozen=True)
class Decoded:
    """What a job gave."""

    clips: Clips
    report: str  # JSON
    seconds: float  # from the job's leaving the queue to its pixels' arrival
    decoder: str = "cpu"


def send_job(connection: Connection, job: Job) -> None:
    """Pool's side."""
    head = {
        "geometries": {name: asdict(geometry) for name, geometry in job.geometries.items()},
        "sampling": asdict(job.sampling),
    }
    connection.send_bytes(json.dumps(head).encode())
    connection.send_bytes(job.video)


def receive_job(connection: Connection) -> Job:
    """Worker's side; raises EOFError when the pool is gone."""
    head = json.loads(connection.recv_bytes())
    video = connection.recv_bytes()
    connection.send_bytes(TAKEN)
    geometries = {name: Geometry(**values) for name, values in head["geometries"].items()}
    return Job(video, geometries, Sampling(**head["sampling"]))


def send_decoded(connection: Connection, clips: Clips, report: str) -> None:
    """Worker's side."""
    connection.send_bytes(json.dumps({"report": report, "clips": list(clips)}).encode())
    for clip in clips.values():
        connection.send_bytes(clip.data.cast("B"))


def send_error(connection: Connection, error: DecodeError, *, traceback: str = "") -> None:
    """Worker's side. traceback: for the server's log; the last of a long one."""
    head = {"error": error.code, "message": error.message, "traceback": traceback[-MAX_TRACEBACK_LENGTH:]}
    connection.send_bytes(json.dumps(head).encode())


def send_declined(connection: Connection, reason: Declined) -> None:
    """Worker's side."""
    connection.send_bytes(json.dumps({"declined": str(reason)}).encode())


def receive_answer(connection: Connection, job: Job, *, started: float) -> Decoded:
    """Pool's side. started: when the job left the queue, by time.monotonic().

    Raises:
        Declined: the worker leaves the job to another.
        DecodeError: the worker's answer is one; a traceback that came with it is its note.
        OSError, EOFError, ValueError, KeyError, TypeError: the worker broke off, or talks nonsense.
    """
    head = json.loads(connection.recv_bytes(MAX_HEAD_BYTES))
    if "declined" in head:
        raise Declined(str(head["declined"]))
    if "error" in head:
        error = DecodeError(str(head["error"]), str(head["message"]))
        if head["traceback"]:
            error.add_note(str(head["traceback"]))
        raise error
    if set(head["clips"]) != set(job.geometries):
        raise ValueError("a worker answered with clips that nobody asked for")
    clips: Clips = {}
    for name in head["clips"]:
        clip = np.empty(job.shape(name), np.uint8)
        if connection.recv_bytes_into(clip.data.cast("B")) != clip.nbytes:
            raise ValueError("a worker answered with a clip of the wrong size")
        clips[name] = clip
    return Decoded(clips, str(head["report"]), time.monotonic() - started)
