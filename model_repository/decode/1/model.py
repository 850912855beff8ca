"""The decode step: bytes of video files in, uint8 clips out.

Triton's side of it only: tensors, parameters and errors. What happens to a video is in clip_decode.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from clip_decode import DecodeError, Geometry, Limits, Sampling, decode_clips

REPORT = "REPORT"


class TritonPythonModel:
    """One instance of the decode step."""

    geometries: dict[str, Geometry]
    limits: Limits

    def initialize(self, args: dict[str, str]) -> None:
        """Read the clip geometries, one parameter each, and the limits from the config."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        self.geometries = {
            name: Geometry.from_config(json.loads(value)) for name, value in values.items() if name.startswith("CLIP_")
        }
        self.limits = Limits.from_config({name: value for name, value in values.items() if name not in self.geometries})

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request: its clips, or the reason there are none."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            return self._decode(request)
        except DecodeError as error:
            # Triton puts TritonError into its module only after this one is loaded.
            status = pb_utils.TritonError.UNAVAILABLE if error.retryable else pb_utils.TritonError.INVALID_ARG
            # The code in brackets is what a client goes by; the sentence is for people.
            failure = pb_utils.TritonError(f"[{error.code}] {error.message}", status)
            return pb_utils.InferenceResponse(error=failure)

    def _decode(self, request: Any) -> Any:
        wanted = set(request.requested_output_names())
        geometries = {name: geometry for name, geometry in self.geometries.items() if name in wanted}
        sampling = Sampling.from_parameters(read_parameters(request))
        videos = pb_utils.get_input_tensor_by_name(request, "VIDEO").as_numpy().ravel()
        decoded = [decode_clips(video, geometries, sampling, self.limits) for video in videos]
        tensors = [pb_utils.Tensor(name, np.stack([clips[name] for clips, _ in decoded])) for name in geometries]
        if REPORT in wanted:
            reports = np.array([[report.to_json()] for _, report in decoded], dtype=np.object_)
            tensors.append(pb_utils.Tensor(REPORT, reports))
        return pb_utils.InferenceResponse(tensors)


def read_parameters(request: Any) -> Mapping[str, object]:
    """The request's own parameters, without those Triton and its clients add for themselves."""
    parameters: dict[str, object] = json.loads(request.parameters() or "{}")
    return {name: value for name, value in parameters.items() if not name.startswith("triton_")}
