"""The start of the program `clipserve`. Apart from that package, whose import takes most of the program's first second:
Ctrl-C ends an import with status 130, without a traceback.
"""

import os
import signal


def main() -> None:
    """Import the program and run it."""
    # What a shell starts in the background ignores Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from clipserve.command_line import main as run

    run()
