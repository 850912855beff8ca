"""`clipserve plan`: how many servers the work needs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import spread_options
from clipserve.commands.output import print_error
from clipserve.errors import ClipserveError
from clipserve.plan.load_test import read_load_test
from clipserve.plan.planning import Plan, make_plan
from clipserve.plan.workload import Workload


@spread_options
def plan(
    *,
    workload: Workload,
    measured: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of `clipserve loadtest` for this model and such videos. Use its results in place of the"
            " built-in figures.",
            show_default=False,
        ),
    ] = None,
    repository: Annotated[
        Path, typer.Option(metavar="DIR", help="The model repository that has a model of your own.")
    ] = Path("model_repository"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate how many servers, cores and GPUs, and how much memory, the work needs.

    \b
    clipserve plan --rate 50 --size 1920x1080 --model x3d_m --latency 1000
    clipserve plan --videos 10e6 --hours 72 --on h100 --price 4
    clipserve plan --servers 40 --videos 10e6 --on h100
    clipserve plan --per-day 1e6 --cores 8 --measured loadtest-results/2026-11-27

    Every line shows its arithmetic and the source of its figures. The figures
    were measured on the machines that the sources name. A load test of one of
    your servers is more accurate.

    Exit code: 0 with a plan, 2 if the work is not possible with these options
    or an option is wrong.
    """
    try:
        made = make_plan(workload, None if measured is None else read_load_test(measured), repository=repository)
    except ClipserveError as error:
        print_error(error)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(made.describe(), indent=2))
    else:
        print_plan(made)


def print_plan(made: Plan) -> None:
    """Print the result, the arithmetic, the sources, and what is extrapolated."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    sources = list(dict.fromkeys(step.source for step in made.steps if step.source))
    remarks = made.extrapolations
    table = Table("", "", "how", "source", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for step in made.steps:
        marks = [f"[{sources.index(step.source) + 1}]"] if step.source else []
        marks += ["~"] if step.extrapolated else []
        table.add_row(step.what, f"{_write_number(step.value)} {step.unit}".strip(), step.how, " ".join(marks))
    gpus = (", 1 GPU" if made.gpus == 1 else f", {made.gpus} GPUs") if made.gpus else ""
    servers, cores, each = (
        "1 " + what if count == 1 else f"{count} {what}s"
        for count, what in ((made.servers, "server"), (made.cores, "core"), (made.workers, "core"))
    )
    console.print(
        f"{servers}: {cores}{gpus}; each with {each}, {made.shm_megabytes} MiB of"
        f" /dev/shm and {made.memory_megabytes} MiB of memory",
        markup=False,
        soft_wrap=True,
    )
    if made.workload.get("servers") is None:
        console.print("One more keeps the rate when one is lost.", markup=False)
    console.print()
    table.show_header = False
    console.print(table, markup=False)
    for number, source in enumerate(sources, 1):
        console.print(f"[{number}] {source}", markup=False, soft_wrap=True)
    if remarks:
        console.print("\n~ beyond what was measured:", markup=False)
    for remark in remarks:
        console.print(f"  {remark}", markup=False, soft_wrap=True)


def _write_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.4g}"
