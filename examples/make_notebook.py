"""Make codelab.ipynb from codelab.py, which is the only source of both.

python examples/make_notebook.py            write the notebook
python examples/make_notebook.py --check    exit with 1 if the notebook differs from the script

The script is in the percent format: `# %%` begins a cell of code, and `# %% [markdown]` a cell of text in comments. The
notebook leaves out cells with the tag "script", which parse the command line.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SCRIPT = Path(__file__).with_name("codelab.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")

_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


def make_notebook(script: str) -> str:
    """The notebook as text: the cells of a script, without outputs."""
    _, *parts = _CELL.split(script)
    cells = []
    for number, (head, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        name = f"cell-{number}"  # without a name nbformat makes a random one
        if '"script"' in head:
            continue
        if "[markdown]" in head:
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cells.append(new_markdown_cell(text, id=name))
        else:
            cells.append(new_code_cell(body.strip(), id=name))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(notebook)
    return f"{nbformat.writes(notebook)}\n"


def main() -> int:
    """Write or check the notebook. Return the exit status."""
    made = make_notebook(SCRIPT.read_text(encoding="utf-8"))
    if sys.argv[1:] != ["--check"]:
        NOTEBOOK.write_text(made, encoding="utf-8")
        return 0
    if NOTEBOOK.read_text(encoding="utf-8") == made:
        return 0
    sys.stderr.write(f"{NOTEBOOK.name} differs from {SCRIPT.name}: run python examples/make_notebook.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
