"""model.py of the plain ensemble's first step: the bytes of a video -> one float32 clip.

Lies in the repository with pixels.py beside it.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from pixels import read_with_torchcodec

from clipserve_export.specs import Geometry


class TritonPythonModel:
    """As many of these as there are cores, so one thread each."""

    def initialize(self, args: dict[str, str]) -> None:
        """Called once."""
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        self.geometry = Geometry(**json.loads(config["parameters"]["geometry"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One video a request."""
        responses = []
        for request in requests:
            video = pb_utils.get_input_tensor_by_name(request, "VIDEO").as_numpy()[0, 0]
            try:
                clip = read_with_torchcodec(video, self.geometry, threads=1).numpy()
            except Exception as error:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
            else:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("CLIP", clip)]))
        return responses
