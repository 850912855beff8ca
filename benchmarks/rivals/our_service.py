"""clipserve: the embedded Triton, called by its own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipserve import VideoClassifier
from clipserve_server.triton import Triton
from rivals.lineup import Classify, Scores, Setting
from rivals.networks import Ground


@contextmanager
def open_service(ground: Ground, setting: Setting) -> Iterator[Classify]:
    """precision: as of `clipserve serve --cpu-precision`."""
    with (
        Triton(
            Path(ground.repository),
            models=[ground.model],
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            cpu_precision=setting["precision"],
        ) as triton,
        VideoClassifier(ground.model, triton.grpc_url, timeout_seconds=300) as classifier,
    ):

        def classify(path: str) -> Scores:
            return {label.index: label.score for label in classifier.classify(path)}

        yield classify
