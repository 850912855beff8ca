"""The page and the picture of timelines; the page in a real browser."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from clipserve import ScoredLabel, SegmentOptions, VideoFacts, Window
from clipserve.timeline.page import (
    MOST_EMBEDDED_BYTES,
    MOST_EMBEDDED_TOTAL,
    choose_source,
    draw_curve,
    write_page,
)
from clipserve.timeline.picture import write_picture
from clipserve.timeline.window_file import VideoTimeline
from clipserve_export.motion.videos import write_motion_video
from tests.timeline.made_windows import of

OPTIONS = SegmentOptions()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Eight seconds that Chromium plays."""
    path = tmp_path_factory.mktemp("video") / "a <b> & 'c'.webm"
    write_motion_video(path, "bouncing", 1_234_567, seconds=8, width=160, height=120, codec="libvpx-vp9")
    return path


@pytest.fixture
def timeline(video):
    return VideoTimeline(0, "match", str(video), of("AAABBBB"), VideoFacts(duration_seconds=8.0, windows_total=7))


@pytest.mark.needs("browser")
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_a_browser_shows_the_timeline_and_plays_where_it_is_clicked(timeline, open_page, tmp_path, scheme):
    path = tmp_path / "timeline.html"
    write_page(path, [timeline], SegmentOptions())
    page = open_page(path, color_scheme=scheme)
    assert page.inner_text("h1") == str(timeline.video)
    assert page.locator(".thumbnails img").count() == 16
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalHeight > 0)")
    names = page.locator(".strip .name").all_inner_texts()
    assert [name for name in names if name] == ["A", "B"]
    track = page.locator(".track[data-label='B']")
    box, part = track.bounding_box(), track.locator(".part").bounding_box()
    assert part["x"] - box["x"] == pytest.approx(box["width"] * 3.5 / 8, abs=3)
    assert part["width"] == pytest.approx(box["width"] * 4.5 / 8, abs=3)
    page.mouse.move(box["x"] + box["width"] * 5.5 / 8, box["y"] + 5)
    tip = page.inner_text(".tip")
    assert tip.startswith("0:00:05  (5.5 s)")
    assert "0.90  B" in tip
    assert page.evaluate("document.querySelector('video').readyState") is not None
    page.wait_for_function("document.querySelector('video').readyState >= 1")
    page.mouse.click(box["x"] + box["width"] * 5.5 / 8, box["y"] + 5)
    page.wait_for_function("document.querySelector('video').currentTime >= 5.4")
    assert page.evaluate("document.querySelector('video').currentTime") < 8
    page.screenshot(path=tmp_path / "page.png")


def test_a_small_video_is_part_of_the_page_and_a_large_one_is_played_from_its_place(tmp_path):
    small, large = tmp_path / "small.mp4", tmp_path / "sub" / "large é.mp4"
    small.write_bytes(b"12")
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(MOST_EMBEDDED_BYTES + 1)
    write_page(tmp_path / "page.html", [VideoTimeline(0, "", str(path), of("A")) for path in (small, large)], OPTIONS)
    sources = re.findall(r'<video src="([^"]*)"', (tmp_path / "page.html").read_text())
    assert sources == ["data:video/mp4;base64,MTI=", "sub/large%20%C3%A9.mp4"]
    assert choose_source(str(large), large, tmp_path / "elsewhere", embed=False) == large.as_uri()
    no_text = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    assert choose_source("", no_text, tmp_path, embed=False) == "caf%E9.mp4"
    assert choose_source("https://example.org/a.mp4", None, tmp_path, embed=True) == "https://example.org/a.mp4"
    assert choose_source("<bytes>", None, tmp_path, embed=True) == ""


def test_a_page_of_many_videos_stays_of_a_size_that_a_browser_opens(tmp_path):
    timelines = []
    for number in range(6):
        path = tmp_path / f"{number}.mp4"
        with path.open("wb") as file:
            file.truncate(MOST_EMBEDDED_BYTES)
        timelines.append(VideoTimeline(number, path.name, str(path), of("A")))
    write_page(tmp_path / "page.html", timelines, OPTIONS)
    assert (tmp_path / "page.html").stat().st_size < 1.4 * MOST_EMBEDDED_TOTAL
    assert 'src="5.mp4"' in (tmp_path / "page.html").read_text()


def test_the_curve_of_a_label_is_where_its_windows_are():
    """Half of the video has no windows: its timeline ended early, or `end` left it out."""
    windows = of("..AA")
    length = 2 * windows[-1].end_seconds
    points = [float(x) for x in re.findall(r"[ML]([0-9.]+) ", draw_curve(windows, "A", length))]
    assert points[0] == 0
    assert points[-1] == pytest.approx(500)
    assert points[1:-1] == pytest.approx([1000 * window.middle_seconds / length for window in windows], abs=0.1)


def test_names_and_labels_cannot_break_the_page(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    timeline = VideoTimeline(0, hostile, hostile, of("A"), error={"code": "failed", "message": hostile})
    object.__setattr__(timeline.windows[0].labels[0], "label", hostile)
    write_page(tmp_path / "page.html", [timeline], SegmentOptions())
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_a_picture_of_very_many_videos_shows_the_first_ones(tmp_path):
    timelines = [
        VideoTimeline(number, "", f"{number}.mp4", of("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2)) for number in range(60)
    ]
    write_picture(tmp_path / "timeline.png", timelines, OPTIONS)
    with Image.open(tmp_path / "timeline.png") as image:
        assert 10_000 < image.height < 20_000


def test_the_picture_is_a_png(timeline, tmp_path):
    empty = VideoTimeline(1, "empty", "empty.mp4", of("."))
    write_picture(tmp_path / "timeline.png", [timeline, empty], SegmentOptions())
    with Image.open(tmp_path / "timeline.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
        colours = image.convert("RGB").getcolors(1 << 24)
    assert any(colour == (0x1B, 0x7E, 0xA6) for _, colour in colours)


@pytest.mark.filterwarnings("error")
def test_a_label_of_hundreds_of_letters_leaves_room_for_the_bars(tmp_path):
    """matplotlib gives up its layout, with a warning, where a label is wider than the picture."""
    label = ScoredLabel("a person " * 40, 0, 0.9)
    windows = [Window(0, 0.0, 2.0, 0, 50, (label,))]
    write_picture(tmp_path / "timeline.png", [VideoTimeline(0, "a", "a.mp4", windows)], OPTIONS)
    with Image.open(tmp_path / "timeline.png") as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}
        assert colours[0x1B, 0x7E, 0xA6] > image.width * 0.5 * 20
