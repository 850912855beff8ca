"""Writes the table of values into the chart's README.md: `python deploy/helm/make_readme.py`, `--check` compares."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).with_name("clipserve")
VALUES, PAGE = CHART / "values.yaml", CHART / "README.md"
BEGIN, END = "<!-- values: made by python deploy/helm/make_readme.py -->", "<!-- end of values -->"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value> .*)?$")


def read_meanings() -> Iterator[tuple[str, str]]:
    """Each value's path, such as drain.seconds, and the comment above it. A heading has the path ""."""
    path: list[str] = []
    comment = ""
    for line in VALUES.read_text().splitlines():
        words = line.strip()
        if words.startswith("# ---"):
            yield "", words.strip("#- ")
        elif words.startswith("#"):
            comment = f"{comment} {words.lstrip('# ')}".strip()
        elif match := KEY.match(line):
            path = [*path[: len(match["indent"]) // 2], match["key"]]
            if match["value"]:
                yield ".".join(path), comment
            comment = ""
        elif not words:
            comment = ""


def find_value(values: Any, path: str) -> object:
    """The default of a path."""
    for key in path.split("."):
        values = values[key]
    return values


def write_tables() -> str:
    """One table a section, in Markdown."""
    values, lines = yaml.safe_load(VALUES.read_text()), []
    for path, meaning in read_meanings():
        if not path:
            lines += ["", f"### {meaning}", "", "| value | default | meaning |", "| --- | --- | --- |"]
        else:
            default = find_value(values, path)
            shown = default if isinstance(default, str) and default else json.dumps(default)
            cells = (f"`{path}`", f"`{shown}`", meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the page, or with --check compare it; 1 where it differs."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    made = f"{before}{BEGIN}\n{write_tables()}\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv[1:]:
        if made != text:
            print(f"{PAGE} does not have the values of today: python deploy/helm/make_readme.py", file=sys.stderr)  # noqa: T201
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
