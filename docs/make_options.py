"""Writes the options of every command into command-line.md: `python docs/make_options.py`, `--check` compares."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from clipserve.command_line import build_app

PAGE = Path(__file__).with_name("command-line.md")
NUMBERS = {"integer": "N", "integer range": "N", "float": "NUMBER", "float range": "NUMBER"}
BEGIN, END = "<!-- options: made by python docs/make_options.py -->", "<!-- end of options -->"


def list_commands() -> dict[str, Any]:
    """The commands of the program by name, as click has them."""
    group: Any = typer.main.get_command(build_app())
    return dict(group.commands)


def list_options(command: Any) -> list[Any]:
    """Its options, without --help and the hidden ones."""
    return [
        param
        for param in command.params
        if param.param_type_name == "option" and not param.hidden and param.name != "help"
    ]


def write_tables() -> str:
    """One table a command, in Markdown."""
    lines = []
    for name, command in list_commands().items():
        first = inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")
        lines += ["", f"### clipserve {name}", "", first, "", "| option | default | meaning |", "| --- | --- | --- |"]
        lines += [" | ".join(["", *cells, ""]).strip() for cells in map(describe, list_options(command))]
    return "\n".join([*lines, ""])


def describe(option: Any) -> Iterator[str]:
    """The cells of its row."""
    names = [f"`{name}{describe_value(option)}`" for name in option.opts]
    names += [f"`{name}`" for name in option.secondary_opts]
    yield escape(", ".join(names))
    shown = option.show_default
    default = None if option.is_flag or shown is False else getattr(option.default, "value", option.default)
    yield shown if isinstance(shown, str) else "" if default is None else f"`{default}`"
    variable = f" Or `{option.envvar}`." if option.envvar else ""
    yield escape((option.help or "") + variable)


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
