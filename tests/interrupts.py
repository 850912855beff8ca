"""Ctrl-C for the programs that tests start."""

from collections.abc import Sequence


def interruptible(command: Sequence[object]) -> list[str]:
    """The command, run so that SIGINT reaches it; the process id stays.

    A shell has what it starts in the background ignore SIGINT, and so all that this starts. `preexec_fn` would fork
    this process, and a fork beside gRPC's threads sometimes dies before it runs the program.
    """
    return ["env", "--default-signal=INT", *map(str, command)]
