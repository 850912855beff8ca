"""Evaluations of made-up scores, for tests that need no server."""

from datetime import UTC, datetime

import numpy as np

from clipserve.evaluation import Evaluation, Failure, LabelledVideo


def make_evaluation(
    *, name="hand_made", classes=12, videos=60, skill=3.0, failures=0, truncated=0, seed=0, positions=None
):
    """A model that is right more often the more `skill` it has. The same seed gives the same videos and truths."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, classes, videos + failures)
    labels = tuple(f"class {index:03d}" for index in range(classes))
    rng = np.random.default_rng((seed, len(name), int(skill * 1000)))
    logits = rng.normal(size=(videos + failures, classes)) * 1.5
    logits[np.arange(videos + failures), truths] += skill
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    broken = set(range(0, 2 * failures, 2))
    positions = np.array([row for row in range(videos + failures) if row not in broken], dtype=np.int64)
    return Evaluation(
        name=name,
        model=name,
        settings={"url": "localhost:8001", "sampling": "uniform", "parallel": 5},
        versions={"clipserve": "0.1.0"},
        classes=labels,
        videos=tuple(
            LabelledVideo(str(row), f"videos/{labels[true].replace(' ', '_')}-{row}.mp4", (labels[true],))
            for row, true in enumerate(truths.tolist())
        ),
        positions=positions,
        scores=scores[positions].astype(np.float32),
        truths=tuple((int(true),) for true in truths[positions]),
        failures=tuple(
            Failure(row, str(row), f"videos/{row}.mp4", "not-a-video", f"<b>no</b> video opens from 'videos/{row}.mp4'")
            for row in sorted(broken)
        ),
        unknown_labels=(),
        milliseconds=rng.gamma(4, 12, len(positions)),
        truncated=np.arange(len(positions)) < truncated,
        seconds=videos / 21,
        started=datetime(2026, 11, 22, 18, 30, tzinfo=UTC),
    )
