"""The backend directory that the embedded Triton reads.

The wheel has the Python backend only. A folder `onnxruntime/model.py` there is a Python-based backend: a model whose
config says `backend: "onnxruntime"` loads through it. So the configs that name the container's C++ backends are served
here unchanged, by stand-ins for them.
"""

import shutil
from pathlib import Path

from clipserve_server.wheel import TritonWheel

# Triton's name of the backend -> the module whose TritonPythonModel stands in for it.
STAND_INS = {
    "onnxruntime": "clipserve_server.onnxruntime_stand_in",
    "pytorch": "clipserve_server.libtorch_stand_in",
}


def lay_out_backends(folder: Path, wheel: TritonWheel) -> Path:
    """Fill `folder` with the Python backend and the stand-ins. Copies: Triton refuses links that lead out of it."""
    python = folder / "python"
    python.mkdir(parents=True)
    for path in wheel.python_backend:
        shutil.copy2(path, python)
    for name, module in STAND_INS.items():
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(f"from {module} import TritonPythonModel as TritonPythonModel\n")
    return folder
