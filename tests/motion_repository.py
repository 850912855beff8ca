"""How tests serve `motion`, the small model, and ask it without a client of ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.configs import parse_config, print_config
from clipserve_server.triton import Triton

# Any that are free, so that tests and servers can run side by side.
ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
# Videos of seeds that training never saw; see tests/end_to_end/test_motion_accuracy.py.
UNSEEN_SEED = 7_000_100


class KilledTriton(Triton):
    """A Triton that is killed at the end of its block. Tests of how a server ends use Triton itself.

    Triton's own exit takes 2.2 s and more: python_backend waits a second for a sign of life of each process, and the
    server looks once a second whether its models are unloaded.
    """

    def __exit__(self, *_: object) -> None:
        if self.find_failure():
            self.stop()
        else:
            self._kill()
            self._end(keep_log=False)


def change_config(repository: Path, model: str, change: Callable[[pb.ModelConfig], object]) -> pb.ModelConfig:
    """Change the config of a model. Returns it."""
    path = repository / model / "config.pbtxt"
    config = parse_config(path.read_text())
    change(config)
    path.write_text(print_config(config))
    return config


def set_parameters(repository: Path, model: str, parameters: dict[str, str]) -> None:
    """Set parameters in the config of a model."""

    def change(config: pb.ModelConfig) -> None:
        for name, value in parameters.items():
            config.parameters[name].string_value = value

    change_config(repository, model, change)


def video_input(*videos: bytes) -> triton_grpc.InferInput:
    """The input of a model, or of the decode step."""
    tensor = triton_grpc.InferInput("VIDEO", [len(videos), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[video] for video in videos], dtype=np.object_))
    return tensor


def clip_input(clips: np.ndarray) -> triton_grpc.InferInput:  # type: ignore[type-arg]
    """The input of a network: uint8 [N, V, T, S, S, 3]."""
    tensor = triton_grpc.InferInput("CLIP", clips.shape, "UINT8")
    tensor.set_data_from_numpy(clips)
    return tensor


def infer(client: triton_grpc.InferenceServerClient, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Scores and features of the network alone."""
    result = client.infer("motion_net", [clip_input(clip)])
    return result.as_numpy("SCORES"), result.as_numpy("FEATURES")
