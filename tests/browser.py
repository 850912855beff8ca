"""A Chromium, and pages of files in it: a plugin of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def launch_browser() -> Iterator[Browser]:
    """Start it; ends with the block."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page() -> Iterator[Callable[..., Page]]:
    """Open a file as a page, which must request nothing from elsewhere and write no error."""
    errors: list[str] = []
    requests: list[str] = []

    def open_file(path: Path, width: int = 1200, height: int = 900, **options: Any) -> Page:
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    with launch_browser() as browser:
        yield open_file
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
