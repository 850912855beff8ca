"""Networks that run on another kind of device than they were exported for: their answers are right, but slow.

An instance knows its device, and writes a warning into Triton's log. `clipserve serve` reads it there.
"""

import json
import re
from pathlib import Path

_MISFIT = re.compile(r"([\w.-]+ version \d+ was exported for a [CG]PU and runs on a [CG]PU, slowly: [^\"\n]*)")


def find_misfit(model_file: Path, device: str) -> str | None:
    """The warning for a file that runs on `device` ("cpu" or "gpu"). None if it fits, or export.json does not say.

    The layout of TorchScript is for one kind of device: with the right one, x3d_m takes half the time on a CPU, a third
    on an H100. ONNX files are the same for both, except in half precision: CPUs convert around each convolution.
    """
    try:
        record = json.loads(model_file.with_name("export.json").read_text())
        target, precision, layout = record["target"], record["precision"], record["layout"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if target == device or (layout is None and (device == "gpu" or precision == "fp32")):
        return None
    folder = model_file.parent
    return (
        f"{folder.parent.name} version {folder.name} was exported for a {target.upper()} and runs on a"
        f" {device.upper()}, slowly: clipserve export {folder.parent.name.removesuffix('_net')} --target {device}"
    )


def read_misfits(log: str) -> list[str]:
    """Each such warning in Triton's log, once."""
    return list(dict.fromkeys(_MISFIT.findall(log)))
