"""The process that decodes the windows of one video: python -m decode_pool.window_worker SOCKET LIMITS MEGABYTES

It decodes one job and ends. When the server does not read, it waits: so no more is decoded than somebody wants. It is
confined as the workers of the pool are, and runs at a still lower priority, because nobody waits for a long video as
for a single clip.
"""

from __future__ import annotations

import json
import sys
import time
from multiprocessing.connection import Connection

from clip_decode.limits import Limits
from clip_decode.window_engine import decode_windows

from .messages import READY, send_failure
from .window_messages import (
    receive_window_job,
    send_end,
    send_sign_of_life,
    send_window,
)
from .worker import confine, confine_resources

# The lowest priority but four: the workers of single clips have 5.
NICENESS = 15
SIGN_OF_LIFE_SECONDS = 1.0


class SignOfLife:
    """Tells the server that work goes on, at most once a second. Call it often."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._sent = connection, time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now > self._sent + SIGN_OF_LIFE_SECONDS:
            self._sent = now
            send_sign_of_life(self._connection)


def work(connection: Connection, limits: Limits, megabytes: int) -> None:
    """Decode one job. Raises EOFError or ConnectionError when the server is gone."""
    job = receive_window_job(connection)
    # The video is mapped by now, and does not count.
    confine_resources(megabytes)
    windows = decode_windows(
        job.video, job.geometry, job.windows, job.sampling, limits, job.limits, tick=SignOfLife(connection)
    )
    try:
        for window in windows:
            send_window(connection, window)
    except ConnectionError:
        raise
    except Exception as error:
        send_failure(connection, error)
    else:
        send_end(connection)


def main() -> None:
    """Run the command line above."""
    descriptor, limits, megabytes = sys.argv[1:]
    connection = Connection(int(descriptor))
    confine(NICENESS)
    connection.send_bytes(READY)
    try:
        work(connection, Limits(**json.loads(limits)), int(megabytes))
    except (EOFError, ConnectionError):
        return  # The server is gone, or nobody wants the rest.


if __name__ == "__main__":
    main()
