"""What to look at in each video, as options of a command."""

from dataclasses import dataclass
from typing import Annotated

import typer

from clipserve import defaults
from clipserve.question import Options, Quality, Sampling

ParallelOption = Annotated[int, typer.Option(min=1, help="How many videos to send at once.")]
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCES...",
        help="Video files, patterns, folders, http(s) addresses, - for a video from standard input, and lists: CSV with"
        " the columns id, path, label, or JSON lines with these keys.",
    ),
]


@dataclass(frozen=True)
class Asking:
    """Options of every command that has videos classified; see option_groups.py and `clipserve.question.Question`."""

    sampling: Annotated[
        Sampling, typer.Option(help="Frames spread over the whole video, or clips of the model's own length.")
    ] = defaults.SAMPLING
    views: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --sampling clip: how many clips, spread over the video.", show_default="1"
        ),
    ] = None
    crops: Annotated[
        int | None,
        typer.Option(
            metavar="1|3", help="Squares cut from each frame: the middle, or three side by side.", show_default="1"
        ),
    ] = None
    start: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Leave out what comes before this, counted from the first frame.",
            show_default=False,
        ),
    ] = None
    end: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Leave out what comes after this, counted likewise.", show_default=False),
    ] = None
    quality: Annotated[
        Quality, typer.Option(help="How frames are scaled: fast, or as PyTorchVideo does, to the rounding.")
    ] = defaults.QUALITY

    def options(self) -> Options:
        """As keyword arguments of `classify`, `classify_many` and `embed`."""
        return {
            "sampling": self.sampling,
            "views": self.views,
            "crops": self.crops,
            "start": self.start,
            "end": self.end,
            "quality": self.quality,
        }
