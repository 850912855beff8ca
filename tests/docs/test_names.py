"""Options, variables, parameters and metrics: what the pages name is in the code, and the other way round."""

import re
import runpy
import shlex
import tomllib
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

import clip_decode
import clipserve
from clip_decode.limits import Limits
from clipserve import errors
from clipserve_server.triton import Triton
from decode_pool.settings import PoolSettings
from tests.docs.pages import BLOCKS, PAGES, ROOT, TEXTS, Block
from timeline_model.config import TimelineSettings

VARIABLE = re.compile(r"\bCLIPSERVE_[A-Z][A-Z_]*[A-Z]\b")
SOURCES = ("", ".py", ".sh", ".yml", ".cfg", ".toml", ".pbtxt", ".ipynb", ".html", ".example")
DECODER_PAGE = ROOT / "model_repository" / "decode" / "1" / "packages" / "clip_decode" / "README.md"
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
OPTIONS = runpy.run_path(str(ROOT / "docs" / "make_options.py"))


def read(name: str) -> str:
    """A page of docs."""
    return (ROOT / "docs" / name).read_text()


def test_the_page_has_every_option_of_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_options.py", "--check"])
    assert OPTIONS["main"]() == 0, "run: python docs/make_options.py"


def commands_with_options() -> list[tuple[Block, list[str]]]:
    """The words of each `clipserve` command in the pages."""
    lines = [(block, line) for block in BLOCKS if block.language == "console" for line in block.commands]
    split = [(block, shlex.split(part)) for block, line in lines for part in re.split(r"[|;<>]|&&", line)]
    return [(block, words) for block, words in split if words[:1] == ["clipserve"]]


@pytest.mark.parametrize(("block", "words"), commands_with_options(), ids=str)
def test_commands_of_the_pages_exist_with_their_options(block: Block, words: list[str]) -> None:
    if words[1] == "--version":
        return
    command = OPTIONS["list_commands"]()[words[1]]
    known = {name for option in OPTIONS["list_options"](command) for name in (*option.opts, *option.secondary_opts)}
    given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert given <= known, block


def test_the_table_of_extras_has_every_extra_for_users() -> None:
    developers = {"bench", "demo", "docs", "test"}  # make installs them
    extras = {name for name in EXTRAS if not name.endswith("-core")} - developers
    table = read("first-steps.md").partition("| extra | adds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)) == extras


@pytest.mark.parametrize("page", [*TEXTS, DECODER_PAGE], ids=lambda page: page.name)
def test_pages_install_extras_from_the_clone(page: Path) -> None:
    """clipserve is not on PyPI, so a fresh machine cannot install `clipserve[cli]` by name."""
    text = page.read_text()
    assert "clipserve[" not in text
    named = {name for group in re.findall(r"'\.\[([a-z,-]+)\]'", text) for name in group.split(",")}
    assert named <= EXTRAS


def variables_in_code() -> set[str]:
    """In every file that is no prose; without git, which a fresh machine may lack."""
    folders = ("client", "export", "server", "model_repository", "deploy", "benchmarks", "tests", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [ROOT / "Makefile", ROOT / ".env.example", *ROOT.glob("docker-compose*.yml")]
    wanted = [path for path in files if path.is_file() and path.suffix in SOURCES and not is_cached(path)]
    return {name for path in wanted for name in VARIABLE.findall(path.read_text())}


def is_cached(path: Path) -> bool:
    """Whether it is in a hidden folder, such as .ruff_cache."""
    return any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])


def test_settings_lists_every_variable() -> None:
    assert set(VARIABLE.findall(read("settings.md"))) == variables_in_code()


def test_no_page_names_another_variable() -> None:
    named = {name for page in PAGES for name in VARIABLE.findall(page.read_text())}
    assert named <= variables_in_code()


def test_settings_lists_every_parameter_of_the_decode_step() -> None:
    table = read("settings.md").split("## Parameters of the decode step")[1].split("\n## ")[0]
    listed = {name for name in re.findall(r"^\| `(\w+)", table, re.MULTILINE) if not name.isupper()}
    prefixes = {name for name in listed if name.startswith(("MAX_", "QUEUE_"))}
    assert listed - prefixes == {*PoolSettings.names(), *vars(Limits())}


def test_settings_lists_every_parameter_of_timelines() -> None:
    table = read("settings.md").split("## Parameters of timelines")[1].split("\n## ")[0]
    listed = {name for name in re.findall(r"^\| `(\w+)", table, re.MULTILINE) if not name.isupper()}
    assert listed - {"MODEL_"} == {*vars(TimelineSettings())}


def test_monitoring_lists_every_metric_of_the_server(motion_server: Triton) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(motion_server.metrics_url) as page:
        served = set(re.findall(r"^# TYPE (clipserve_\w+)", page.read().decode(), re.MULTILINE))
    metric = re.compile(r"\bclipserve_(?:decode|timeline)_\w+")
    named = {name for page in PAGES for name in metric.findall(page.read_text())}
    assert named - {"clipserve_decode_seconds"} == served
    assert "`clipserve_model_ready`" in read("monitoring.md")


def test_monitoring_lists_every_alert() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "deploy" / "monitoring" / "alerts.yml").read_text())
    assert [name for name in alerts if f"`{name}`" not in read("monitoring.md")] == []


@pytest.mark.parametrize("package", [clipserve, clip_decode], ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: ModuleType) -> None:
    page = read(f"reference/{package.__name__}.md")
    for name in set(package.__all__) - {"__version__"}:
        value = getattr(package, name)
        # Errors are in the table of Troubleshooting.
        if not (isinstance(value, type) and issubclass(value, Exception)):
            assert f"::: {package.__name__}.{name}\n" in page or f"`{name}`" in page, name


def test_troubleshooting_lists_every_error_code() -> None:
    leaves = [kind for kind in vars(errors).values() if isinstance(kind, type) and not kind.__subclasses__()]
    codes = {(kind.code, kind.__name__) for kind in leaves if issubclass(kind, errors.ClipserveError)}
    listed = set(re.findall(r"^\| `([\w-]+)` \| `(\w+)` \|", read("troubleshooting.md"), re.MULTILINE))
    assert listed == codes


def test_the_models_of_the_pages_are_those_of_the_specs() -> None:
    from clipserve_export.specs import SPECS

    listed = re.findall(r"^\| `(\w+)` \| \d+ x \d+ \|", read("models.md"), re.MULTILINE)
    assert listed == list(SPECS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_prose_exist(page: Path) -> None:
    """Words such as `--top-k` in a page that are no option of any command, of Docker, or of tritonserver."""
    known = {
        name
        for command in OPTIONS["list_commands"]().values()
        for option in OPTIONS["list_options"](command)
        for name in (*option.opts, *option.secondary_opts)
    }
    others = {
        *("--help", "--version", "--profile", "--shm-size", "--strict", "--check", "--data", "--other"),
        *("--client", "--days", "--model-control-mode", "--load-model", "--exit-on-error"),
        *("--disable-auto-complete-config", "--cache-config", "--binary-search", "--profile-export-file"),
        *("--model-repository", "--create-empty-src-dirs"),
        *("--set", "--values"),
    }
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(--[a-z][a-z-]+)", prose)) <= known | others
