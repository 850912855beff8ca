"""The pages, and the blocks of code in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Pages whose blocks run, and whose names are held against the code.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Where links and paths must lead somewhere as well.
OTHERS = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/README.md",
    "deploy/helm/clipserve/README.md",
    "benchmarks/README.md",
)
TEXTS = [*PAGES, *(ROOT / name for name in OTHERS)]

# A fence, and the comment right before it, if any: <!-- not run: needs a GPU -->
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its path from the root of the repository.
        line: of the opening fence, from 1.
        language: as the fence says.
        text: without the fences.
        reason: why it is not run; None: it is.
        output: what it prints, where a block of `text` follows that says so.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines after a prompt, without comments."""
        prompted = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        return [re.sub(r"\s+#\s.*", "", line).strip() for line in prompted]


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    blocks = []
    for number, match in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        follows = after and after["language"] == "text" and not text[match.end() : after.start()].strip()
        fence = match.start() if match["reason"] is None else text.index("```", match.start())
        blocks.append(
            Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, fence) + 1,
                language=match["language"],
                text=match["text"],
                reason=match["reason"],
                output=after["text"] if after and follows else None,
            )
        )
    return blocks


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def blocks_of(language: str, *, run: bool) -> list[Block]:
    """Those that are run, or those that are not."""
    return [block for block in BLOCKS if block.language == language and (block.reason is None) == run]
