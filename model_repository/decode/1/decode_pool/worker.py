"""The process FFmpeg runs in: python -m decode_pool.worker SOCKET LIMITS MEGABYTES

It decodes what comes over the socket until the other end closes, and takes its limits from the kernel: memory, no
core dumps, no files written, a place behind the network's processes, and death with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from clip_decode.engine import decode_clips
from clip_decode.errors import Declined, DecodeError, Failed, OutOfMemory
from clip_decode.limits import Limits
from clip_decode.report import Report
from decode_pool.messages import TAKEN, Clips, Job, receive_job, send_declined, send_decoded, send_error

# What a worker does with a job.
Decode = Callable[[Job], tuple[Clips, Report]]

READY = b"ready"
SUDDEN_MEGABYTES = 1024
# Below the network's processes: what is decoded already goes first. Where both share cores, that is 9 % more videos a
# second (x3d_m on two cores, benchmarks/service.py); decoding gets whatever the network cannot use.
NICENESS = 5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def confine() -> None:
    """Set the limits of this process, and its place behind others."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C is for the server, which then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine_resources(megabytes: int) -> None:
    """Write no files, and take no more memory than that.

    The pool watches the memory of this process; the kernel's limit is for what grows faster than anyone looks.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + (megabytes + SUDDEN_MEGABYTES) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def work(connection: Connection, decode: Decode) -> None:
    """Answer jobs until the pool closes the connection."""
    while True:
        try:
            job = receive_job(connection)
        except (EOFError, ConnectionError):
            return
        except MemoryError:
            # The bytes are still in the socket: this process cannot know where the next job begins.
            connection.send_bytes(TAKEN)
            send_error(connection, _out_of_memory())
            return
        try:
            answer(connection, job, decode)
        except ConnectionError:
            return
        # PyAV's containers, streams and frames refer to each other. Left to itself, the collector lets dozens of them
        # pile up with all their pictures, and the heap breaks up: 35 MiB after 3,000 small videos. This takes 0.1 ms.
        del job
        gc.collect()


def answer(connection: Connection, job: Job, decode: Decode) -> None:
    """Decode one video and send what came of it; nothing of it outlives the call.

    Any exception is an answer. Only death, a hang and memory cost the pool a worker.
    """
    try:
        clips, report = decode(job)
        facts = report.to_json()
    except Declined as reason:
        send_declined(connection, reason)
    except DecodeError as error:
        send_error(connection, error)
    except MemoryError:
        send_error(connection, _out_of_memory())
    except Exception as error:
        # The client learns the kind alone: the text of an exception can name files of this machine.
        failed = Failed(
            f"decoding this video met a defect of the server ({type(error).__name__}); its log has the traceback"
        )
        send_error(connection, failed, traceback=traceback.format_exc())
    else:
        send_decoded(connection, clips, facts)


def _decode_within(limits: Limits) -> Decode:
    return lambda job: decode_clips(job.video, job.geometries, job.sampling, limits)


def _out_of_memory() -> DecodeError:
    return OutOfMemory("decoding this video takes more memory than a worker may have")


def main() -> None:
    """The command line above."""
    descriptor, limits, megabytes = sys.argv[1:]
    connection = Connection(int(descriptor))
    confine()
    confine_resources(int(megabytes))
    # What is loaded by now stays: the collector need not walk it after every video.
    gc.freeze()
    connection.send_bytes(READY)
    work(connection, _decode_within(Limits(**json.loads(limits))))


if __name__ == "__main__":
    main()
