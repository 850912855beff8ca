"""Visitors fit a model to videos of their own: a real browser, a real Triton, a repository that changes."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect

from clipserve.errors import InvalidRequest
from clipserve.showcase import open_showcase
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton

WAIT_MILLISECONDS = 120_000
RESTRICTED = "--grpc-restricted-protocol=model-repository:admin-key=secret"
CLASSES = {"sideways": ("moving left", "moving right"), "turning": ("rotating clockwise", "rotating counterclockwise")}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of four videos, and one file that is no video."""
    folder = tmp_path_factory.mktemp("uploads")
    with zipfile.ZipFile(folder / "videos.zip", "w") as archive:
        for label, motions in CLASSES.items():
            for motion in motions:
                for seed in range(2):
                    path = folder / f"{motion.replace(' ', '_')}-{seed}.mp4"
                    write_motion_video(path, motion, UNSEEN_SEED + seed, width=160, height=120, seconds=1.2)
                    archive.write(path, f"videos/{label}/{path.name}")
        archive.writestr("videos/turning/broken.mp4", b"no video at all" * 100)
    return folder / "videos.zip"


@pytest.fixture
def fit_page(browser: Browser, repositories: Callable[[FormatName], Path], tmp_path: Path) -> Iterator[Page]:
    """The tab, on a page whose server has a repository of its own, and loads models for whoever has the key."""
    repository = copy_model(repositories("onnx"), tmp_path / "repository")
    key = {"triton-grpc-protocol-admin-key": "secret"}
    with (
        KilledTriton(repository, models=["motion"], options=[RESTRICTED], **ANY_PORTS) as triton,
        open_showcase(triton.grpc_url, port=0, fit_repository=repository, headers=key) as showcase,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(showcase.address)
        page.wait_for_selector("#cs-server:has-text('1 model')")
        page.get_by_role("tab", name="Your own classes").click()
        yield page
        page.close()


def choose_archive(page: Page, archive: Path) -> None:
    """Gradio may lose a file that is chosen while it still draws the answer to a click; a visitor chooses it again."""
    for seconds in (30, 30, 60):
        page.set_input_files("#cs-archives input[type=file]", archive)
        with suppress(TimeoutError):
            page.wait_for_selector("#cs-archives :text('videos.zip')", timeout=seconds * 1000)
            return
    raise AssertionError("the page does not show the archive")


@pytest.mark.long
@pytest.mark.needs("browser")
def test_folders_of_videos_become_a_model_that_answers(fit_page: Page, archive: Path, tmp_path: Path) -> None:
    page = fit_page
    page.click("#cs-fit")
    expect(page.locator("#cs-failure")).to_contain_text("there are no videos yet", timeout=WAIT_MILLISECONDS)
    choose_archive(page, archive)
    page.fill("#cs-fit-name input, #cs-fit-name textarea", "motion")
    page.click("#cs-fit")
    expect(page.locator("#cs-failure")).to_contain_text("name of a published model", timeout=WAIT_MILLISECONDS)
    page.fill("#cs-fit-name input, #cs-fit-name textarea", "mine")
    page.click("#cs-fit")
    expect(page.locator("#cs-fitted")).to_contain_text("of 8 held-out videos are right", timeout=WAIT_MILLISECONDS)
    expect(page.locator("#cs-fitted")).to_contain_text("mine is served")
    report = page.frame_locator("#cs-fit-report")
    expect(report.locator("h1")).to_have_text("mine")
    expect(report.locator("body")).to_contain_text("turning/broken.mp4")
    assert "/tmp" not in report.locator("body").inner_text()
    page.get_by_role("tab", name="Classify").click()
    video = tmp_path / "new.mp4"
    write_motion_video(video, "rotating clockwise", UNSEEN_SEED + 50, width=160, height=120, seconds=1.2)
    page.set_input_files("#cs-file input[type=file]", video)
    expect(page.locator("#cs-top")).to_contain_text("turning", timeout=WAIT_MILLISECONDS)


@pytest.mark.needs("browser")
def test_without_the_option_there_is_no_such_tab(page: Page) -> None:
    assert page.get_by_role("tab", name="Your own classes").count() == 0
    assert page.locator("#cs-fit").count() == 0


def test_a_public_page_lets_nobody_fit(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match="visitors of a public page"),
        open_showcase(share=True, fit_repository=tmp_path),
    ):
        pass


def test_a_repository_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no folder"), open_showcase(fit_repository=tmp_path / "none"):
        pass
