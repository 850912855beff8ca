"""The GPUs of this machine: whether the installed packages can use them, and what a running server uses them for.

    python -m clipserve_server.gpu

names the GPUs and the packages, or exits with status 1 and says what to install.
"""

import importlib.util
import re
import sys
from collections.abc import Sequence

from tritonclient import grpc as triton_grpc
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_host.gpu_devices import available_gpus
from clipserve_server.errors import ServerStartError
from clipserve_server.packages import find_versions
from clipserve_server.startup import NO_PROXY

# Both install the folder onnxruntime.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
NVDEC = "PyNvVideoCodec"
# What the decode step logs of each NVDEC process that has started: NvdecProcess in decode_pool/nvdec.py.
_NVDEC_IN_USE = re.compile(r"NVDEC of GPU \S+: .*(ready|on demand)")


def find_conflict() -> str | None:
    """What to do where both packages of ONNX Runtime are installed; None where one of them is, or none."""
    if len(find_versions(RUNTIMES)) < len(RUNTIMES):
        return None
    return (
        f"{' and '.join(RUNTIMES)} are both installed, and each has overwritten files of the other:"
        f" pip uninstall -y {' '.join(RUNTIMES)}, then pip install 'clipserve[gpu]' for a GPU, or 'clipserve[server]'"
    )


def nvdec_gpus() -> int:
    """How many GPUs can decode videos with the packages that are installed."""
    return available_gpus() if importlib.util.find_spec(NVDEC) else 0


def describe_gpus() -> str:
    """The GPUs, and the packages that use them. Raises ServerStartError where these cannot use a GPU."""
    import onnxruntime
    import torch

    if conflict := find_conflict():
        raise ServerStartError(conflict)
    if torch.version.cuda is None:
        raise ServerStartError(
            f"torch {torch.__version__} is a build without CUDA: pip uninstall -y torch, and install a build with it."
            " PyPI's torch for Linux is one; another index, as PIP_INDEX_URL or pip's config names it, may have others"
        )
    if not torch.cuda.is_available():
        raise ServerStartError(
            f"torch {torch.__version__} with CUDA {torch.version.cuda} finds no GPU: nvidia-smi shows whether the"
            " driver works, and for which CUDA it is; CUDA_VISIBLE_DEVICES may hide GPUs"
        )
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ServerStartError(f"onnxruntime {onnxruntime.__version__} has no CUDA: pip install 'clipserve[gpu]'")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    packages = find_versions(("torch", *RUNTIMES, NVDEC))
    return f"{', '.join(gpus)}; {', '.join(f'{name} {number}' for name, number in packages.items())}"


def read_placement(url: str, networks: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of the GPUs that run each network of the server at `url`; none: the CPU runs it."""
    with triton_grpc.InferenceServerClient(url, channel_args=NO_PROXY) as client:
        configs = {name: client.get_model_config(name).config for name in networks}
    return {
        name: tuple(
            sorted({gpu for g in config.instance_group if g.kind == pb.ModelInstanceGroup.KIND_GPU for gpu in g.gpus})
        )
        for name, config in configs.items()
    }


def describe_use(placement: dict[str, tuple[int, ...]], log: str) -> str | None:
    """What a server uses GPUs for, by its placement and Triton's log; None where it uses none."""
    on_gpus = {name: gpus for name, gpus in placement.items() if gpus}
    uses = []
    for gpus in dict.fromkeys(on_gpus.values()):
        names = ", ".join(name.removesuffix("_net") for name, its in on_gpus.items() if its == gpus)
        uses.append(f"{names} on {', '.join(map(str, gpus))}")
    if _NVDEC_IN_USE.search(log):
        uses.append("NVDEC decodes beside the CPU")
    elif uses:
        uses.append("the CPU decodes")
    return "; ".join(uses) or None


def main() -> int:
    """Run the command line above."""
    try:
        print(describe_gpus())  # noqa: T201
    except ServerStartError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
