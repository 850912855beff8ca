"""Windows joined into segments: known answers."""

import itertools
import random

import pytest

from clipserve import InvalidRequest, Segment, segments
from tests.timeline.made_windows import NAMES, make, of


def spans(found: list[Segment]) -> list[tuple[str, float, float]]:
    return [(segment.label, segment.start_seconds, segment.end_seconds) for segment in found]


def test_each_window_speaks_for_the_time_around_its_middle():
    # Middles at 1, 2, ... 6 s; the first reaches back to 0, the last on to 7 s.
    assert spans(segments(of("AAABBB"))) == [("A", 0, 3.5), ("B", 3.5, 7)]


def test_windows_that_do_not_overlap_meet_at_their_ends():
    assert spans(segments(of("AABB", step=2))) == [("A", 0, 4), ("B", 4, 8)]


def test_windows_with_room_between_them_meet_half_way():
    assert spans(segments(of("AB", step=10))) == [("A", 0, 6), ("B", 6, 12)]


def test_a_video_of_one_window_is_one_segment():
    assert segments(of("A")) == [Segment("A", 0, 0.0, 2.0, 0, 20, 0.9, 1)]
    assert segments([]) == []


def test_frames_follow_from_the_frames_of_the_windows():
    first, second = segments(of("AAABBB"))
    assert (first.start_frame, first.end_frame, second.start_frame, second.end_frame) == (0, 35, 35, 70)


def test_the_score_is_the_mean_over_the_windows():
    (found,) = segments(make((0.8, 0.1), (0.6, 0.1), (0.7, 0.1)))
    assert found.score == pytest.approx(0.7)
    assert found.windows == 3


def test_hysteresis_a_label_begins_at_enter_and_goes_on_down_to_leave():
    windows = make((0.4,), (0.6,), (0.35,), (0.3,), (0.29,), (0.4,))
    assert spans(segments(windows, enter=0.5, leave=0.3)) == [("A", 1.5, 4.5)]
    assert spans(segments(windows, enter=0.5)) == [("A", 1.5, 4.5)], "leave is 0.6 x enter"
    assert spans(segments(windows, enter=0.5, leave=0.5)) == [("A", 1.5, 2.5)]
    assert segments(windows, enter=0.7) == []


def test_one_at_a_time_the_present_label_goes_on_unless_another_has_enter_and_more():
    windows = make((0.6, 0.1), (0.35, 0.45), (0.4, 0.6), (0.3, 0.3))
    assert spans(segments(windows, enter=0.5, leave=0.3)) == [("A", 0, 2.5), ("B", 2.5, 5)]
    tied = make((0.6, 0.1), (0.5, 0.5))
    assert spans(segments(tied, enter=0.5)) == [("A", 0, 3)], "at the same score the present one stays"


def test_overlapping_labels_are_found_each_on_its_own():
    windows = make((0.5, 0.1), (0.5, 0.5), (0.1, 0.5), (0.5, 0.5))
    found = segments(windows, enter=0.4, overlap=True)
    assert spans(found) == [("A", 0, 2.5), ("B", 1.5, 5), ("A", 3.5, 5)]
    assert spans(segments(windows, enter=0.4, overlap=True, max_gap=1)) == [("A", 0, 5), ("B", 1.5, 5)]


def test_a_gap_is_bridged_if_it_is_short_enough():
    windows = of("AA.AA")
    assert spans(segments(windows)) == [("A", 0, 2.5), ("A", 3.5, 6)]
    assert spans(segments(windows, max_gap=1)) == [("A", 0, 6)]
    assert spans(segments(windows, max_gap=0.9)) == [("A", 0, 2.5), ("A", 3.5, 6)]
    assert segments(windows, max_gap=1)[0].windows == 4


def test_one_at_a_time_no_gap_is_bridged_over_another_label():
    assert spans(segments(of("AABAA"), max_gap=1)) == [("A", 0, 2.5), ("B", 2.5, 3.5), ("A", 3.5, 6)]


def test_short_segments_are_left_out_and_what_is_around_them_is_joined_then():
    windows = of("AABAA")
    assert spans(segments(windows, min_length=1.5)) == [("A", 0, 2.5), ("A", 3.5, 6)]
    assert spans(segments(windows, min_length=1.5, max_gap=1)) == [("A", 0, 6)]
    # Bridged before it is measured: two short ones make a long one.
    assert spans(segments(of("BA.AB"), min_length=2.5, max_gap=1)) == [("A", 1.5, 4.5)]


def test_the_order_is_by_start_and_then_by_class():
    windows = make((0.4, 0.5, 0.45), (0.4, 0.5, 0.45))
    assert [found.label for found in segments(windows, enter=0.3, overlap=True)] == ["A", "B", "C"]


def test_the_same_windows_give_the_same_segments():
    source = random.Random(1)
    windows = make(*[tuple(source.random() for _ in NAMES) for _ in range(200)])
    options = {"enter": 0.6, "leave": 0.4, "min_length": 1.5, "max_gap": 1}
    for overlap in (False, True):
        found = segments(iter(windows), overlap=overlap, **options)
        assert found == segments(windows, overlap=overlap, **options)
        assert all(part.length_seconds >= 1.5 for part in found)
        starts = [part.start_seconds for part in found]
        assert starts == sorted(starts)
        if not overlap:
            assert all(one.end_seconds <= two.start_seconds for one, two in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enter": 0}, "enter must be more than 0 and at most 1"),
        ({"enter": 0.3, "leave": 0.4}, "leave must be at most enter"),
        ({"min_length": -1}, "min_length must be a number of seconds"),
        ({"gap": 1}, "unknown option of segments: gap"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        segments(of("A"), **options)


def test_windows_that_are_missing_are_noticed():
    windows = of("AAA")
    with pytest.raises(InvalidRequest, match="window 1 is next, got window 2"):
        segments([windows[0], windows[2]])
