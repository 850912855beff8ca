"""Windows with chosen scores."""

from clipserve import ScoredLabel, Window

NAMES = "ABC"


def make(*scores: tuple[float, ...], step: float = 1.0, length: float = 2.0, fps: int = 10) -> list[Window]:
    """A window for each tuple, which holds the scores of A, B and C."""
    return [
        Window(
            index=number,
            start_seconds=number * step,
            end_seconds=number * step + length,
            start_frame=round(number * step * fps),
            end_frame=round((number * step + length) * fps),
            labels=tuple(
                sorted(
                    (ScoredLabel(NAMES[k], k, score) for k, score in enumerate(row)), key=lambda s: (-s.score, s.index)
                )
            ),
        )
        for number, row in enumerate(scores)
    ]


def of(text: str, step: float = 1.0, length: float = 2.0) -> list[Window]:
    """A window for each letter, with the score 0.9 for its label; "." has none."""
    return make(
        *[tuple(0.9 if name == letter else 0.05 for name in NAMES) for letter in text], step=step, length=length
    )
