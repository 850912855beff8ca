"""Writes the options of every command into command-line.md: `python docs/make_options.py`, `--check` compares."""

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from clipserve.command_line import build_app

PAGE = Path(__file__).with_name("command-line.md")
NUMBERS = {"integer": "N", "integer range": "N", "float": "NUMBER", "float range": "NUMBER"}
HEAD = ["| option | default | meaning |", "| --- | --- | --- |"]
LEAST_SHARED = 6  # an option of so many commands is in the table of shared options alone
BEGIN, END = "<!-- options: made by python docs/make_options.py -->", "<!-- end of options -->"


def list_commands() -> dict[str, Any]:
    """The commands of the program by name, as click has them."""
    group: Any = typer.main.get_command(build_app())
    return dict(group.commands)


def list_arguments(command: Any) -> list[Any]:
    """Its arguments, which have no names on the command line."""
    return [param for param in command.params if param.param_type_name == "argument" and not param.hidden]


def list_options(command: Any) -> list[Any]:
    """Its options, without --help and the hidden ones."""
    return [
        param
        for param in command.params
        if param.param_type_name == "option" and not param.hidden and param.name != "help"
    ]


def write_tables() -> str:
    """A table of the commands, one of the options that most of them share, and one a command, in Markdown."""
    commands = list_commands()
    rows = {name: {describe(option): option.opts[0] for option in list_options(commands[name])} for name in commands}
    counts = Counter(row for found in rows.values() for row in found)
    shared = [row for row, count in counts.items() if count >= LEAST_SHARED]
    lines = ["", "| command | what it does |", "| --- | --- |"]
    lines += [f"| [`clipserve {name}`](#clipserve-{name}) | {summarise(commands[name])} |" for name in commands]
    lines += ["", "### Shared options", "", "Most commands that call a server have these:", "", *HEAD, *shared]
    for name, found in rows.items():
        lines += [
            "",
            f"### clipserve {name}",
            "",
            summarise(commands[name]),
            "",
            f"`{write_usage(name, commands[name])}`",
        ]
        arguments = [f"* `{write_argument(one)}`: {flow(one.help)}" for one in list_arguments(commands[name])]
        lines += ["", *arguments] if arguments else []
        lines += ["", *HEAD, *(row for row in found if row not in shared)]
        if also := ", ".join(f"`{option}`" for row, option in found.items() if row in shared):
            lines += ["", f"[Shared options](#shared-options): {also}."]
    return "\n".join([*lines, ""])


def summarise(command: Any) -> str:
    """The first paragraph of its help."""
    return flow(inspect.cleandoc(command.help or "").partition("\n\n")[0])


def flow(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def write_usage(name: str, command: Any) -> str:
    """The command with its arguments and the options that it cannot do without."""
    required = [f"{option.opts[0]}{describe_value(option)}" for option in list_options(command) if option.required]
    return " ".join([f"clipserve {name}", *map(write_argument, list_arguments(command)), *required, "[OPTIONS]"])


def write_argument(argument: Any) -> str:
    """In brackets where it may be left out."""
    name = str(argument.metavar or argument.name.upper())
    return name if argument.required else f"[{name}]"


def describe(option: Any) -> str:
    """Its row of a table."""
    return " | ".join(["", *describe_cells(option), ""]).strip()


def describe_cells(option: Any) -> Iterator[str]:
    """The cells of its row."""
    names = [f"`{name}{describe_value(option)}`" for name in option.opts]
    names += [f"`{name}`" for name in option.secondary_opts]
    yield escape(", ".join(names))
    yield describe_default(option)
    variable = f" Or `{option.envvar}`." if option.envvar else ""
    yield escape((option.help or "") + variable)


def describe_default(option: Any) -> str:
    """What holds without it."""
    shown = option.show_default
    if option.required:
        return "required"
    if isinstance(shown, str):
        return shown
    if option.is_flag:
        return f"`{option.opts[0]}`" if option.default else ""
    default = getattr(option.default, "value", option.default)
    return "" if shown is False or default in (None, "") else f"`{default}`"


def describe_value(option: Any) -> str:
    """What follows its name."""
    if option.is_flag:
        return ""
    choices = "|".join(map(str, getattr(option.type, "choices", ())))
    return f" {option.metavar or choices or NUMBERS.get(option.type.name, option.type.name.upper())}"


def escape(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or with --check compare it; 1 where it differs."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    made = f"{before}{BEGIN}\n{write_tables()}\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv[1:]:
        if made != text:
            print(f"{PAGE} does not have the options of today: python docs/make_options.py", file=sys.stderr)  # noqa: T201
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
