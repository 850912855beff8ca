"""One video of a source, with its id and, where the source has one, its true label."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from clipserve.errors import ClipserveError
from clipserve.names import spell_name
from clipserve.results import Prediction, Row
from clipserve.sources.videos import VideoSource, name_video

Entries: TypeAlias = Iterator["Entry"]


@dataclass(frozen=True)
class Entry:
    """One video of a source. Its row has id and label escaped as names.py says.

    Attributes:
        id: column `id` of the source, or the path, the address, or the position from 0 on.
        video: the video, or an error in its place, so that a bad line does not stop the run.
        label: the true label, or None.
    """

    id: str
    video: VideoSource | ClipserveError = field(repr=False)
    label: str | None = None

    @property
    def spelt_id(self) -> str:
        """The id of its row."""
        return spell_name(self.id)

    @property
    def spelt_label(self) -> str | None:
        """The label of its row."""
        return None if self.label is None else spell_name(self.label)

    @property
    def name(self) -> str:
        """What rows and messages call the video."""
        if isinstance(self.video, ClipserveError):
            return self.video.video or self.spelt_id
        return name_video(self.video)

    def answer(self, prediction: Prediction, milliseconds: float) -> Row:
        """The row of a success."""
        return Row(self.spelt_id, self.name, prediction=prediction, label=self.spelt_label, milliseconds=milliseconds)

    def fail(self, error: ClipserveError, milliseconds: float = 0.0) -> Row:
        """The row of a failure. It may be kept for long, so it keeps nothing but the error alive."""
        forget_frames(error)
        return Row(self.spelt_id, self.name, error=error, label=self.spelt_label, milliseconds=milliseconds)


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and its causes: their frames hold whole videos."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
