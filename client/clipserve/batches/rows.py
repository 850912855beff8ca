"""What became of one video among many: a prediction, or the error in its place."""

from dataclasses import dataclass

from clipserve.errors import ClipserveError
from clipserve.results import Prediction


@dataclass(frozen=True)
class Row:
    """One video of a source and its outcome: either `prediction` or `error` is there, never both.

    id, video and label can be written as UTF-8, whatever a file is called: names.py says how, and `read_name` gives the
    name for `open`.

    Attributes:
        id: of the entry: the column `id` of its source, or its path, address or position.
        video: path or address (without credentials) of the video, or "<bytes>".
        prediction: what the server answered; None for a failure.
        error: why there is no prediction; None for a success.
        label: the true label that the source states, or None.
        milliseconds: from sending the request to the answer, retries included.
    """

    id: str
    video: str
    prediction: Prediction | None = None
    error: ClipserveError | None = None
    label: str | None = None
    milliseconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.prediction is None) == (self.error is None):
            raise ValueError("a row holds a prediction or an error: exactly one of them")
