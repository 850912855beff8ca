"""How much memory a clip takes, measured in a process of its own that runs the file.

As for the published models (capacity.py): how much the peak grows with the clips of a run.
"""

import math
import subprocess
import sys
from pathlib import Path

from clipserve_export.capacity import clip_bytes
from clipserve_export.errors import ParityError
from clipserve_export.formats import Format
from clipserve_export.specs import Geometry

PROGRAM = f"{__package__}.memory_program"
FEW, MANY = 3, 17
SMALL_BYTES = 400_000  # clips of fewer take next to nothing, so many are run
SECONDS = 600


def measure_clip_megabytes(path: Path, form: Format, geometry: Geometry) -> int:
    """MiB for each clip, rounded up; 1 at least. Raises ParityError where the file cannot be run."""
    several = MANY if clip_bytes(geometry) <= SMALL_BYTES else FEW
    numbers = map(str, (geometry.frames, geometry.crop, 1, several))
    command = [sys.executable, "-m", PROGRAM, form.name, str(path), *numbers]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        raise ParityError(f"what a clip takes could not be measured: {said[-300:]}") from error
    loaded, one, all_of_them = map(float, process.stdout.split())
    # What a run takes whatever its clips is shared by few of them in one measurement, and by none in the other.
    return max(1, math.ceil((all_of_them - one) / (several - 1)), math.ceil((all_of_them - loaded) / several))
