"""Programs: a network made ready to run in one precision, layout and runtime."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.gpu.plan import FILES, Engine
from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import served_network
from clipserve_export.network import ActionNetwork
from clipserve_export.precision import in_precision
from clipserve_export.specs import ModelSpec
from clipserve_export.tuning import Contiguous, lay_out, tune
from clipserve_export.weights import load_weights

LARGEST_BATCH = 32
GRAPH_WARM_UPS = 4  # TorchScript profiles one run, optimises in the next, and may do so again


class Program(Protocol):
    """Runs uint8 clips [N, 1, T, S, S, 3] on the device; returns SCORES [N, K] and FEATURES [N, D] there."""

    def __call__(self, clip: Tensor) -> tuple[Tensor, Tensor]: ...


class Factory(Protocol):
    """Makes the programs of one model."""

    def make(self, engine: Engine) -> Program:
        """The program. Raises whatever its tools raise."""


class ProgramFactory:
    """Makes the programs of one model on one device."""

    def __init__(self, spec: ModelSpec, *, weights: str, device: torch.device) -> None:
        self.spec = spec
        self.device = device
        self._programs: dict[tuple[str, str, str], Program] = {}
        self._network = served_network(spec, load_weights(spec, weights).state)

    def make(self, engine: Engine) -> Program:
        """See Factory."""
        # A program and its CUDA graph share the program: compiling takes a minute.
        key = (engine.program, engine.precision, engine.layout)
        if key not in self._programs:
            self._programs[key] = self._make_anew(engine)
        return CudaGraph(self._programs[key]) if engine.graphed else self._programs[key]

    def _make_anew(self, engine: Engine) -> Program:
        if engine.program in FILES:
            return self._open_file(engine)
        network = self._shape(engine)
        if engine.program == "torchscript":
            # A traced convolution stores whether it may use TF32. What ran before has set torch's global option.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=engine.precision != "fp32"):
                return self._trace(network)
        if engine.program.startswith("compile"):
            example = random_clips(self.spec.geometry, batch=2, views=1, seed=0).to(self.device)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                return Compiled(network, example, thorough=engine.program == "compile-max")
        return network

    def _shape(self, engine: Engine) -> ActionNetwork:
        if engine.program == "baseline":
            return Contiguous(copy.deepcopy(self._network)).eval().to(self.device)
        numbers: Any = "fp32" if engine.precision == "tf32" else engine.precision
        network = lay_out(tune(in_precision(self._network, numbers)), "gpu" if engine.layout == "contiguous" else "cpu")
        return network.to(self.device)

    def _trace(self, network: ActionNetwork) -> Program:
        example = random_clips(self.spec.geometry, batch=2, views=2, seed=0).to(self.device)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced: Program = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
        return traced

    def _open_file(self, engine: Engine) -> Program:
        import onnxruntime

        from clipserve_export.formats import write_onnx
        from clipserve_server.backends.onnxruntime_gpu import BoundSession

        number: Any = "fp16" if engine.precision == "fp16" else "fp32"
        index = self.device.index or 0
        tf32 = {"device_id": index, "use_tf32": int(engine.precision == "tf32")}
        providers: list[Any] = [("CUDAExecutionProvider", tf32)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            write_onnx(in_precision(self._network, number), self.spec.geometry, path)
            if engine.program == "onnxruntime-tensorrt":
                geometry = self.spec.geometry
                shape = f"1x{geometry.frames}x{geometry.crop}x{geometry.crop}x3"
                providers.insert(
                    0,
                    (
                        "TensorrtExecutionProvider",
                        {
                            "device_id": index,
                            "trt_fp16_enable": engine.precision == "fp16",
                            # TensorRT optimises for a range of shapes, and most for one of them.
                            "trt_profile_min_shapes": f"CLIP:1x{shape}",
                            "trt_profile_opt_shapes": f"CLIP:8x{shape}",
                            "trt_profile_max_shapes": f"CLIP:{LARGEST_BATCH}x{shape}",
                        },
                    ),
                )
            session = onnxruntime.InferenceSession(path, providers=providers)
        on_device = BoundSession(session, ["SCORES", "FEATURES"], self.device)

        def run(clip: Tensor) -> tuple[Tensor, Tensor]:
            scores, features = on_device.run({"CLIP": clip})
            return scores, features

        return run


class CudaGraph:
    """A CUDA graph: the kernels of a program, recorded for a batch and replayed as one.

    Another batch is recorded anew. The next run overwrites the answer of the last.
    """

    def __init__(self, program: Any) -> None:
        self._program = program
        self._graph: torch.cuda.CUDAGraph | None = None
        self._clip: Tensor | None = None
        self._answer: tuple[Tensor, Tensor] | None = None

    def __call__(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """See Program."""
        if self._clip is None or self._clip.shape != clip.shape:
            self._record(clip)
        assert self._clip is not None
        assert self._graph is not None
        assert self._answer is not None
        self._clip.copy_(clip)
        self._graph.replay()
        return self._answer

    def release(self) -> None:
        """Free the memory of the recording."""
        self._graph = self._clip = self._answer = None

    def _record(self, clip: Tensor) -> None:
        self.release()
        self._clip = clip.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(GRAPH_WARM_UPS):
                self._program(self._clip)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        # What compilers needed is not what a recording holds.
        torch.cuda.reset_peak_memory_stats()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._answer = self._program(self._clip)


class Compiled:
    """torch.compile, with one program for a single clip and one for all larger batches."""

    def __init__(self, network: ActionNetwork, example: Tensor, *, thorough: bool) -> None:
        # Without the export, PyTorchVideo's code breaks into dozens of graphs, each compiled anew for each batch.
        exported = torch.export.export(
            network, (example,), dynamic_shapes={"clip": {0: torch.export.Dim.DYNAMIC}}, strict=False
        )
        # All engines' programs count as versions of one function, and torch gives up after eight.
        torch._dynamo.config.recompile_limit = 64
        self._run: Any = torch.compile(exported.module(), mode="max-autotune-no-cudagraphs" if thorough else None)

    def __call__(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """See Program."""
        if len(clip) > 1:
            torch._dynamo.maybe_mark_dynamic(clip, 0)
        scores, features = self._run(clip)
        return scores, features


def find_obstacle(engine: Engine, device: torch.device) -> str | None:
    """The reason why an engine cannot run on this machine; None if it can."""
    if engine.graphed and device.type != "cuda":
        return "CUDA graphs need a GPU"
    if engine.program in FILES:
        return _find_file_obstacle(engine)
    if engine.program.startswith("compile") and device.type == "cuda" and not importlib.util.find_spec("triton"):
        return "torch.compile needs the package triton on a GPU"
    return None


def _find_file_obstacle(engine: Engine) -> str | None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if not importlib.util.find_spec(package):
            return f"the package {package} is not installed"
    import onnxruntime

    providers = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
    provider = providers[engine.program]
    if provider not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} is installed without {provider}; onnxruntime-gpu has it"
    if engine.precision == "bf16":
        return "opset 20, which the files are written in, has no convolution in bfloat16"
    return None


@contextmanager
def conditions(engine: Engine) -> Iterator[None]:
    """Set torch's global options for an engine: TF32, cuDNN's search, no gradients."""
    tf32 = engine.precision != "fp32"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = engine.searches
        yield
