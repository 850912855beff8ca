"""The page in a real browser, with a real Triton."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from clipserve import VideoClassifier
from clipserve.showcase import open_showcase
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED
from tests.watching import wait_for

pytestmark = pytest.mark.needs("browser")

FRAMES = 8  # of a clip of `motion`
WAIT_MILLISECONDS = 60_000


def upload(page: Page, file: Path) -> None:
    page.set_input_files("#cs-file input[type=file]", file)


def read_times(page: Page) -> list[str]:
    page.wait_for_selector("#cs-filmstrip", timeout=WAIT_MILLISECONDS)
    return page.locator("#cs-filmstrip .cs-frames time").all_inner_texts()


def type_and_classify(page: Page, typed: dict[str, str], *, place: str, containing: str) -> None:
    """Type into fields and classify, until the answer at `place` is as expected.

    A page that opens its settings may lose what is typed at that moment. A visitor types it again.
    """

    def has_answer() -> bool:
        for field, text in typed.items():
            page.fill(f"#cs-{field} input, #cs-{field} textarea", text)
        page.click("#cs-classify")
        with suppress(AssertionError):
            expect(page.locator(place)).to_contain_text(containing, timeout=WAIT_MILLISECONDS / 10)
            return True
        return False

    assert wait_for(has_answer)


def read_failure(page: Page, containing: str) -> str:
    failure = page.locator("#cs-failure")
    expect(failure).to_contain_text(containing, timeout=WAIT_MILLISECONDS)
    text = page.locator("body").inner_text()
    assert "Traceback" not in text
    assert "/tmp" not in text
    return failure.inner_text()


def test_an_uploaded_video_is_named_and_its_frames_are_shown(page: Page, motion_url: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.mp4"
    write_motion_video(file, "moving left", UNSEEN_SEED, seconds=1.5)
    upload(page, file)
    expect(page.locator("#cs-top")).to_contain_text("moving left", timeout=WAIT_MILLISECONDS)
    assert page.locator(".cs-bars li").count() == 5
    shown = read_times(page)
    with VideoClassifier("motion", url=motion_url) as classifier:
        report = classifier.classify(file, report=True).report
    assert report is not None
    (view,) = next(iter(report["timestamps_seconds"].values()))
    assert shown == [f"{seconds:.2f} s" for seconds in view]
    assert page.locator("#cs-filmstrip img").count() == FRAMES
    assert page.locator("#cs-filmstrip img").first.evaluate("image => image.naturalWidth") == 160  # 320 x 240, to 120
    assert re.search(r"total\s+[\d.]+ ms\s+decoding\s+[\d.]+ ms", page.locator("#cs-times").inner_text())
    assert "h264 in mp4" in page.locator("#cs-facts").inner_text()
    assert page.locator("#cs-preview-place video").evaluate("video => video.videoWidth") == 320


def test_a_file_that_is_cut_off_is_marked_beside_its_label(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "cut.ts"
    write_motion_video(file, "moving left", UNSEEN_SEED, seconds=3)
    content = file.read_bytes()
    upload(page, file)
    expect(page.locator("#cs-top")).to_be_visible(timeout=WAIT_MILLISECONDS)
    assert page.locator("#cs-answer .cs-warning").count() == 0
    file.write_bytes(content[: len(content) * 4 // 5])
    page.reload()
    upload(page, file)
    expect(page.locator("#cs-answer .cs-warning")).to_contain_text("damaged", timeout=WAIT_MILLISECONDS)


def test_a_sample_is_classified_when_it_is_picked(page: Page) -> None:
    page.locator("#cs-samples button:has-text('crossing')").click()
    expect(page.locator("#cs-top")).to_contain_text("crossing", timeout=WAIT_MILLISECONDS)
    assert len(read_times(page)) == FRAMES


def test_a_video_that_the_browser_cannot_play_is_classified_all_the_same(page: Page) -> None:
    page.locator("#cs-samples button:has-text('moving up')").click()
    expect(page.locator("#cs-top")).to_contain_text("moving up", timeout=WAIT_MILLISECONDS)
    expect(page.locator("#cs-preview-place figcaption")).to_be_visible()
    read_times(page)
    assert page.locator("#cs-filmstrip img").count() == FRAMES
    assert page.locator(".toast-body").count() == 0


def test_a_file_that_is_no_video_gets_a_sentence(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "notes.mp4"
    file.write_text("only words in here\n" * 20)
    upload(page, file)
    assert "This video cannot be classified." in read_failure(page, "'notes.mp4'")
    assert page.locator("#cs-failure").get_attribute("data-code") == "not-a-video"
    page.locator("#cs-samples button:has-text('crossing')").click()
    expect(page.locator("#cs-top")).to_contain_text("crossing", timeout=WAIT_MILLISECONDS)


def test_a_damaged_sample_gets_a_sentence(page: Page) -> None:
    page.locator("#cs-samples button:has-text('damaged')").click()
    read_failure(page, "'damaged.mp4'")


def test_without_a_video_the_button_says_what_is_missing(page: Page) -> None:
    page.click("#cs-classify")
    read_failure(page, "upload one, or pick a sample")


def test_clips_are_shown_one_by_one(page: Page) -> None:
    page.locator("#cs-samples button:has-text('crossing')").click()
    read_times(page)
    page.click("#cs-sampling button")
    page.locator("#cs-sampling label:has-text('clips')").click()
    page.locator("#cs-views input[type=number]").fill("3")
    page.locator("#cs-views input[type=number]").press("Tab")
    page.click("#cs-classify")
    expect(page.locator("#cs-filmstrip")).to_contain_text("3 clips of 8 frames", timeout=WAIT_MILLISECONDS)
    assert page.locator("#cs-filmstrip h4").count() == 3
    assert page.locator("#cs-filmstrip img").count() == 3 * FRAMES


def test_shortcuts_are_told(page: Page) -> None:
    page.locator("#cs-samples button:has-text('crossing')").click()
    read_times(page)
    page.click("#cs-sampling button")
    page.locator("#cs-sampling label:has-text('key frames')").click()
    page.locator("#cs-sampling label:has-text('draft')").click()
    page.click("#cs-classify")
    # The sample has fewer key frames than the model takes.
    told = "8 frames, evenly spread over the whole video, each moved to one that takes less decoding."
    expect(page.locator("#cs-filmstrip")).to_contain_text(told, timeout=WAIT_MILLISECONDS)


def test_a_span_narrows_what_is_looked_at(page: Page) -> None:
    page.locator("#cs-samples button:has-text('crossing')").click()
    read_times(page)
    page.click("#cs-sampling button")
    typed = {"start": "0.5", "end": "1"}
    type_and_classify(page, typed, place="#cs-filmstrip", containing="between 0.5 s and 1 s")
    seconds = [float(text.removesuffix(" s")) for text in read_times(page)]
    assert min(seconds) == 0.5
    assert max(seconds) < 1


def test_what_a_visitor_types_is_shown_and_never_run(page: Page) -> None:
    page.locator("#cs-samples button:has-text('crossing')").click()
    read_times(page)
    page.click("#cs-sampling button")
    typed = "${6*7}{{6*7}}<img id=planted src=x onerror=document.title='run'>"
    type_and_classify(page, {"start": typed}, place="#cs-failure", containing="is not a number of seconds")
    assert "${6*7}{{6*7}}<img id=planted" in read_failure(page, "is not a number of seconds")
    assert page.locator("#planted").count() == 0
    assert page.title() == "clipserve"


@pytest.mark.long
def test_a_server_that_goes_away_gets_a_sentence_and_one_that_comes_back_an_answer(
    browser: Browser, onnx_repository: Path, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy that reaches nothing: requests to the server and to the page on this machine must not go through it.
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    triton = Triton(onnx_repository, models=["motion"], **ANY_PORTS)
    with triton, open_showcase(triton.grpc_url, samples=sample_folder, port=0) as showcase:
        page = browser.new_page()
        page.goto(showcase.address)
        page.wait_for_selector("#cs-server:has-text('1 model')")
        triton.stop()
        page.locator("#cs-samples button:has-text('crossing')").click()
        assert "The server did not answer." in read_failure(page, "no server answers at")
        page.reload()
        page.wait_for_selector("#cs-server:has-text('no answer from')")
        expect(page.get_by_role("alert")).to_contain_text("clipserve serve")
        triton.start()  # its ports are still the same
        page.reload()
        page.wait_for_selector("#cs-server:has-text('1 model')", timeout=WAIT_MILLISECONDS)
        page.locator("#cs-samples button:has-text('crossing')").click()
        expect(page.locator("#cs-top")).to_contain_text("crossing", timeout=WAIT_MILLISECONDS)
        page.close()


def test_a_server_that_does_not_list_its_models_answers_for_the_one_that_is_named(
    browser: Browser, restricted_url: str, sample_folder: Path
) -> None:
    with open_showcase(restricted_url, model="motion", samples=sample_folder, port=0) as showcase:
        page = browser.new_page()
        page.goto(showcase.address)
        page.wait_for_selector("#cs-server:has-text('1 model')")
        page.locator("#cs-samples button:has-text('crossing')").click()
        expect(page.locator("#cs-top")).to_contain_text("crossing", timeout=WAIT_MILLISECONDS)
        page.close()


def test_a_long_video_gets_its_timeline_in_a_tab_of_its_own(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "long <b>.webm"
    write_motion_video(file, "bouncing", UNSEEN_SEED, seconds=6, width=160, height=120, codec="libvpx-vp9")
    page.get_by_role("tab", name="Timeline").click()
    page.set_input_files("#cs-long-file input[type=file]", file)
    expect(page.locator("#cs-long-file")).to_contain_text("long")
    page.locator("#cs-follow").click()
    inside = page.frame_locator("#cs-timeline-page")
    expect(inside.locator(".facts")).to_contain_text("0:00:06, 6 windows", timeout=WAIT_MILLISECONDS)
    assert inside.locator(".thumbnails img").count() == 16
    inside.locator(".track.thumbnails").click()  # in the middle
    video = inside.locator("video")
    expect(video).to_be_visible()
    page.wait_for_function(
        "document.querySelector('#cs-timeline-page').contentDocument.querySelector('video').currentTime >= 2.5"
    )


def test_what_is_wrong_with_a_timeline_is_said_in_its_tab(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Timeline").click()
    page.locator("#cs-follow").click()
    failure = page.locator("#cs-timeline-place")
    expect(failure).to_contain_text("there is no video yet", timeout=WAIT_MILLISECONDS)
    page.set_input_files("#cs-long-file input[type=file]", _damaged(tmp_path))
    expect(page.locator("#cs-long-file")).to_contain_text("damaged")
    page.locator("#cs-follow").click()
    expect(failure).to_contain_text("This video cannot be classified.", timeout=WAIT_MILLISECONDS)


def _damaged(folder: Path) -> Path:
    path = folder / "damaged.mp4"
    path.write_bytes(b"no video at all" * 100)
    return path
