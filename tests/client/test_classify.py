"""What comes back for a video, through a real gRPC connection."""

import io
from pathlib import Path

import numpy as np
import pytest

from clipserve import InvalidRequest, Prediction, ScoredLabel, UnexpectedAnswer

VIDEO = b"\x00\x00\x00\x18ftypmp42 and more"


def test_the_best_labels_come_first_with_their_scores(connect):
    prediction = connect().classify(VIDEO, top_k=2)
    assert prediction.labels == (
        ScoredLabel("archery", 5, 0.93),
        ScoredLabel("deadlifting", 88, 0.04),
    )
    assert prediction.top.label == "archery"
    assert prediction.model == "x3d_m"


def test_five_labels_are_requested_by_default(connect, triton):
    triton.classes = [f"{0.5 - i / 100:f}:{i}:action {i}" for i in range(9)]
    classifier = connect()
    assert len(classifier.classify(VIDEO)) == 5
    assert len(classifier.classify(VIDEO, top_k=7)) == 7


def test_a_model_with_fewer_classes_than_top_k_gives_all_it_has(connect):
    assert [scored.index for scored in connect().classify(VIDEO, top_k=400)] == [5, 88, 290, 115]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5:7:tai chi: form 24", ScoredLabel("tai chi: form 24", 7, 0.5)),
        ("0.5:7::", ScoredLabel(":", 7, 0.5)),
        ("1e-05:7:tap dancing", ScoredLabel("tap dancing", 7, 0.00001)),
        ("0.5:7:déménager", ScoredLabel("déménager", 7, 0.5)),
        ("0.5:7", ScoredLabel("7", 7, 0.5)),
    ],
)
def test_a_label_is_whatever_follows_the_second_colon(connect, triton, text, expected):
    triton.classes = [text]
    assert connect().classify(VIDEO).labels == (expected,)


def test_features_come_only_when_requested(connect, triton):
    classifier = connect()
    assert classifier.classify(VIDEO).features is None
    assert "FEATURES" not in [output.name for output in triton.requests[0].outputs]

    features = classifier.classify(VIDEO, features=True).features
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.arange(8))
    features += 1  # the caller's own copy


def test_a_report_comes_only_when_requested(connect):
    classifier = connect()
    assert classifier.classify(VIDEO).report is None
    report = classifier.classify(VIDEO, report=True).report
    assert report == {"codec": "h264", "seconds": [0.0, 1.5], "truncated": False}


def test_a_prediction_says_whether_the_video_is_damaged_or_cut_off(connect, triton):
    triton.truncated = {VIDEO[:-1]}
    classifier = connect()
    assert classifier.classify(VIDEO).truncated is False
    cut = classifier.classify(VIDEO[:-1])
    assert (cut.truncated, cut.report) == (True, None)
    assert repr(cut).endswith("; truncated)")


@pytest.mark.parametrize(
    "changes",
    [
        {"report": b"{"},
        {"report": b"[1]"},
        {"report": b"{}"},
        {"report": b'{"truncated": "no"}'},
        {"leave_out": "REPORT"},
    ],
)
def test_truncated_is_unknown_without_a_report_of_it(connect, triton, changes):
    for name, value in changes.items():
        setattr(triton, name, value)
    assert connect().classify(VIDEO).truncated is None


def test_a_report_is_requested_once_of_a_model_without_one(connect, triton):
    triton.has_report = False
    classifier = connect()
    for _ in range(2):
        prediction = classifier.classify(VIDEO)
        assert (prediction.top.label, prediction.truncated) == ("archery", None)
    assert len(triton.requests) == 3
    with pytest.raises(InvalidRequest, match="unexpected inference output 'REPORT'"):
        classifier.classify(VIDEO, report=True)


def test_the_request_is_a_batch_of_one_video(connect, triton):
    connect("mvit_base_16x4").classify(VIDEO)
    (request,) = triton.requests
    (video,) = request.inputs
    assert (request.model_name, video.name) == ("mvit_base_16x4", "VIDEO")
    assert (video.datatype, list(video.shape)) == ("BYTES", [1, 1])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_a_video_in_memory_arrives_unchanged(connect, triton, kind):
    prediction = connect().classify(kind(VIDEO + b"\x00"))
    assert triton.videos == [VIDEO + b"\x00"]
    assert prediction.video in {"<bytes>", "<file>"}


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_arrives_as_its_content_and_names_the_prediction(connect, triton, tmp_path, kind):
    path = tmp_path / "clip.mp4"
    path.write_bytes(VIDEO)
    prediction = connect().classify(kind(path))
    assert triton.videos == [VIDEO]
    assert prediction.video == str(path)


def test_an_open_file_is_read_from_its_current_position(connect, triton, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"skipped" + VIDEO)
    with path.open("rb") as file:
        file.seek(len(b"skipped"))
        prediction = connect().classify(file)
    assert triton.videos == [VIDEO]
    assert prediction.video == str(path)


def test_a_video_larger_than_grpcs_usual_limit_of_4_mib_arrives(connect, triton):
    video = bytes(20 * 1024 * 1024)
    connect().classify(video)
    assert triton.videos == [video]


def test_an_answer_larger_than_that_limit_arrives(connect, triton):
    triton.features = np.ones(2**21, np.float32)
    assert connect().classify(VIDEO, features=True).features.sum() == 2**21


def test_headers_go_with_every_call(connect, triton):
    classifier = connect(headers={"Authorization": "Bearer 123", "x-team": "video"})
    classifier.classify(VIDEO)
    classifier.models()
    classifier.wait_until_ready()
    methods = [method for method, _ in triton.metadata]
    assert set(methods) == {"ModelInfer", "RepositoryIndex", "ModelReady", "ModelConfig"}
    for _, metadata in triton.metadata:
        assert metadata["authorization"] == "Bearer 123"
        assert metadata["x-team"] == "video"


def test_models_lists_the_ready_ones_that_take_videos(connect, triton):
    triton.models["x3d_l"] = type(triton.models["x3d_m"])(ready=False)
    assert connect().models() == ["mvit_base_16x4", "x3d_m"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"leave_out": "SCORES"}, "there is no output SCORES"),
        ({"leave_out": "FEATURES"}, "there is no output FEATURES"),
        ({"leave_out": "REPORT"}, "there is no output REPORT"),
        ({"classes": ["nan:5:archery"]}, "nan"),
        ({"classes": ["archery"]}, "values to unpack"),
        ({"classes": ["0.1:1:a", "0.2:2:b"]}, "best first"),
        ({"classes": []}, "at least one label"),
        ({"features": np.zeros(8)}, "float64"),
        ({"report": b"{"}, "Expecting"),
        ({"report": b"[1]"}, "JSON object"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_an_error_that_says_how(connect, triton, changes, said):
    for name, value in changes.items():
        setattr(triton, name, value)
    with pytest.raises(UnexpectedAnswer, match=r"x3d_m.*<bytes>") as caught:
        connect().classify(VIDEO, features=True, report=True)
    assert said in str(caught.value)
    assert (caught.value.model, caught.value.video) == ("x3d_m", "<bytes>")


def test_a_prediction_shows_its_best_labels():
    labels = tuple(ScoredLabel(name, 1, 0.25) for name in ("archery", "yoga", "zumba", "golf"))
    assert repr(Prediction(labels[:1], "x3d_m", "clip.mp4")) == ("Prediction('clip.mp4': archery 0.25)")
    assert repr(Prediction(labels, "x3d_m", "clip.mp4")) == (
        "Prediction('clip.mp4': archery 0.25, yoga 0.25, zumba 0.25, ...)"
    )


def test_equal_predictions_compare_and_hash_although_they_hold_arrays():
    labels = (ScoredLabel("archery", 5, 0.93),)
    one, other = (
        Prediction(labels, "x3d_m", "clip.mp4", features=np.zeros(4, np.float32), report={}) for _ in range(2)
    )
    assert one == other
    assert hash(one) == hash(other)
