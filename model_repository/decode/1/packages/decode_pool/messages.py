"""The messages between the pool and a worker, over one socket.

A worker says that it is ready. The pool sends a JSON header and the bytes of the video. The worker first acknowledges
them, which tells a worker that died before from one that the video killed. Then it sends a JSON header with a report or
an error, and the pixels of each clip. Nothing is pickled: a worker that a hostile video controls can send wrong pixels,
but no code.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from traceback import format_exc

import numpy as np
import numpy.typing as npt

from clip_decode.errors import Declined, DecodeError, Failed, OutOfMemory
from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling

Clips = dict[str, npt.NDArray[np.uint8]]
MAX_HEADER_BYTES = 1 << 20
MAX_TRACEBACK_LENGTH = 16_384
READY, TAKEN = b"ready", b"taken"


@dataclass(frozen=True)
class Job:
    """One video to decode."""

    video: bytes
    geometries: Mapping[str, Geometry]
    sampling: Sampling

    def shape(self, name: str) -> tuple[int, int, int, int, int]:
        """The shape of the clips of an output: [V, T, S, S, 3]."""
        geometry = self.geometries[name]
        return (self.sampling.clips, geometry.frames, geometry.crop, geometry.crop, 3)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the clips, by output."""
        return {name: math.prod(self.shape(name)) for name in self.geometries}


@dataclass(frozen=True)
class Decoded:
    """The result of a job."""

    clips: Clips
    report: str  # JSON
    seconds: float  # from leaving the queue until the pixels have arrived
    decoder: str = "cpu"


def send_job(connection: Connection, job: Job) -> None:
    """Called by the pool."""
    header = {
        "geometries": {name: asdict(geometry) for name, geometry in job.geometries.items()},
        "sampling": asdict(job.sampling),
    }
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(job.video)


def receive_job(connection: Connection) -> Job:
    """Called by the worker. Raises EOFError when the pool is gone."""
    header = json.loads(connection.recv_bytes())
    video = connection.recv_bytes()
    connection.send_bytes(TAKEN)
    geometries = {name: Geometry(**values) for name, values in header["geometries"].items()}
    return Job(video, geometries, Sampling(**header["sampling"]))


def send_decoded(connection: Connection, clips: Clips, report: str) -> None:
    """Called by the worker."""
    connection.send_bytes(json.dumps({"report": report, "clips": list(clips)}).encode())
    for clip in clips.values():
        connection.send_bytes(clip.data.cast("B"))


def send_error(connection: Connection, error: DecodeError, *, traceback: str = "") -> None:
    """Called by the worker. traceback: for the server's log; a long one is cut at its beginning."""
    header = {"error": error.code, "message": error.message, "traceback": traceback[-MAX_TRACEBACK_LENGTH:]}
    connection.send_bytes(json.dumps(header).encode())


def send_failure(connection: Connection, failure: Exception) -> None:
    """Called by a worker, for the exception that it handles: one that is no DecodeError becomes one."""
    if isinstance(failure, DecodeError):
        send_error(connection, failure)
    elif isinstance(failure, MemoryError):
        send_error(connection, OutOfMemory("decoding this video takes more memory than a worker may have"))
    else:
        # The client gets the type only: the text of an exception can name files of this machine.
        failed = Failed(
            f"decoding this video met a defect of the server ({type(failure).__name__}); its log has the traceback"
        )
        send_error(connection, failed, traceback=format_exc())


def send_declined(connection: Connection, reason: Declined) -> None:
    """Called by the worker."""
    connection.send_bytes(json.dumps({"declined": str(reason)}).encode())


def raise_error(header: Mapping[str, object]) -> None:
    """Called by the other side: raise the error that a header carries, with its traceback as a note."""
    if "error" in header:
        error = DecodeError(str(header["error"]), str(header["message"]))
        if header["traceback"]:
            error.add_note(str(header["traceback"]))
        raise error


def receive_answer(connection: Connection, job: Job, *, started: float) -> Decoded:
    """Called by the pool. started: time.monotonic() when the job left the queue.

    Raises:
        Declined: the worker leaves the job to another.
        DecodeError: the worker's answer is one; a traceback that came with it is its note.
        OSError, EOFError, ValueError, KeyError, TypeError: the answer breaks off, or is none.
    """
    header = json.loads(connection.recv_bytes(MAX_HEADER_BYTES))
    if "declined" in header:
        raise Declined(str(header["declined"]))
    raise_error(header)
    if set(header["clips"]) != set(job.geometries):
        raise ValueError("a worker answered with clips that nobody asked for")
    clips: Clips = {}
    for name in header["clips"]:
        clip = np.empty(job.shape(name), np.uint8)
        if connection.recv_bytes_into(clip.data.cast("B")) != clip.nbytes:
            raise ValueError("a worker answered with a clip of the wrong size")
        clips[name] = clip
    return Decoded(clips, str(header["report"]), time.monotonic() - started)
