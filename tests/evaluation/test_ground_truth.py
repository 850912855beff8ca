"""Labels match classes however people write them, and the message about a wrong one names similar classes."""

import pytest

from clipserve.evaluation.ground_truth import ClassNames, describe_unknown, split_labels

CLASSES = ClassNames(("archery", "eating ice cream", "passing American football (in game)", "tap dancing"))


@pytest.mark.parametrize("label", ["eating ice cream", "eating_ice_cream", "Eating_Ice cream", " eating  ice_cream "])
def test_underscores_match_spaces_and_case_does_not_count(label):
    assert CLASSES.find(label) == 1


def test_brackets_and_capitals_stay_part_of_a_label():
    assert CLASSES.find("passing_american_football_(in_game)") == 2


def test_a_class_with_underscores_of_its_own_is_found_by_spaces():
    assert ClassNames(("moving_left", "moving_right")).find("moving right") == 1


def test_an_accent_may_be_a_letter_of_its_own():
    """As in the names of folders that a Mac has packed."""
    assert ClassNames(("caf\u00e9", "bar")).find("Cafe\u0301") == 0
    assert ClassNames(("cafe\u0301", "bar")).find("caf\u00e9") == 0


def test_an_exact_name_goes_before_one_that_looks_like_it():
    assert ClassNames(("Still", "still")).find("still") == 1


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("archery", ("archery",)),
        ("archery|tap_dancing", ("archery", "tap_dancing")),
        (' ["archery", "tap dancing"] ', ("archery", "tap dancing")),
        ("[sic] archery", ("[sic] archery",)),
        (" archery | archery |", ("archery",)),
        ("", ()),
        ("[]", ()),
    ],
)
def test_one_video_may_have_several_labels(text, labels):
    assert split_labels(text) == labels


def test_an_unknown_label_is_no_class_and_never_the_same_as_another_unknown_one():
    unknown = []
    assert CLASSES.find_all(("archery", "fencing"), unknown) == (0, -1)
    assert CLASSES.find_all(("fencing", "curling"), unknown) == (-1, -2)
    assert unknown == ["fencing", "curling"]


def test_the_message_names_near_matches():
    text = describe_unknown(["archrey", "xyzzy"], CLASSES, "x3d_m")
    assert text == (
        "2 labels are not among the 4 classes of model 'x3d_m': 'archrey' (did you mean 'archery'?), 'xyzzy'"
    )


def test_the_message_stays_short():
    text = describe_unknown([f"no {number}" for number in range(200)], CLASSES, "x3d_m")
    assert text.endswith("and 190 more")
    assert len(text) < 400
