"""A table for people: on a terminal with rich, in a notebook as HTML."""

from html import escape
from typing import TYPE_CHECKING

from clipserve.errors import InvalidRequest
from clipserve.names import make_printable
from clipserve.results import Row
from clipserve.runs.progress import in_notebook

if TYPE_CHECKING:
    from rich.table import Table as Drawing

    from clipserve.tables.table import Table

SHOWN_LABELS = 3
TRUNCATED = " (truncated)"  # beside the label of a video that is damaged or cut off
BAR_CELLS = 10
_CELLS = " ▏▎▍▌▋▊▉█"


def show_table(table: "Table", rows: int) -> None:
    """Display in a notebook, print anywhere else."""
    if in_notebook():
        from IPython.display import HTML, display

        display(HTML(write_html(table, rows)))  # type: ignore[no-untyped-call]
        return
    try:
        from rich.console import Console
    except ModuleNotFoundError as missing:
        raise InvalidRequest(f"a table is drawn by {missing.name}: pip install 'clipserve[cli]'") from missing
    console = Console()
    console.print(draw_table(table, rows))
    console.print(_write_caption(table, rows), highlight=False)


def draw_table(table: "Table", rows: int) -> "Drawing":
    """The first rows as a table of rich."""
    from rich.table import Table as Drawing
    from rich.text import Text

    drawing = Drawing()
    labelled = any(row.label is not None for row in table.rows[:rows])
    drawing.add_column("video", overflow="fold")
    if labelled:
        drawing.add_column("label")
    for title, justify in (("predicted", "left"), ("score", "right"), ("", "left"), ("then", "left")):
        drawing.add_column(title, justify=justify)  # type: ignore[arg-type]
    # Text: names and labels may hold square brackets, which str would turn into markup.
    for row in table.rows[:rows]:
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
        drawing.add_row(*cells)
    return drawing


def write_html(table: "Table", rows: int) -> str:
    """The first rows as a table of HTML; everything that is not ours is escaped."""
    labelled = any(row.label is not None for row in table.rows[:rows])
    titles = ["video", *(["label"] if labelled else []), "predicted", "score", "then"]
    head = "".join(f'<th style="text-align:left">{title}</th>' for title in titles)
    body = "".join(_write_row(row, labelled) for row in table.rows[:rows])
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{escape(_write_caption(table, rows))}</p>"
    )


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
    """The text as HTML, in which no character turns the direction of what follows."""
    return escape(make_printable(text))


def _write_caption(table: "Table", rows: int) -> str:
    left = len(table) - rows
    return f"{table.summary}" + (f"; {left} more rows are not shown" if left > 0 else "")


def _draw_bar(score: float) -> str:
    eighths = round(min(max(score, 0), 1) * BAR_CELLS * 8)
    full, part = divmod(eighths, 8)
    return "█" * full + (_CELLS[part] if part else "")
