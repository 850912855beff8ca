"""Reports for a terminal."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from clipserve.evaluation.comparisons import Comparison, Contrast
from clipserve.evaluation.evaluations import Evaluation
from clipserve.evaluation.figures import MEANINGS
from clipserve.names import make_printable

MOST_CONFUSIONS = 5
WORST_CLASSES = 5
MOST_FAILURES = 10


def tabulate_evaluation(evaluation: Evaluation) -> RenderableType:
    """Figures with intervals, the worst classes and confusions, the failures."""
    parts: list[RenderableType] = []
    if evaluation.figures:
        table = Table(_write_title(evaluation.name), "value", "95 % interval")
        for column in table.columns[1:3]:
            column.justify, column.no_wrap = "right", True
        for figure in evaluation.figures.values():
            table.add_row(figure.meaning.title, str(figure), figure.format_interval())
        parts += [table, *_tabulate_mistakes(evaluation)]
    parts.append(_show(summarise(evaluation)))
    parts += [
        _show(f"  {failure.video}: {failure.code}", style="red") for failure in evaluation.failures[:MOST_FAILURES]
    ]
    if len(evaluation.failures) > MOST_FAILURES:
        parts.append(_show(f"  and {len(evaluation.failures) - MOST_FAILURES} more", style="red"))
    return Group(*parts)


def tabulate_comparison(comparison: Comparison) -> RenderableType:
    """Figures side by side, then the differences to the baseline."""
    table = Table("", *map(_write_title, comparison.evaluations))
    for column in table.columns[1:]:
        column.justify = "right"
    for metric, figures in comparison.metrics.items():
        table.add_row(MEANINGS[metric].title, *(str(figure or "") for figure in figures))
    table.add_section()
    evaluations = list(comparison.evaluations.values())
    table.add_row("videos a second", *(f"{one.videos_per_second:.1f}" for one in evaluations))
    table.add_row("without an answer", *(str(len(one.failures)) for one in evaluations))
    contrasts = [part for one in comparison.contrasts.values() for part in _tabulate_contrast(one, comparison.baseline)]
    return Group(table, *contrasts, *(_show(f"{one.name}: {summarise(one)}") for one in evaluations))


def summarise(evaluation: Evaluation) -> str:
    """One sentence on how many were answered, how fast, and what failed."""
    text = f"{evaluation.answered} of {len(evaluation.videos)} videos answered in {evaluation.seconds:.1f} s"
    if evaluation.answered:
        text += f", {evaluation.videos_per_second:.1f} a second"
    if evaluation.truncated.any():
        text += f"; {evaluation.truncated.sum()} of them from damaged or cut-off files"
    if evaluation.failures:
        text += "; failed: " + ", ".join(f"{count} {code}" for code, count in evaluation.failures_by_code.items())
    if evaluation.unknown_labels:
        count = len(evaluation.unknown_labels)
        what = "1 true label is" if count == 1 else f"{count} true labels are"
        text += f"; {what} no class of the model and counted as missed"
    return text


def _tabulate_mistakes(evaluation: Evaluation) -> list[RenderableType]:
    parts: list[RenderableType] = []
    worst = sorted((one for one in evaluation.class_results if one.accuracy < 1), key=lambda one: one.accuracy)
    if worst:
        table = Table("least accurate classes", "videos", "accuracy", "average precision")
        for column in table.columns[1:]:
            column.justify = "right"
        for one in worst[:WORST_CLASSES]:
            table.add_row(
                _show(one.label), str(one.videos), f"{100 * one.accuracy:.1f} %", f"{100 * one.average_precision:.1f} %"
            )
        parts.append(table)
    pairs = evaluation.confusion.pairs()
    if pairs:
        table = Table("truth", "taken for", "videos")
        table.columns[2].justify = "right"
        for truth, answer, count in pairs[:MOST_CONFUSIONS]:
            table.add_row(_show(evaluation.classes[truth]), _show(evaluation.classes[answer]), str(count))
        parts.append(table)
    return parts


def _tabulate_contrast(contrast: Contrast, baseline: str) -> list[RenderableType]:
    table = Table(_write_title(f"{contrast.name} - {baseline}"), "difference", "95 % interval, paired", "")
    for column in table.columns[1:3]:
        column.justify, column.no_wrap = "right", True
    for difference in contrast.differences:
        verdict = ("better" if difference.is_better else "worse") if difference.is_clear else "may be chance"
        style = {"better": "green", "worse": "red"}.get(verdict, "dim")
        table.add_row(
            MEANINGS[difference.metric].title,
            str(difference),
            difference.format_interval(),
            _show(verdict, style=style),
        )
    sentence = (
        f"{contrast.name} alone is right on {contrast.won} of {contrast.videos} videos, {baseline} alone on"
        f" {contrast.lost}: p = {contrast.p:.3g} (McNemar, exact)"
    )
    return [table, _show(sentence)]


def _show(text: str, style: str = "") -> Text:
    """A text with names in it. Text: they may hold square brackets, which str would turn into markup."""
    return Text(make_printable(text), style=style)


def _write_title(text: str) -> str:
    """A name at the head of a column, likewise."""
    return escape(make_printable(text))
