"""Links and paths in the texts lead somewhere, and the README stays short."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, TEXTS

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FOLDERS = (
    "client|export|server|model_repository|deploy|benchmarks|tests|docs|examples"
    "|clip_decode|decode_pool|decode_model|timeline_model"
)
# Paths begin in one of these.
STARTS = (ROOT, ROOT / "model_repository" / "decode" / "1" / "packages")
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
# What is made, and not committed.
MADE = ("deploy/secrets/",)


def anchors_of(page: Path) -> set[str]:
    """Of its headings, as GitHub and MkDocs make them."""
    headings = HEADING.findall(FENCES.sub("", page.read_text()))
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for target, anchor in LINK.findall(FENCES.sub("", page.read_text())):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors_of(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    paths = [path for path in PATH.findall(page.read_text()) if not path.startswith(MADE)]
    assert [path for path in paths if not any((start / path).exists() for start in STARTS)] == []


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
