"""What part of a video to look at: refused before it is sent, sent as the decode step reads it, done by that step."""

import numpy as np
import pandas
import pytest

from clipserve import DownloadLimits, InvalidRequest, VideoClassifier
from tests.decode.synthesis import Clip

VIDEO = b"video"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampling": "random"}, "'uniform', 'clip' or 'keyframes', got 'random'"),
        ({"quality": "best"}, "'fast', 'reference' or 'draft', got 'best'"),
        ({"views": 0}, "views .*1 to 30, got 0"),
        ({"views": 31, "sampling": "clip"}, "1 to 30, got 31"),
        ({"views": 2.0, "sampling": "clip"}, "got 2.0"),
        ({"views": True}, "got True"),
        ({"views": 3}, "add sampling='clip'"),
        ({"views": 2, "sampling": "keyframes"}, "'keyframes' has one view, got views=2: add sampling='clip'"),
        ({"crops": 2}, "crops must be 1 or 3, got 2"),
        ({"views": 11, "crops": 3, "sampling": "clip"}, "at most 30, got 11 x 3"),
        ({"start": -1}, "start .*got -1"),
        ({"start": float("nan")}, "start .*got nan"),
        ({"end": float("inf")}, "end .*got inf"),
        ({"end": "2"}, "end .*got '2'"),
        ({"start": 2, "end": 2}, "end must be after start"),
        ({"views": np.True_}, "views .*got"),
        ({"top_k": np.float64(3)}, "top_k .*got"),
        ({"top_k": 10**30}, "top_k .*got 1000"),
        ({"start": np.float32("nan")}, "start .*got"),
        ({"end": np.float32("inf")}, "end .*got"),
        ({"start": np.True_}, "start .*got"),
        ({"start": 10**400}, "start .*got 1000"),
        ({"end": pandas.NA}, "end .*got"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_sent(connect, triton, options, said):
    with pytest.raises(InvalidRequest, match=said):
        connect().classify(VIDEO, **options)
    with pytest.raises(InvalidRequest, match=said):
        connect().classify_many([VIDEO], **options)
    assert not triton.metadata


@pytest.mark.parametrize("call", ["classify", "classify_many", "embed"])
def test_an_unknown_option_is_refused_with_those_there_are(connect, call):
    with pytest.raises(InvalidRequest, match=r"unknown option: topk; the options are .*quality, top_k, features"):
        getattr(connect(), call)(VIDEO, topk=3)


def read_parameters(request):
    """What a request says besides its deadline."""
    values = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()}
    assert values.pop("timeout") > 0
    return values


def test_the_deadline_is_sent_in_microseconds(connect, triton):
    connect(timeout_seconds=20).classify(VIDEO)
    connect().classify(VIDEO, timeout_seconds=60.75)
    assert [request.parameters["timeout"].int64_param for request in triton.requests] == [20_000_000, 60_750_000]


def test_what_is_left_at_its_default_is_not_sent(connect, triton):
    connect().classify(VIDEO, sampling="uniform", quality="fast")
    assert read_parameters(triton.requests[0]) == {}


def test_options_are_sent_in_the_types_of_the_decode_step(connect, triton):
    options = {"sampling": "clip", "views": 2, "crops": 3, "start": 1, "end": 2.5, "quality": "reference"}
    connect().classify(VIDEO, **options)
    list(connect().classify_many([VIDEO], **options))
    for request in triton.requests:
        sent = read_parameters(request)
        assert sent == {
            "policy": "clip",
            "views": 2,
            "crops": 3,
            "start_seconds": 1.0,
            "end_seconds": 2.5,
            "quality": "reference",
        }
        assert isinstance(sent["start_seconds"], float)


def test_shortcuts_are_sent(connect, triton):
    connect().classify(VIDEO, sampling="keyframes", quality="draft", crops=3)
    assert read_parameters(triton.requests[0]) == {"policy": "keyframes", "quality": "draft", "crops": 3}


def test_numbers_of_numpy_and_of_a_data_frame_are_numbers(connect, triton):
    frame = pandas.DataFrame({"top_k": [3], "views": [2], "crops": [3], "start": [0.5], "end": [2]})
    options = {"sampling": "clip", **{name: frame[name][0] for name in frame}, "start": np.float32(0.5)}
    assert isinstance(options["top_k"], np.int64)
    limits = DownloadLimits(max_bytes=np.int32(1000), seconds=np.float32(2))
    classifier = connect(timeout_seconds=np.int64(20), download_limits=limits)
    assert len(classifier.classify(VIDEO, timeout_seconds=np.float32(2.5), **options)) == 3
    retry_seconds = np.float32(1.5)
    list(classifier.classify_many([VIDEO], parallel=np.int64(2), retry_seconds=retry_seconds, **options))
    assert [request.parameters["timeout"].int64_param for request in triton.requests] == [2_500_000, 20_000_000]
    for request in triton.requests:
        sent = read_parameters(request)
        assert sent == {"policy": "clip", "views": 2, "crops": 3, "start_seconds": 0.5, "end_seconds": 2.0}


@pytest.fixture(scope="module")
def classifier(motion_url):
    with VideoClassifier("motion", motion_url) as opened:
        yield opened


def see(classifier, video, **options):
    """Moments of the frames the model saw, per view."""
    (moments,) = classifier.classify(video, report=True, **options).report["timestamps_seconds"].values()
    return moments


def test_a_real_triton_looks_only_between_start_and_end(classifier, motion_videos):
    (moments,) = see(classifier, motion_videos / "growing.mp4", start=0.5, end=1)
    assert 0.5 <= moments[0] < moments[-1] < 1
    (moments,) = see(classifier, motion_videos / "growing.mp4")
    assert (moments[0], moments[-1]) == (0, pytest.approx(59 / 30))


def test_a_real_triton_takes_as_many_views_as_asked_for(classifier, motion_videos):
    assert len(see(classifier, motion_videos / "growing.mp4", sampling="clip", views=3, crops=3)) == 3


def test_a_real_triton_takes_shortcuts_and_says_so(classifier):
    video = Clip(frames=90, gop=6, options={"x264-params": "scenecut=0:bframes=3:b-adapt=0"}).make()
    found = {}
    for sampling, quality in (("uniform", "fast"), ("keyframes", "fast"), ("uniform", "draft")):
        report = classifier.classify(video, report=True, sampling=sampling, quality=quality).report
        assert (report["policy"], report["quality"]) == (sampling, quality)
        found[sampling, quality] = report["decoded_frames"]
        (numbers,) = report["frame_numbers"].values()
        if sampling == "keyframes":
            assert all(number % 6 == 0 for number in numbers[0])
            assert report["decoded_frames"] == len(numbers[0])
    assert found["keyframes", "fast"] < found["uniform", "draft"] < found["uniform", "fast"]


def test_reference_quality_changes_the_scores_a_little(classifier, motion_videos):
    fast, reference = (
        classifier.classify(motion_videos / "growing.mp4", quality=quality, features=True).features
        for quality in ("fast", "reference")
    )
    assert 0 < abs(fast - reference).max() < 0.5 * abs(fast).max()


def test_a_span_behind_the_video_s_end_is_that_video_s_failure(classifier, motion_videos):
    table = classifier.classify_many(motion_videos, start=100).table()
    assert {type(row.error) for row in table} == {InvalidRequest}
    assert "ends at 2.000 seconds" in str(table[0].error)
