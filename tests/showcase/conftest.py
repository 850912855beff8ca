"""A real Triton with `motion`, a real browser, and the page between them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from clipserve.showcase import open_showcase
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from tests.browser import launch_browser
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton


@pytest.fixture(scope="session")
def restricted_url(repositories: Callable[[FormatName], Path]) -> Iterator[str]:
    """A Triton that lists its models only for requests with a key."""
    options = ["--grpc-restricted-protocol=model-repository:admin-key=secret"]
    with KilledTriton(repositories("onnx"), models=["motion"], options=options, **ANY_PORTS) as triton:
        yield triton.grpc_url


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good samples, of which browsers play only one, and a bad one."""
    folder = tmp_path_factory.mktemp("samples")
    write_motion_video(folder / "crossing.mp4", "crossing", UNSEEN_SEED, seconds=1.5)
    write_motion_video(folder / "moving_up.avi", "moving up", UNSEEN_SEED, seconds=1.5, codec="mpeg4")
    (folder / "damaged.mp4").write_bytes(b"no video at all" * 100)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(motion_url: str, sample_folder: Path) -> Iterator[str]:
    with open_showcase(motion_url, samples=sample_folder, port=0) as showcase:
        yield showcase.address


class ExternalRequests(list[str]):
    """Addresses outside this machine that a page requested."""

    def note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.append(url)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, newly opened. It must request nothing from outside this machine and raise no JavaScript error."""
    external, errors = ExternalRequests(), []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda request: external.note(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#cs-server:has-text('1 model')")
    yield page
    page.close()
    assert not external
    assert not errors
