"""A machine with NVDEC, as far as the decode step and the benchmarks see it: FFmpeg decodes in place of the GPU."""

import os
import subprocess
from pathlib import Path

FAKE_GPU = Path(__file__).parent / "decode" / "fake_gpu"
NVIDIA_SMI = """\
#!/bin/sh
case "$*" in
  *--loop-ms=*) while true; do echo "60, 30, 3000"; sleep 0.2; done ;;
  *) echo "GPU 0: a substitute" ;;
esac
"""


def compile_driver(folder: Path) -> Path:
    """A libcuda.so.1 whose memory is the host's."""
    library = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, FAKE_GPU / "libcuda.c"], check=True)
    return library


def pretend_gpu(folder: Path) -> dict[str, str]:
    """The environment for a server with NVDEC. `folder` gets the driver."""
    compile_driver(folder)
    for name in ("libnvcuvid.so.1", "libnvidia-encode.so.1"):
        subprocess.run(["gcc", "-shared", "-x", "c", "-o", folder / name, "/dev/null"], check=True)
    command = folder / "nvidia-smi"
    command.write_text(NVIDIA_SMI)
    command.chmod(0o755)
    before = {"LD_LIBRARY_PATH": folder, "PYTHONPATH": FAKE_GPU, "PATH": folder}
    return {name: os.pathsep.join(filter(None, (str(path), os.environ.get(name)))) for name, path in before.items()}
