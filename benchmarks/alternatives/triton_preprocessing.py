"""model.py of the plain ensemble's first step: the bytes of a video -> one float32 clip.

triton_services.py copies it into a model repository, with preprocessing.py beside it.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from preprocessing import read_with_torchcodec

from clipserve_export.specs import Geometry


class TritonPythonModel:
    """One thread each: there are as many instances as cores."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the geometry from the config."""
        torch.set_num_threads(1)
        config = json.loads(args["model_config"])
        self.geometry = Geometry(**json.loads(config["parameters"]["geometry"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Decode one video a request."""
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
