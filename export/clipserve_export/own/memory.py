"""How much memory a clip takes, measured in a process of its own that runs the file.

The same as for the published models: how much the peak grows from one clip to several (capacity.py).
"""

import math
import subprocess
import sys
from pathlib import Path

from clipserve_export.capacity import clip_bytes
from clipserve_export.clips import random_clips
from clipserve_export.errors import ParityError
from clipserve_export.formats import FORMATS, Format, FormatName
from clipserve_export.specs import Geometry

FEW, MANY = 3, 17
SMALL_BYTES = 400_000  # clips of fewer take next to nothing, so many are run
SECONDS = 600
RESET_PEAK = "5"  # for /proc/self/clear_refs


def measure_clip_megabytes(path: Path, form: Format, geometry: Geometry) -> int:
    """MiB for each clip, rounded up; 1 at least. Raises ParityError where the file cannot be run."""
    several = MANY if clip_bytes(geometry) <= SMALL_BYTES else FEW
    one, all_of_them = _measure_peaks(path, form, geometry, (1, several))
    return max(1, math.ceil((all_of_them - one) / (several - 1)))


def _measure_peaks(path: Path, form: Format, geometry: Geometry, counts: tuple[int, int]) -> list[float]:
    shape = (geometry.frames, geometry.stride, geometry.short_side, geometry.crop)
    command = [sys.executable, "-m", __name__, form.name, str(path), *map(str, (*shape, *counts))]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ParityError(f"what a clip takes could not be measured: {str(said).strip()[-300:]}") from error
    return [float(line) for line in process.stdout.split()]


def run_counts(form: FormatName, path: Path, geometry: Geometry, counts: tuple[int, ...]) -> list[float]:
    """The peak of this process, in MiB, while it runs so many clips."""
    run, peaks = FORMATS[form].load(path), []
    for count in counts:
        clips = random_clips(geometry, batch=1, views=count, seed=0).numpy()
        run(clips)  # the first run of a shape allocates what stays
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        run(clips)
        status = Path("/proc/self/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
    return peaks


if __name__ == "__main__":
    _, name, file, frames, stride, short_side, crop, *numbers = sys.argv
    shape = Geometry(frames=int(frames), stride=int(stride), short_side=int(short_side), crop=int(crop))
    for peak in run_counts(name, Path(file), shape, tuple(map(int, numbers))):  # type: ignore[arg-type]
        sys.stdout.write(f"{peak}\n")
