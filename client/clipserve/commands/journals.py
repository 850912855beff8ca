"""What a command says of the journal that it writes, however it ends."""

from collections.abc import Callable
from typing import Any

import typer

from clipserve.commands.output import print_error, tell
from clipserve.jobs.journal import Journal
from clipserve.retry import RETRIED_ERRORS


def continue_journal(journal: Journal[Any], work: Callable[[], None], *, name: str, failed: str) -> bool:
    """Let `work` write to a journal, and close it. Returns whether nothing in it failed.

    Args:
        name: of the output, for messages.
        failed: what messages call the failures.

    Raises:
        typer.Exit: the server was away for too long, or something could not be written.
        KeyboardInterrupt: as it came.
    """
    before = journal.results
    try:
        with journal:
            work()
    except KeyboardInterrupt:
        _tell_rest(journal, name)
        raise
    except (*RETRIED_ERRORS, OSError) as error:
        print_error(error)
        _tell_rest(journal, name)
        raise typer.Exit(2) from error
    new = journal.results - before
    tell(f"{name}: {journal.results} {journal.RESULTS}, {new} of them new, {journal.failures} {failed}")
    return journal.failures == 0


def _tell_rest(journal: Journal[Any], name: str) -> None:
    tell(f"{name}: {journal.results} {journal.RESULTS}; the same command continues from here")
