"""The process that FFmpeg runs in: python -m decode_pool.worker SOCKET LIMITS MEGABYTES

It decodes the jobs that come over the socket until the other end closes. The kernel limits its memory, forbids it to
write files and core dumps, runs it at a lower priority than the networks, and ends it together with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from clip_decode.engine import decode_clips
from clip_decode.errors import Declined
from clip_decode.limits import Limits
from clip_decode.report import Report

from .messages import READY, TAKEN, Clips, Job, receive_job, send_declined, send_decoded, send_failure

# Decodes the video of a job.
Decode = Callable[[Job], tuple[Clips, Report]]

SUDDEN_MEGABYTES = 1024
# Lower priority than the network's processes, so that decoded clips are answered before more are decoded. Where both
# share cores, that gives 9 % more videos a second (x3d_m on two cores, benchmarks/service.py).
NICENESS = 5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def confine(niceness: int = NICENESS) -> None:
    """Set the priority of this process, and what it does when others end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C is meant for the server, which then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine_resources(megabytes: int) -> None:
    """Forbid this process to write files, and limit its memory.

    The pool watches the memory too; the kernel's limit, which is higher, stops what grows between two looks.
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
        except MemoryError as error:
            # The rest of this job is still in the socket, so the start of the next one cannot be found.
            connection.send_bytes(TAKEN)
            send_failure(connection, error)
            return
        try:
            answer(connection, job, decode)
        except ConnectionError:
            return
        # PyAV's containers, streams and frames refer to each other. By default the garbage collector lets dozens of
        # them pile up with their pictures, and the heap fragments: 35 MiB after 3,000 small videos. This takes 0.1 ms.
        del job
        gc.collect()


def answer(connection: Connection, job: Job, decode: Decode) -> None:
    """Decode one video and send the clips or the error. Nothing of it outlives the call.

    Any exception becomes an answer, so that the pool loses a worker only to a crash, a hang or its memory limit.
    """
    try:
        clips, report = decode(job)
        facts = report.to_json()
    except Declined as reason:
        send_declined(connection, reason)
    except Exception as error:
        send_failure(connection, error)
    else:
        send_decoded(connection, clips, facts)


def _decode_within(limits: Limits) -> Decode:
    return lambda job: decode_clips(job.video, job.geometries, job.sampling, limits)


def main() -> None:
    """Run the command line above."""
    descriptor, limits, megabytes = sys.argv[1:]
    connection = Connection(int(descriptor))
    confine()
    confine_resources(int(megabytes))
    # The modules loaded by now stay, so the garbage collector need not walk them after every video.
    gc.freeze()
    connection.send_bytes(READY)
    work(connection, _decode_within(Limits(**json.loads(limits))))


if __name__ == "__main__":
    main()
