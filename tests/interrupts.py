"""Ctrl-C for the programs that tests start."""

import signal


def hear_interrupts() -> None:
    """For preexec_fn. A shell has what it starts in the background ignore SIGINT, and so all that this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
