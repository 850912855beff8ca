"""What a command does when it is told to stop: SIGTERM comes from `docker stop`, Kubernetes, `timeout` and others."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Within it, SIGTERM raises SystemExit, as Ctrl-C raises KeyboardInterrupt: what was begun is removed.

    Without effect outside the main thread, the only one that Python lets handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
