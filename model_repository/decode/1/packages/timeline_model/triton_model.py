"""The class that Triton calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from decode_model.in_flight import VARIABLE as IN_FLIGHT_VARIABLE
from decode_model.in_flight import InFlight
from decode_model.triton import read_config

from .config import TimelineConfig
from .metrics import TimelineMetrics
from .service import TimelineService

# The folder of all models: this file is decode/1/packages/timeline_model/triton_model.py in it.
REPOSITORY = Path(__file__).parents[4]


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config. Processes start with the videos."""
        config = TimelineConfig.from_parameters(read_config(args), os.environ)
        in_flight = InFlight(os.environ.get(IN_FLIGHT_VARIABLE, ""))
        metrics = TimelineMetrics(pb_utils.MetricFamily, config.settings.max_timelines)
        self.service = TimelineService(config, REPOSITORY, metrics, in_flight)

    def execute(self, requests: Sequence[Any]) -> None:
        """Start a timeline for each request. Threads send the responses."""
        for request in requests:
            self.service.start(request)

    def finalize(self) -> None:
        """End the timelines that run."""
        self.service.close()
