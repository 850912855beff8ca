"""Reports on a terminal: from the plain data of `Report.to_dict` to tables of rich."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clipserve.evaluation.metric_values import METRICS
from clipserve.names import make_printable

MOST_CONFUSIONS = 5
WORST_CLASSES = 5
MOST_FAILURES = 10
VERDICT_STYLES = {"better": "green", "worse": "red", "may be chance": "dim"}


def tabulate(kind: str, report: dict[str, Any]) -> RenderableType:
    """The tables of a report."""
    return Group(*(tabulate_evaluation if kind == "evaluation" else tabulate_comparison)(report))


def tabulate_evaluation(report: dict[str, Any]) -> list[RenderableType]:
    """Metrics with intervals, the worst classes, the most frequent mistakes, the failures."""
    parts: list[RenderableType] = []
    if report["metrics"]:
        table = make_table(_write_title(report["name"]), "value", "95 % interval", right=(1, 2), no_wrap=True)
        for name, entry in report["metrics"].items():
            metric = METRICS[name]
            table.add_row(
                metric.title, metric.format(entry["value"]), metric.format_interval(entry["low"], entry["high"])
            )
        parts += [table, *_tabulate_mistakes(report)]
    parts.append(show_text(summarise(report)))
    failures = report["failures"]
    for one in failures[:MOST_FAILURES]:
        parts.append(show_text(f"  {one['video']}: {one['code']}: {one['message']}", style="red"))
    if len(failures) > MOST_FAILURES:
        parts.append(show_text(f"  and {len(failures) - MOST_FAILURES} more", style="red"))
    return parts


def tabulate_comparison(report: dict[str, Any]) -> list[RenderableType]:
    """Metrics side by side, then the differences from the baseline."""
    evaluations = report["evaluations"]
    table = make_table("", *map(_write_title, evaluations), right=range(1, len(evaluations) + 1))
    for name, metric in METRICS.items():
        entries = [one["metrics"].get(name) for one in evaluations.values()]
        table.add_row(metric.title, *(metric.format(entry["value"]) if entry else "" for entry in entries))
    table.add_section()
    table.add_row("videos per second", *(f"{one['videos_per_second']:.1f}" for one in evaluations.values()))
    table.add_row("failed videos", *(str(one["failed"]) for one in evaluations.values()))
    parts: list[RenderableType] = [table]
    for name, contrast in report["contrasts"].items():
        parts += _tabulate_contrast(name, contrast, report["baseline"])
    return [*parts, *(show_text(f"{name}: {summarise(one)}") for name, one in evaluations.items())]


def summarise(report: dict[str, Any]) -> str:
    """One sentence: how many videos were answered, how fast, and what failed."""
    text = f"{report['answered']} of {report['videos']} videos answered"
    if report["seconds"]:  # not of vectors from a file
        text += f" in {report['seconds']:.1f} s"
    if report["seconds"] and report["answered"]:
        text += f", {report['videos_per_second']:.1f} per second"
    if report["truncated"]:
        text += f"; {report['truncated']} of them from damaged or truncated files"
    if report["failures_by_code"]:
        text += "; failed: " + ", ".join(f"{count} {code}" for code, count in report["failures_by_code"].items())
    if unknown := len(report["unknown_labels"]):
        what = "1 true label is" if unknown == 1 else f"{unknown} true labels are"
        text += f"; {what} no class of the model and counted as missed"
    return text


def _tabulate_mistakes(report: dict[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    worst = sorted((one for one in report["classes"] if one["accuracy"] < 1), key=lambda one: float(one["accuracy"]))
    if worst:
        table = make_table("least accurate classes", "videos", "accuracy", "average precision", right=(1, 2, 3))
        for one in worst[:WORST_CLASSES]:
            shares = (f"{100 * one[key]:.1f} %" for key in ("accuracy", "average_precision"))
            table.add_row(show_text(one["label"]), str(one["videos"]), *shares)
        parts.append(table)
    if report["confusions"]:
        table = make_table("true label", "predicted label", "videos", right=(2,))
        for one in report["confusions"][:MOST_CONFUSIONS]:
            table.add_row(show_text(one["truth"]), show_text(one["answer"]), str(one["videos"]))
        parts.append(table)
    return parts


def _tabulate_contrast(name: str, contrast: dict[str, Any], baseline: str) -> list[RenderableType]:
    titles = (_write_title(f"{name} - {baseline}"), "difference", "95 % interval, paired", "")
    table = make_table(*titles, right=(1, 2), no_wrap=True)
    for key, entry in contrast["differences"].items():
        metric = METRICS[key]
        table.add_row(
            metric.title,
            metric.format_difference(entry["value"]),
            metric.format_interval(entry["low"], entry["high"], sign="+"),
            show_text(entry["verdict"], style=VERDICT_STYLES[entry["verdict"]]),
        )
    sentence = (
        f"only {name} is right on {contrast['only_this_right']} of {contrast['videos']} videos, only {baseline} on"
        f" {contrast['only_baseline_right']}: p = {contrast['mcnemar_p']:.3g} (McNemar, exact)"
    )
    return [table, show_text(sentence)]


def make_table(*titles: str, right: Iterable[int], no_wrap: bool = False) -> Table:
    """A table with columns of numbers, `right`, that are aligned to the right."""
    table = Table(*titles)
    for number in right:
        table.columns[number].justify, table.columns[number].no_wrap = "right", no_wrap
    return table


def show_text(text: str, style: str = "") -> Text:
    """A text that may contain names. Text, because names may contain square brackets, which are markup in a str."""
    return Text(make_printable(text), style=style)


def _write_title(text: str) -> str:
    """A name as the title of a column, where rich takes a str."""
    return escape(make_printable(text))
