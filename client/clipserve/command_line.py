"""The program `clipserve`: the commands of every package of the distribution.

This module imports next to nothing, so that `main` is there at once to handle Ctrl-C.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING

from clipserve.commands.standard_output import guard_standard_output

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the program. The client itself needs neither typer nor rich, so they may be missing."""
    # The imports take most of the program's first second. Ctrl-C ends them with status 130, without a traceback. Only a
    # handler that is Python's own is replaced: a program that a shell starts in the background ignores Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        app = build_app()
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"clipserve: the command line needs {missing.name}: pip install 'clipserve[cli]'\n")
        sys.exit(2)
    guard_standard_output()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # SIGTERM comes from `docker stop`, Kubernetes, `timeout` and others. SIGHUP comes from a terminal that is closed; a
    # program of `nohup` ignores it. As after Ctrl-C, what was begun is removed.
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        app()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stdout.flush()


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a shell and the system may both send it, and the removal is not to end
    sys.exit(128 + number)


def build_app() -> "typer.Typer":
    """The app with its commands. Importing them is light: torch and Triton wait for their use."""
    import typer

    from clipserve.commands.classify import classify
    from clipserve.commands.embed import embed
    from clipserve.evaluation.command import evaluate
    from clipserve.fitting.command import fit
    from clipserve.loadtest.command import loadtest
    from clipserve.plan.command import plan
    from clipserve.showcase.command import demo
    from clipserve.timeline.command import timeline
    from clipserve.timeline.evaluate_command import evaluate_timelines
    from clipserve_export.adopt_command import adopt
    from clipserve_export.command_line import export
    from clipserve_export.models_command import models
    from clipserve_export.versions_command import versions
    from clipserve_server.command_line import serve

    app = typer.Typer(
        help="Human-action recognition for video, served by NVIDIA Triton.",
        epilog="First: clipserve export x3d_m; clipserve serve; clipserve classify clip.mp4",
        no_args_is_help=True,
        # Local variables may hold credentials.
        pretty_exceptions_show_locals=False,
    )

    def print_version(wanted: bool) -> None:
        if wanted:
            from clipserve import __version__

            typer.echo(__version__)
            raise typer.Exit

    @app.callback()
    def clipserve(
        version: bool = typer.Option(
            False, "--version", callback=print_version, is_eager=True, help="Print the version."
        ),
    ) -> None: ...

    app.command()(classify)
    app.command()(embed)
    app.command()(timeline)
    app.command()(evaluate)
    app.command()(evaluate_timelines)
    app.command()(fit)
    app.command()(demo)
    app.command()(loadtest)
    app.command()(plan)
    app.command()(models)
    app.command()(export)
    app.command()(adopt)
    app.command()(versions)
    app.command()(serve)
    return app
