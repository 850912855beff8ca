"""No module imports another one that leads back to it, and no test imports another test."""

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.exports import ROOT

FOLDERS = [
    ROOT / name for name in ("client", "export", "server", "model_repository/decode/1/packages", "deploy/server")
]


def read_imports(*folders: Path) -> dict[str, set[str]]:
    """The modules below these folders, and which of them each one imports."""
    files = {name_module(path.relative_to(folder)): path for folder in folders for path in folder.rglob("*.py")}
    return {name: set(find_imports(path, name, files.keys())) - {name} for name, path in files.items()}


def name_module(path: Path) -> str:
    return ".".join(path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts)


def find_imports(path: Path, name: str, modules: Set[str]) -> Iterator[str]:
    """Also the imports in functions, and those for type checkers."""
    for module in find_names(path, name, modules):
        yield module
        # Python first runs the packages that a module is in; those of the importing module have begun before.
        around = (package for package in modules if module.startswith(f"{package}."))
        yield from (package for package in around if not name.startswith(f"{package}."))


def find_names(path: Path, name: str, modules: Set[str]) -> Iterator[str]:
    """The modules that import statements name."""
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


def test_no_test_imports_another_test() -> None:
    """What several tests use is a fixture, or has a file of its own."""
    names = {name_module(path.relative_to(ROOT)): path for path in (ROOT / "tests").rglob("*.py")}
    for name, path in names.items():
        named = find_names(path, name, names.keys())
        assert [module for module in named if module.rpartition(".")[2].startswith("test_")] == [], path


def test_the_container_needs_no_package() -> None:
    """Its image has Python's standard library only."""
    folders = [ROOT / "deploy" / "server" / "clipserve_container", ROOT / "server" / "clipserve_host"]
    known = {*sys.stdlib_module_names, *(folder.name for folder in folders)}
    for path in (path for folder in folders for path in folder.glob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        assert {name.partition(".")[0] for name in names} <= known, path


def test_imports_form_no_cycle() -> None:
    imports = read_imports(*FOLDERS)
    assert sum(map(len, imports.values())) > 1000
    TopologicalSorter(imports).prepare()


@pytest.mark.parametrize(
    ("texts", "cycle"),
    [
        pytest.param(
            {
                "package/__init__": "",
                "package/a": "from package import b",
                "package/b": "def f():\n    from .c import x",
                "package/c": "import package.a\nx = 1",
            },
            {"package.a", "package.b", "package.c"},
            id="through a function",
        ),
        pytest.param(
            {
                "one/__init__": "from one.a import x",
                "one/a": "from two.b import y\nx = y",
                "one/c": "",
                "two/__init__": "",
                "two/b": "import one.c\ny = 1",
            },
            {"one", "one.a", "two.b"},
            id="through a package",
        ),
    ],
)
def test_a_cycle_is_found(texts: Mapping[str, str], cycle: Set[str], tmp_path: Path) -> None:
    for name, text in texts.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with pytest.raises(CycleError) as caught:
        TopologicalSorter(read_imports(tmp_path)).prepare()
    assert {*caught.value.args[1]} == cycle
