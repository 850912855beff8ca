"""Switches off the telemetry of libraries, before they are imported.

ONNX Runtime reports from 1.29 on (to mobile.events.data.microsoft.com: a session's model, and hashes of its weights),
OpenVINO at every import. Both report unless they are told not to, and both leave files in the home folder.
"""

import os
import sys


def switch_off() -> None:
    """ONNX Runtime has a variable for it, which children inherit. OpenVINO gets no package that could report."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # OpenVINO has a file in the home folder and a command to opt out, but nothing for one process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # import says it cannot be found
