"""Report pages load nothing else, and look right in a real browser."""

import re

import numpy as np
import pytest

from clipserve.evaluation import Comparison
from clipserve.evaluation.metrics import count_confusion
from clipserve.evaluation.plots import draw_confusion
from tests.evaluation.made_evaluation import make_evaluation


@pytest.fixture(scope="module")
def reports():
    few = make_evaluation(failures=3, truncated=2)
    return {
        "few classes": few,
        "many classes": make_evaluation(classes=400, videos=500, skill=6.0),
        "one video": make_evaluation(videos=1),
        "comparison": Comparison({"few": few, "weak <b>": make_evaluation(name="weak", failures=3, skill=1.0)}),
    }


@pytest.mark.parametrize("name", ["few classes", "many classes", "one video", "comparison"])
def test_a_page_names_no_address(reports, name):
    page = re.sub(r"data:image/png;base64,[^\"]*", "data:", reports[name].to_html())
    assert not re.search(r"https?:|//[a-z]|@import|<script|<!ENTITY", page, re.IGNORECASE)
    for address in re.findall(r"""(?:src|href)=["']?([^"' >]*)""", page):
        assert address.startswith(("#", "data:")), address


def test_the_old_name_of_the_metrics_still_works_and_warns(reports):
    with pytest.warns(DeprecationWarning, match="use Evaluation.metrics"):
        assert reports["few classes"].figures is reports["few classes"].metrics
    comparison = reports["comparison"]
    with pytest.warns(DeprecationWarning, match=r"use Evaluation\.metrics of each"):
        assert comparison.metrics["top_1_accuracy"] == [
            one.metrics["top_1_accuracy"] for one in comparison.evaluations.values()
        ]


def test_ids_are_unique_on_a_page_with_several_plots(reports):
    page = reports["comparison"].to_html()
    ids = re.findall(r'<[a-zA-Z]+[^>]* id="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids))


def test_what_comes_from_outside_stays_text(reports):
    assert "<b>no</b>" not in reports["few classes"].to_html()
    assert "&lt;b&gt;no&lt;/b&gt; video opens" in reports["few classes"].to_html()
    assert "weak <b>" not in reports["comparison"].to_html()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", ["costs $5, sells $6", r"$\frac$", r"\$", "走る"])
def test_a_label_is_drawn_as_it_is_spelt(label):
    drawn = draw_confusion(count_confusion(np.array([0, 1]), np.array([0, 1])), (label, "other"), salt="")
    assert drawn.count(f">{label}<") == 2  # of the row, and of the column


@pytest.mark.filterwarnings("error")
def test_whole_sentences_as_labels_leave_room_for_the_plot():
    drawn = draw_confusion(count_confusion(np.array([0, 1]), np.array([0, 1])), ("yes " * 75, "no " * 100), salt="")
    assert "yes yes yes yes yes yes yes yes yes y...<" in drawn


def test_the_page_has_all_that_a_reader_asks_for(reports):
    page = reports["few classes"].to_html()
    for text in (
        "top-1 accuracy",
        "expected calibration error",
        "class 003",
        "3 of 63 videos",
        "localhost:8001",
        "2 of them are damaged",
    ):
        assert text in page
    assert page.count("<svg") == 2


def test_a_page_of_four_hundred_classes_stays_small(reports):
    assert len(reports["many classes"].to_html()) < 500_000


@pytest.mark.needs("browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_them_without_errors_or_requests(reports, open_page, tmp_path, scheme):
    backgrounds = set()
    for name, report in reports.items():
        path = tmp_path / f"{name}.html"
        report.to_html(path)
        page = open_page(path, color_scheme=scheme)
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide), f"{name} scrolls sideways"
        style = "(element) => getComputedStyle(element)"
        ink = page.locator("body").evaluate(f"{style}.color")
        # Plots take the page's ink, so they can be read on either background.
        assert page.locator("svg text").first.evaluate(f"{style}.fill") == ink
        backgrounds.add(page.locator("body").evaluate(f"{style}.backgroundColor"))
    (background,) = backgrounds
    assert (background == "rgb(20, 24, 26)") == (scheme == "dark")


@pytest.mark.needs("browser")
def test_a_telephone_shows_the_page_without_scrolling_sideways(reports, open_page, tmp_path):
    path = tmp_path / "report.html"
    reports["few classes"].to_html(path)
    assert open_page(path, width=390, height=800).evaluate("document.documentElement.scrollWidth") == 390
