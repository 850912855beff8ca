"""From folders of videos to a served model: real files, a real Triton, other classes than it was trained for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipserve import VideoClassifier
from clipserve.errors import InvalidRequest
from clipserve.fitting import Fitted, fit
from clipserve_export.repository import find_spec
from clipserve_export.versions import reload_model, serve_versions
from clipserve_server.triton import Triton
from tests.fitting.conftest import ADMIN, FIRST_NEW_SEED, GROUPS, TRAINING_VIDEOS, write_motions

LEAST_ACCURACY = 0.97
PROGRAM = Path(sys.executable).with_name("clipserve")


@pytest.fixture(scope="module")
def fitted(fit_server: Triton, training_folder: Path) -> Fitted:
    """`groups` on `motion`, published and served."""
    return fit(
        training_folder,
        on="motion",
        name="groups",
        url=fit_server.grpc_url,
        headers=ADMIN,
        repository=fit_server.repository,
    )


def measure(url: str, model: str, folder: Path) -> float:
    """The share of a folder's videos whose top label is their folder's name, or 'not'."""
    with VideoClassifier(model, url) as classifier:
        rows = list(classifier.classify_many(folder, on_error="raise"))
    labels = [str(Path(row.video).parent.name) for row in rows]
    right = [row.prediction.top.label == label for row, label in zip(rows, labels, strict=True) if row.prediction]
    return float(np.mean(right))


def test_the_fitted_model_names_new_videos(fitted: Fitted, fit_server: Triton, new_folder: Path) -> None:
    assert fitted.head.classes == ("changes size", "moves", "stays", "turns")
    assert measure(fit_server.grpc_url, "groups", new_folder) >= LEAST_ACCURACY


@pytest.mark.long
def test_it_names_many_new_videos(fitted: Fitted, fit_server: Triton, tmp_path: Path) -> None:
    folder = write_motions(tmp_path, range(FIRST_NEW_SEED + 100, FIRST_NEW_SEED + 115))
    assert measure(fit_server.grpc_url, "groups", folder) >= LEAST_ACCURACY


@pytest.mark.long
def test_left_or_not(fit_server: Triton, training_folder: Path, new_folder: Path, tmp_path: Path) -> None:
    lines = [f"{path},{'left' if 'moving_left' in path.name else 'not'}" for path in training_folder.glob("*/*-*.mp4")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    place = {"url": fit_server.grpc_url, "repository": fit_server.repository, "headers": ADMIN}
    made = fit(tmp_path / "labels.csv", on="motion", name="left_or_not", **place)
    assert made.head.classes == ("left", "not")
    with VideoClassifier("left_or_not", fit_server.grpc_url) as classifier:
        rows = classifier.classify_many(new_folder).table().rows
    right = [row.prediction.top.label == ("left" if "moving_left" in row.video else "not") for row in rows]
    assert np.mean(right) >= LEAST_ACCURACY


def test_the_served_model_says_what_the_head_says(fitted: Fitted, fit_server: Triton, new_folder: Path) -> None:
    publication = fitted.publication
    assert publication is not None
    assert publication.loaded
    assert publication.score_error < 1e-4
    video, url = next(new_folder.glob("turns/*.mp4")), fit_server.grpc_url
    with VideoClassifier("groups", url) as classifier, VideoClassifier("motion", url) as trunk:
        for options in ({"end": 1.0}, {"sampling": "clip", "views": 3}):
            prediction = classifier.classify(video, features=True, **options)
            features = trunk.classify(video, features=True, **options).features
            np.testing.assert_allclose(prediction.features, features, atol=1e-5)
            scores = [scored.score for scored in sorted(prediction, key=lambda scored: scored.index)]
            if "views" in options:  # the mean of the scores of each
                assert sum(scores) == pytest.approx(1, abs=1e-5)
            else:
                np.testing.assert_allclose(scores, fitted.head.score(features[None])[0], atol=1e-5)


def test_a_broken_video_is_a_row_of_the_report(fitted: Fitted, tmp_path: Path) -> None:
    (failure,) = fitted.held_out.failures
    assert failure.code == "not-a-video"
    assert fitted.held_out.answered == len(GROUPS) * TRAINING_VIDEOS
    assert fitted["top_1_accuracy"] > 0.9
    page = fitted.to_html(tmp_path / "report.html")
    for text in ("broken.mp4", "Are the videos enough?", "Calibration before and after", "changes size", "<svg"):
        assert text in page
    report = json.loads(fitted.to_json())
    assert report["held_out"]["failed"] == 1
    assert len(report["learning_curve"]) == 4
    assert {"expected_error", "log_loss"} <= report["calibration"]["after"].keys()


def test_its_facts_lie_beside_it_and_in_its_contract(fitted: Fitted, fit_server: Triton) -> None:
    folder = fit_server.repository / "groups_net" / "1"
    assert json.loads((folder / "fit.json").read_text())["on"] == "motion"
    record = json.loads((folder / "export.json").read_text())
    assert record["weights"].startswith("head on motion version 1")
    assert record["parity"]["clips"] > 0
    assert (fit_server.repository / "groups_net" / "labels.txt").read_text() == "changes size\nmoves\nstays\nturns\n"
    with VideoClassifier("groups", fit_server.grpc_url) as classifier:
        contract = classifier.contract()
    assert (contract.classes, contract.feature_size, contract.crop) == (4, 192, 64)
    assert "held-out videos" in contract.accuracy
    assert contract.weights_licence == "Apache-2.0"


def test_a_fit_after_a_rollback_says_that_another_version_answers(
    fit_server: Triton, training_folder: Path, tmp_path: Path
) -> None:
    lists, url, repository = tmp_path / "labels.csv", fit_server.grpc_url, fit_server.repository
    paths = [path for group in ("moves", "turns") for path in sorted((training_folder / group).glob("*-*.mp4"))[:4]]
    lists.write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in paths)]))
    place = {"name": "rolled", "url": url, "repository": repository, "headers": ADMIN}
    first = fit(lists, on="motion", **place)
    assert first.publication is not None
    assert (first.publication.version, first.publication.checked_videos) == (1, 5)
    serve_versions(repository, find_spec(repository, "rolled"), "1")
    second = fit(lists, on="motion", **place)
    assert second.publication is not None
    assert second.publication.notes == (
        f"version 2 of rolled is published, but version 1 answers: clipserve versions rolled --serve 2 --reload {url}",
    )


@pytest.mark.long
def test_a_second_fit_is_version_2_and_version_1_comes_back(
    fitted: Fitted, fit_server: Triton, training_folder: Path, tmp_path: Path
) -> None:
    """Fitted to half of the values that `embed` wrote: other answers."""
    url, repository = fit_server.grpc_url, fit_server.repository
    lists = tmp_path / "labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(training_folder.glob("*/*-*.mp4"))]
    lists.write_text("\n".join(["path,label", *rows]))
    with VideoClassifier("motion", url) as classifier:
        classifier.embed(lists).save(tmp_path / "features.npy")
    place = {"url": url, "repository": repository, "headers": ADMIN}
    again = fit(on="motion", name="groups", features=tmp_path / "features.npy", **place)
    assert again.publication is not None
    assert (again.publication.version, again.publication.loaded, again.publication.checked_videos) == (2, True, 5)
    assert again["top_1_accuracy"] == pytest.approx(fitted["top_1_accuracy"], abs=0.05)
    spec = find_spec(repository, "groups")
    serve_versions(repository, spec, "1")
    reload_model(spec, url, headers=ADMIN)
    with VideoClassifier("groups", url) as classifier:
        assert classifier.classify(next(training_folder.glob("turns/*.mp4"))).top.label == "turns"
    serve_versions(repository, spec, "latest")
    reload_model(spec, url, headers=ADMIN)


def test_what_fails_after_the_fit_is_a_note_of_its_report(
    fitted: Fitted, fit_server: Triton, training_folder: Path, tmp_path: Path
) -> None:
    """The features may have taken hours. Here a file has them, and no key lets the server load the model."""
    rng, lines, vectors = np.random.default_rng(0), ["id,video,label,truncated"], []
    for number in range(12):
        lines.append(f"{number},gone-{number}.mp4,{'left' if number % 2 else 'not'},False")
        vectors.append(rng.normal(size=192).astype(np.float32) + number % 2)
    np.save(tmp_path / "features.npy", np.stack(vectors))
    (tmp_path / "features.csv").write_text("\n".join(lines))
    place = {"on": "motion", "url": fit_server.grpc_url, "repository": fit_server.repository}
    for url, headers, said in (
        (fit_server.grpc_url, None, "no server has loaded noted yet: .* restricted"),
        ("dns:///localhost:1", ADMIN, "no server has loaded noted yet: .* several servers"),
        (fit_server.grpc_url, ADMIN, "no video was here to ask it about"),
    ):
        made = fit(name="noted", features=tmp_path / "features.npy", headers=headers, **{**place, "url": url})
        assert made["top_1_accuracy"] > 0
        assert made.publication is not None
        assert re.search(said, made.publication.notes[-1]), made.publication.notes
        assert made.publication.loaded == ("several" not in said and headers is not None)
    shutil.rmtree(fit_server.repository / "noted_net")
    (fit_server.repository / "noted_net").touch()  # so that nothing can be published there
    made = fit(name="noted", features=tmp_path / "features.npy", headers=ADMIN, **place)
    assert made.publication is not None
    assert (made.publication.version, made.publication.loaded) == (None, False)
    (fit_server.repository / "noted_net").unlink()
    assert "noted is not published: " in made.publication.notes[-1]
    assert "Not published" in made.to_html(tmp_path / "report.html")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "motion"}, "is the name of a published model"),
        ({"name": "a b"}, "has letters, digits"),
        ({"name": "groups", "on": "nothing"}, "there is no model 'nothing'"),
        ({"name": "groups", "on": "x3d_m"}, "has no version of x3d_m"),
        ({"name": ""}, "needs a name"),
        ({"name": "groups"}, "names other classes.*choose another --name"),
    ],
)
def test_what_cannot_be_published_is_said_before_anything_is_sent(
    fitted: Fitted, fit_server: Triton, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n" + "none.mp4,run\nnone.mp4,jump\n" * 3)
    with pytest.raises(InvalidRequest, match=said):
        # No server listens at this address.
        fit(tmp_path / "labels.csv", **{"on": "motion", **options}, url="localhost:1", repository=fit_server.repository)


def test_features_of_other_classes_are_refused_before_the_fit(
    fitted: Fitted, fit_server: Triton, tmp_path: Path
) -> None:
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(6, 192)).astype(np.float32))
    rows = "".join(f"{number},{number}.mp4,{label},False\n" for number, label in enumerate(["run", "jump"] * 3))
    (tmp_path / "features.csv").write_text("id,video,label,truncated\n" + rows)
    place = {"on": "motion", "url": "localhost:1", "repository": fit_server.repository}
    with pytest.raises(InvalidRequest, match=r"names other classes.*choose another --name"):
        fit(name="groups", features=tmp_path / "features.npy", **place)


@pytest.mark.long
def test_the_command_prints_the_report_and_serves_the_model(
    fit_server: Triton, training_folder: Path, tmp_path: Path
) -> None:
    where = ["--url", fit_server.grpc_url, "--repository", fit_server.repository, "--json", tmp_path / "r.json"]
    key = [f"{name}: {value}" for name, value in ADMIN.items()]
    done = subprocess.run(
        [PROGRAM, "fit", training_folder, "--on", "motion", "--name", "by_command", *where, "--header", *key],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr  # one file is no video
    for text in ("95 % interval", "changes size", "videos a class", "log loss", "broken.mp4", "by_command is served"):
        assert text in done.stdout, done.stdout
    assert re.search(r"its scores differ from the head's by \de-0\d at most", " ".join(done.stdout.split()))
    assert json.loads((tmp_path / "r.json").read_text())["publication"]["loaded"] is True


def test_the_command_refuses_in_a_sentence(training_folder: Path) -> None:
    refused = subprocess.run(
        [PROGRAM, "fit", str(training_folder / "turns"), "--on", "motion", "--name", "x", "--no-publish"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert refused.returncode == 2
    assert "lies in no class" in refused.stderr
    assert "Traceback" not in refused.stderr
