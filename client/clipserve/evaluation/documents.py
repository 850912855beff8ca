"""Evaluations as plain dicts and lists, ready for JSON."""

import math
from typing import Any

import numpy as np

from clipserve.evaluation.comparisons import Comparison, Contrast
from clipserve.evaluation.evaluations import Evaluation
from clipserve.evaluation.figures import Figure
from clipserve.evaluation.intervals import Interval

DIGITS = 6  # as many as the server gives scores


def describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the scores of all classes."""
    return {
        "name": evaluation.name,
        "model": evaluation.model,
        "started": evaluation.started.isoformat(timespec="seconds"),
        "settings": dict(evaluation.settings),
        "versions": dict(evaluation.versions),
        "videos": len(evaluation.videos),
        "answered": evaluation.answered,
        "failed": len(evaluation.failures),
        "truncated": int(evaluation.truncated.sum()),
        "seconds": _number(evaluation.seconds),
        "videos_per_second": _number(evaluation.videos_per_second),
        "milliseconds": describe_milliseconds(evaluation),
        "metrics": {name: describe_figure(figure) for name, figure in evaluation.figures.items()},
        "classes": [
            {
                "label": result.label,
                "videos": result.videos,
                "accuracy": _number(result.accuracy),
                "top_5": _number(result.top_5),
                "average_precision": _number(result.average_precision),
            }
            for result in evaluation.class_results
        ],
        "confusions": [
            {"truth": evaluation.classes[truth], "answer": evaluation.classes[answer], "videos": count}
            for truth, answer, count in evaluation.confusion.pairs()
        ],
        "reliability": describe_reliability(evaluation),
        "failures_by_code": evaluation.failures_by_code,
        "failures": [
            {"id": failure.id, "video": failure.video, "code": failure.code, "message": failure.message}
            for failure in evaluation.failures
        ],
        "unknown_labels": list(evaluation.unknown_labels),
        "answers": [
            {
                "id": evaluation.videos[position].id,
                "video": evaluation.videos[position].video,
                "truth": list(evaluation.videos[position].labels),
                "answer": evaluation.classes[evaluation.best[row, 0]],
                "score": _number(float(evaluation.confidence[row])),
                "correct": bool(evaluation.correct[row]),
                "truncated": bool(evaluation.truncated[row]),
            }
            for row, position in enumerate(evaluation.positions.tolist())
        ],
    }


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """The contrasts, and each evaluation whole."""
    return {
        "baseline": comparison.baseline,
        "contrasts": {name: _describe_contrast(one) for name, one in comparison.contrasts.items()},
        "evaluations": {name: describe_evaluation(one) for name, one in comparison.evaluations.items()},
    }


def describe_figure(figure: Figure) -> dict[str, float | None]:
    """Its value and, where there is one, its interval."""
    return {"value": _number(figure.value), **_describe_interval(figure.interval)}


def describe_milliseconds(evaluation: Evaluation) -> dict[str, float | None]:
    """Median and 95th percentile of the time one answer took."""
    if not evaluation.answered:
        return {"median": None, "p95": None}
    median, high = np.percentile(evaluation.milliseconds, [50, 95])
    return {"median": _number(float(median)), "p95": _number(float(high))}


def describe_reliability(evaluation: Evaluation) -> list[dict[str, float | int | None]]:
    """The bins of the reliability diagram."""
    if not evaluation.answered:
        return []
    found = evaluation.reliability
    return [
        {
            "low": _number(float(found.edges[bin_])),
            "high": _number(float(found.edges[bin_ + 1])),
            "answers": int(found.counts[bin_]),
            "confidence": _number(float(found.confidence[bin_])),
            "accuracy": _number(float(found.accuracy[bin_])),
        }
        for bin_ in range(len(found.counts))
    ]


def _describe_contrast(one: Contrast) -> dict[str, Any]:
    return {
        "videos": one.videos,
        "differences": {
            difference.metric: {"value": _number(difference.value), **_describe_interval(difference.interval)}
            for difference in one.differences
        },
        "only_this_right": one.won,
        "only_baseline_right": one.lost,
        "mcnemar_p": one.p,
    }


def _describe_interval(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"low": None, "high": None}
    return {"low": _number(interval.low), "high": _number(interval.high)}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, DIGITS)
