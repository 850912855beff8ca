"""The report of a fit on a terminal."""

from typing import Any

from rich.console import Group, RenderableType

from clipserve.evaluation.report import MOST_OPEN_ROWS
from clipserve.evaluation.terminal_report import make_table, show_text, tabulate_evaluation


def tabulate_fit(report: dict[str, Any]) -> RenderableType:
    """The held-out evaluation, the learning curve, calibration, and where the model is."""
    held_out = report["held_out"]
    parts: list[RenderableType] = [
        show_text(
            f"{report['name']}: {len(report['classes'])} classes on the features of {report['on']}, measured on"
            f" {held_out['answered']} videos, each held out once in {report['folds']} folds"
        ),
        *tabulate_evaluation(held_out),
    ]
    if len(held_out["classes"]) <= MOST_OPEN_ROWS:
        table = make_table("class", "videos", "accuracy", "average precision", right=(1, 2, 3))
        for one in held_out["classes"]:
            shares = (f"{100 * one[key]:.1f} %" for key in ("accuracy", "average_precision"))
            table.add_row(show_text(one["label"]), str(one["videos"]), *shares)
        parts.append(table)
    table = make_table("videos a class", "accuracy", "95 % interval", right=(0, 1, 2))
    for point in report["learning_curve"]:
        low, high = (100 * point[key] if point[key] is not None else None for key in ("low", "high"))
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        table.add_row(f"{point['videos_per_class']:.0f}", f"{100 * point['accuracy']:.1f} %", interval)
    parts += [table, show_text(report["advice"])]
    table = make_table("calibration", "before", "after", right=(1, 2))
    before, after = report["calibration"]["before"], report["calibration"]["after"]
    for title, key, is_share in (
        ("expected calibration error", "expected_error", True),
        ("mean score of the top label", "mean_score", True),
        ("log loss", "log_loss", False),
        ("Brier score", "brier_score", False),
    ):
        table.add_row(title, *(f"{100 * one[key]:.1f} %" if is_share else f"{one[key]:.3f}" for one in (before, after)))
    parts += [table, show_text(f"temperature {report['temperature']:.2f}, fitted in {report['fitting_seconds']:.1f} s")]
    if report["publication"]:
        parts += map(show_text, report["publication"]["notes"])
    return Group(*parts)
