"""What all Python models of Triton need here: parameters, errors, and responses that fit into shared memory."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from clip_decode.errors import DecodeError, Failed

SHARED_MEMORY = Path("/dev/shm")
# With this much free there, no other process can take the room before the response is sent.
AMPLE_BYTES, AMPLE_TIMES = 64 * 2**20, 4
NO_SUCH_MODEL = "clipserve_no_such_model"


def read_config(args: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a model's config. args: what Triton gives to `initialize`."""
    parameters = json.loads(args["model_config"])["parameters"]
    return {name: value["string_value"] for name, value in parameters.items()}


def read_parameters(request: Any) -> Mapping[str, object]:
    """The request's parameters, without those that Triton and its clients add."""
    parameters: dict[str, object] = json.loads(request.parameters() or "{}")
    return {name: value for name, value in parameters.items() if not name.startswith("triton_")}


def as_triton_error(error: DecodeError) -> Any:
    """The error as Triton sends it.

    The status is UNAVAILABLE where a retry may help, INTERNAL where the server has a defect, else INVALID_ARGUMENT.
    """
    status = pb_utils.TritonError.UNAVAILABLE if error.retryable else pb_utils.TritonError.INVALID_ARG
    if isinstance(error, Failed):
        status = pb_utils.TritonError.INTERNAL
    # Clients read the code in brackets; the sentence is for people.
    return pb_utils.TritonError(f"[{error.code}] {error.message}", status)


def as_decode_error(error: Exception) -> DecodeError:
    """The error to respond with. The log gets the traceback of an error that is no DecodeError."""
    if isinstance(error, DecodeError):
        # Its traceback refers to the request, and so keeps shared memory in use as long as the error exists.
        return error.with_traceback(None)
    for line in "".join(traceback.format_exception(error)).splitlines():
        pb_utils.Logger.log_error(line)
    return Failed(f"answering met a defect of the server ({type(error).__name__}); its log has the traceback")


def store(tensors: Sequence[Any], size: int) -> bool:
    """Put a response's tensors, of `size` bytes, into shared memory before it is sent. False where there is no room.

    Triton 2.51 loses a response that does not fit when it is sent: it counts as sent, a second one is refused, and the
    client waits until its deadline. A request to another model stores its tensors in the same way and reports the
    error, and stored tensors are not stored again. So this asks a model that does not exist whenever room may be short.
    """
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free > AMPLE_BYTES + AMPLE_TIMES * size:
        return True
    request = pb_utils.InferenceRequest(
        model_name=NO_SUCH_MODEL, requested_output_names=["REPORT"], inputs=list(tensors)
    )
    return NO_SUCH_MODEL in request.exec().error().message()
