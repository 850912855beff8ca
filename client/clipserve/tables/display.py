"""Rows for people: a table of rich on a terminal, a table of HTML in a notebook."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from clipserve.extras import load
from clipserve.names import make_printable
from clipserve.results import Row
from clipserve.runs.progress import in_notebook

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_LABELS = 3
TRUNCATED = " (truncated)"  # beside the label of a video that is damaged or cut off
BAR_CELLS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def show_rows(rows: Sequence[Row], caption: str) -> None:
    """Display the rows in a notebook; print them anywhere else."""
    if in_notebook():
        display = load("IPython.display", "cli")
        display.display(display.HTML(write_html(rows, caption)))
        return
    console = load("rich.console", "cli").Console()
    console.print(draw_table(rows))
    console.print(caption, highlight=False)


def draw_table(rows: Sequence[Row]) -> "Table":
    """The rows as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    labelled = _have_labels(rows)
    table.add_column("video", overflow="fold")
    if labelled:
        table.add_column("label")
    for title, justify in (("predicted", "left"), ("score", "right"), ("", "left"), ("then", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        # Text, because names and labels may contain square brackets, which are markup in a str.
        cells = [Text(make_printable(text)) for text in (row.video, *([row.label or ""] if labelled else []))]
        if row.prediction is not None:
            top, *others = row.prediction.labels[:SHOWN_LABELS]
            cells += [
                Text(make_printable(top.label), style="bold").append(
                    TRUNCATED if row.prediction.truncated else "", style="not bold yellow"
                ),
                Text(f"{top.score:.2f}"),
                Text(_draw_bar(top.score), style="green"),
                Text(make_printable(", ".join(map(str, others))), style="dim"),
            ]
        elif row.error is not None:
            cells += [Text(row.error.code, style="red"), Text(), Text(), Text()]
        table.add_row(*cells)
    return table


def write_html(rows: Sequence[Row], caption: str) -> str:
    """The rows as a table of HTML. Every text in it is escaped."""
    labelled = _have_labels(rows)
    titles = ["video", *(["label"] if labelled else []), "predicted", "score", "then"]
    head = "".join(f'<th style="text-align:left">{title}</th>' for title in titles)
    body = "".join(_write_row(row, labelled) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(caption)}</p>"


def _have_labels(rows: Sequence[Row]) -> bool:
    return any(row.label is not None for row in rows)


def _write_row(row: Row, labelled: bool) -> str:
    cells = [_quote(row.video), *([_quote(row.label or "")] if labelled else [])]
    if row.prediction is not None:
        top, *others = row.prediction.labels[:SHOWN_LABELS]
        bar = (
            f'<div style="background:#9bd3ae;width:{100 * min(top.score, 1):.0f}px;height:0.8em;'
            f'display:inline-block;margin-right:6px"></div>{top.score:.2f}'
        )
        remark = f'<span style="color:#8a6100">{TRUNCATED}</span>' if row.prediction.truncated else ""
        cells += [f"<b>{_quote(top.label)}</b>{remark}", bar, _quote(", ".join(map(str, others)))]
    elif row.error is not None:
        error = f'<span style="color:#b3261e" title="{_quote(str(row.error))}">{escape(row.error.code)}</span>'
        cells += [error, "", ""]
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _quote(text: str) -> str:
    """The text as HTML, without the characters that change the direction of the text after them."""
    return escape(make_printable(text))


def _draw_bar(score: float) -> str:
    eighths = round(min(max(score, 0), 1) * BAR_CELLS * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[part] if part else "")
