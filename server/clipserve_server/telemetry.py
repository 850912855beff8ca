"""Libraries that report how they are used to their makers are told not to, before they are imported.

ONNX Runtime does from 1.29 on (to mobile.events.data.microsoft.com, with a session's model and hashes of its weights),
OpenVINO at every import; both are on unless switched off, and both leave files for it.
"""

import os
import sys


def switch_off() -> None:
    """Of ONNX Runtime by its variable, which children inherit; of OpenVINO by the lack of the package that reports."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # There is a file in the home folder and a command to opt out, but nothing for one process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # import says it cannot be found
