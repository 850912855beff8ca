"""No module imports another one that leads back to it."""

import ast
from collections.abc import Iterator, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from tests.exports import ROOT

FOLDERS = ("client", "export", "server", "model_repository/decode/1/packages", "deploy/server")


def read_imports(folder: Path) -> dict[str, set[str]]:
    """The modules below `folder`, and which of them each one imports."""
    files = {name_module(path.relative_to(folder)): path for path in folder.rglob("*.py")}
    return {name: set(find_imports(path, name, files.keys())) - {name} for name, path in files.items()}


def name_module(path: Path) -> str:
    return ".".join(path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts)


def find_imports(path: Path, name: str, modules: Set[str]) -> Iterator[str]:
    """Also the imports in functions, and those for type checkers."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield from {submodule if submodule in modules else source} & modules


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_form_no_cycle(folder: str) -> None:
    imports = read_imports(ROOT / folder)
    assert sum(map(len, imports.values())) > 20
    TopologicalSorter(imports).prepare()


def test_a_cycle_through_a_function_is_found(tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "a": "from package import b",
        "b": "def f():\n    from .c import x",
        "c": "import package.a\nx = 1",
    }.items():
        (tmp_path / "package").mkdir(exist_ok=True)
        (tmp_path / "package" / f"{name}.py").write_text(text)
    with pytest.raises(CycleError) as caught:
        TopologicalSorter(read_imports(tmp_path)).prepare()
    assert {*caught.value.args[1]} == {"package.a", "package.b", "package.c"}
