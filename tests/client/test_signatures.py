"""Arguments are declared once: methods, their twins, `help()`, type checkers and the command line agree on them."""

import inspect
import re
import warnings
from pathlib import Path
from typing import get_type_hints

import pytest
from mypy import api
from typer.testing import CliRunner

from clipserve import AsyncVideoClassifier, InvalidRequest, VideoClassifier, evaluate
from clipserve.arguments import read_arguments
from clipserve.command_line import build_app
from clipserve.connection import Connection
from clipserve.evaluation.run import EvaluateArguments
from clipserve.options import ClassifyArguments, EmbedArguments, RunArguments, SamplingOptions
from clipserve.timeline.options import TimelineArguments, TimelineRunArguments

ROOT = Path(__file__).parents[2]
VIDEO = b"video"
ARGUMENTS = {
    "__init__": Connection,
    "classify": ClassifyArguments,
    "classify_many": RunArguments,
    "embed": EmbedArguments,
    "timeline": TimelineArguments,
    "timeline_many": TimelineRunArguments,
}


FUNCTIONS = [(evaluate, EvaluateArguments)] + [
    (getattr(kind, name), arguments)
    for kind in (VideoClassifier, AsyncVideoClassifier)
    for name, arguments in ARGUMENTS.items()
]


@pytest.mark.parametrize(("method", "arguments"), FUNCTIONS)
def test_a_method_shows_the_fields_of_its_dataclass_and_help_explains_each(method, arguments):
    fields = inspect.signature(arguments).parameters
    parameters = inspect.signature(method).parameters
    assert list(parameters) == [*(["self"] if method is not evaluate else []), *fields]
    for field, parameter in fields.items():
        assert (parameters[field].kind, parameters[field].default) == (parameter.kind, parameter.default)
        assert parameters[field].annotation == get_type_hints(arguments)[field]
        assert re.search(rf"^    {field}: \S", method.__doc__, re.MULTILINE), "without an Argument"


def test_an_example_of_a_signature():
    shown = str(inspect.signature(VideoClassifier.classify)).replace("typing.", "")
    assert "*, sampling: Literal['uniform', 'clip', 'keyframes'] = 'uniform', views: int | None = None" in shown
    assert "retry: bool = False" in shown
    assert shown.endswith("-> clipserve.results.Prediction")
    assert inspect.iscoroutinefunction(AsyncVideoClassifier.classify)
    assert not inspect.iscoroutinefunction(AsyncVideoClassifier.classify_many)


def test_a_docstring_has_its_arguments_ahead_of_its_errors():
    head, args, raises = re.split(r"\n\n(?=Args:|Raises:)", VideoClassifier.classify.__doc__)
    assert head == "Classify one video."
    assert "    top_k: number of labels to return; a model with fewer classes returns all of them.\n" in args
    assert "VideoError: the video cannot be classified." in raises


def test_video_and_source_may_be_given_by_keyword(connect):
    assert connect().classify(video=VIDEO).top.label == "archery"
    assert len(list(connect().classify_many(source=[VIDEO]))) == 1
    assert len(connect().embed(source=[VIDEO])) == 1


@pytest.mark.parametrize("call", ["classify_many", "embed"])
def test_the_old_name_of_retry_seconds_is_accepted_for_now_and_warns_its_caller(connect, call):
    with pytest.warns(DeprecationWarning, match="patience_seconds is now called retry_seconds"):
        getattr(connect(), call)([VIDEO], patience_seconds=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(connect(), call)([VIDEO], retry_seconds=3)


def test_the_deprecation_points_at_the_line_of_the_call(triton):
    classifier = VideoClassifier("x3d_m", triton.url)
    with pytest.warns(DeprecationWarning, match="patience_seconds") as caught:
        classifier.classify_many([VIDEO], patience_seconds=3)
    classifier.close()
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, r"VideoClassifier\.classify\(\): missing a required argument: 'video'"),
        ((VIDEO, 3), {}, r"VideoClassifier\.classify\(\): too many positional arguments"),
        ((VIDEO,), {"video": VIDEO}, r"VideoClassifier\.classify\(\): multiple values for argument 'video'"),
    ],
)
def test_a_call_with_wrong_positional_arguments_names_the_method(arguments, options, message):
    with VideoClassifier("x3d_m", "localhost:1") as classifier, pytest.raises(TypeError, match=message):
        classifier.classify(*arguments, **options)


@pytest.mark.filterwarnings("error")
def test_an_old_name_that_a_method_never_had_is_unknown(connect):
    with pytest.raises(InvalidRequest, match="unknown option: patience_seconds; the options are"):
        connect().classify(VIDEO, patience_seconds=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [("--top-k 0", "for '--top-k': top_k must be a whole number"), ("--views 31", "for '--views'")],
)
def test_a_wrong_value_on_the_command_line_is_wrong_usage_of_its_option(options, message):
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(build_app(), ["classify", "a.mp4", *options.split()])
    assert result.exit_code == 2
    assert message in result.stderr


def test_help_on_the_command_line_says_the_same():
    shown = CliRunner(env={"COLUMNS": "1000"}).invoke(build_app(), ["classify", "--help"]).stdout
    for name, argument in read_arguments(SamplingOptions).items():
        assert f"--{name}" in shown
        assert f"{argument.doc[0].upper()}{argument.doc[1:]}." in shown
    assert f"[default: {RunArguments.parallel}]" in shown


RIGHT = """
from typing import assert_type

import clipserve
from clipserve import (
    AsyncRowStream,
    AsyncVideoClassifier,
    Embeddings,
    Evaluation,
    Prediction,
    RowStream,
    VideoClassifier,
    evaluate,
)

classifier = VideoClassifier("x3d_m", url="localhost:8001", timeout_seconds=3)
assert_type(classifier, VideoClassifier)
assert_type(clipserve.errors.ServerBusy.code, str)
assert_type(classifier.classify("a.mp4", top_k=3, sampling="clip", views=10), Prediction)
assert_type(classifier.classify(video=b"", start=1.5, retry=True, timeout_seconds=None), Prediction)
assert_type(classifier.classify_many("videos/", parallel=3, on_error="drop", features=True), RowStream)
assert_type(classifier.embed(source=["a.mp4"], retry_seconds=3), Embeddings)
assert_type(evaluate("labels.csv", model="x3d_m", sampling="clip", unknown_labels="miss"), Evaluation)


async def run(classifier: AsyncVideoClassifier) -> None:
    assert_type(await classifier.classify("a.mp4", crops=3), Prediction)
    assert_type(classifier.classify_many(source="videos/", ordered=False), AsyncRowStream)
    assert_type(await classifier.embed("videos/"), Embeddings)
"""
WRONG = {
    'classifier.classify("a.mp4", topk=3)': 'Unexpected keyword argument "topk"',
    'classifier.classify("a.mp4", top_k="3")': 'Argument "top_k"',
    'classifier.classify("a.mp4", sampling="clips")': 'Argument "sampling"',
    'classifier.classify("a.mp4", 3)': "Too many positional arguments",
    "classifier.classify()": "Missing positional argument",
    'classifier.classify_many("videos/", retry=True)': 'Unexpected keyword argument "retry"',
    'classifier.embed("videos/", parallel=1.5)': 'Argument "parallel"',
    'evaluate("labels.csv", top_k=3)': 'Unexpected keyword argument "top_k"',
    'VideoClassifier("x3d_m", adress="localhost:8001")': 'Unexpected keyword argument "adress"',
    "from clipserve import VideoClasifier": 'Module "clipserve" has no attribute "VideoClasifier"',
    "clipserve.no_such_name": 'Module has no attribute "no_such_name"',
}


def test_type_checkers_know_every_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "right.py").write_text(RIGHT)
    wrong = "\n".join(
        [
            "import clipserve; from clipserve import VideoClassifier, evaluate",
            'classifier = VideoClassifier("x3d_m")',
            *WRONG,
        ]
    )
    (tmp_path / "wrong.py").write_text(wrong)
    output, errors, _ = api.run(["--no-pretty", str(tmp_path / "right.py"), str(tmp_path / "wrong.py")])
    assert not errors
    said = re.findall(r"(\w+\.py:\d+): error: (.*)", output)
    assert {place for place, _ in said} == {f"wrong.py:{line}" for line in range(3, 3 + len(WRONG))}, output
    for line, message in enumerate(WRONG.values(), 3):
        assert any(message in error for place, error in said if place == f"wrong.py:{line}"), output
