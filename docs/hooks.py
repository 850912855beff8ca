"""What MkDocs does to the pages: it draws the diagrams, so that no browser fetches a program for them."""

import re
from typing import Any

from mermaidx import Diagram

DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    return DIAGRAM.sub(lambda found: draw(found[1]), markdown)


def draw(diagram: str) -> str:
    """As SVG, in one line: a blank one would end the HTML. White behind it, on dark pages too."""
    return f'<div style="background: white">{" ".join(Diagram(diagram).svg().split())}</div>'
