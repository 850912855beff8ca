"""The server under test, as far as a load test asks it anything itself."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import Tls, VideoClassifier
from clipserve.connection import choose_channel_options
from loadtest.errors import LoadTestError

SECONDS = 30.0  # for one small question
DECODER = "decode"


@dataclass(frozen=True)
class Steps:
    """What an ensemble is made of.

    Attributes:
        clip: the decode step's output that the network reads.
        network: the model that reads it.
        network_input: by this name.
    """

    clip: str
    network: str
    network_input: str


@dataclass(frozen=True)
class Server:
    """A running server and one model of it.

    Attributes:
        url: host:port of gRPC.
        metrics_url: http address of its metrics; None: not read.
        headers: sent with every call; the admin key is one.
    """

    url: str
    model: str
    metrics_url: str | None = None
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def client(self) -> Any:
        """tritonclient's, for as long as the process lasts."""
        return triton_grpc.InferenceServerClient(
            self.url, creds=self.tls.credentials() if self.tls else None, channel_args=choose_channel_options(self.url)
        )

    def open_classifier(self) -> VideoClassifier:
        """The client that users have."""
        return VideoClassifier(self.model, self.url, tls=self.tls, headers=self.headers)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The ensemble's. Raises LoadTestError where nobody answers, and where the model is not there."""
        return self._config(self.model)

    def _config(self, name: str) -> dict[str, Any]:
        try:
            answer = self.client.get_model_config(
                name, headers=dict(self.headers), as_json=True, client_timeout=SECONDS
            )
        except InferenceServerException as error:
            raise LoadTestError(explain(error, self.url, name)) from error
        return dict(answer["config"])

    @cached_property
    def steps(self) -> Steps:
        """Of the ensemble. Raises LoadTestError where it is none of clipserve's."""
        steps = self.config.get("ensemble_scheduling", {}).get("step", [])
        if [step["model_name"] for step in steps[:1]] != [DECODER] or len(steps) != 2:
            raise LoadTestError(f"{self.model} is no ensemble of a decode step and a network; name a public model")
        (network_input, tensor), *_ = steps[1]["input_map"].items()
        (clip,) = [output for output, made in steps[0]["output_map"].items() if made == tensor]
        return Steps(clip, steps[1]["model_name"], network_input)

    def decode(self, video: Path) -> npt.NDArray[np.uint8]:
        """The clips that the server's own decode step makes of a video: uint8 [V,T,S,S,3]. Raises LoadTestError."""
        sent = triton_grpc.InferInput("VIDEO", [1, 1], "BYTES")
        sent.set_data_from_numpy(np.array([[video.read_bytes()]], dtype=object))
        wanted = [triton_grpc.InferRequestedOutput(self.steps.clip)]
        try:
            answer = self.client.infer(
                DECODER, [sent], outputs=wanted, headers=dict(self.headers), client_timeout=SECONDS
            )
        except InferenceServerException as error:
            raise LoadTestError(f"{video} cannot be decoded: {error.message()}") from error
        clips: npt.NDArray[np.uint8] = answer.as_numpy(self.steps.clip)[0]
        return clips

    @contextmanager
    def decoder_alone(self) -> Iterator[str]:
        """The name of an ensemble that only decodes, loaded for as long as the block lasts.

        perf_analyzer asks for all outputs of a model; of `decode` that would be the clips of every network.

        Raises:
            LoadTestError: the server lets no model be loaded.
        """
        name = f"{self.model}_decode_alone"
        headers = dict(self.headers)
        try:
            # A file is what tells Triton not to look for the model in its repository; an ensemble reads none.
            self.client.load_model(
                name,
                headers=headers,
                config=json.dumps(self._decoder_config(name)),
                files={"file:1/made_by_loadtest": b"-"},
                client_timeout=SECONDS,
            )
        except InferenceServerException as error:
            raise LoadTestError(
                "decode alone is measured through a model that is loaded for it, which this server refuses:"
                f" {error.message()}. It needs --model-control-mode=explicit, and its admin key, if it has one"
                " (--key-file); or leave `decode` out of --through"
            ) from error
        try:
            yield name
        finally:
            self._unload(name)

    def _decoder_config(self, name: str) -> dict[str, Any]:
        step = self.config["ensemble_scheduling"]["step"][0]
        tensors = step["output_map"]
        decoder = self._config(DECODER)
        outputs = [
            {**output, "name": tensors[output["name"]]} for output in decoder["output"] if output["name"] in tensors
        ]
        kept: dict[str, Any] = {
            key: self.config[key] for key in ("platform", "max_batch_size", "input") if key in self.config
        }
        return {"name": name, **kept, "output": outputs, "ensemble_scheduling": {"step": [step]}}

    def _unload(self, name: str) -> None:
        try:
            self.client.unload_model(name, headers=dict(self.headers), client_timeout=SECONDS)
        except InferenceServerException:
            return  # the server is gone, and the model with it


def explain(error: InferenceServerException, url: str, model: str) -> str:
    """What a failed question means, in a sentence."""
    status = str(error.status())
    if status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED")) and "restricted" not in str(error.message()):
        return f"nobody answers at {url} ({error.message()}); --url is host:port of the server's gRPC port"
    if status.endswith("NOT_FOUND"):
        return f"the server at {url} has no model {model!r}; --model names one that is exported and loaded"
    return f"the server at {url} does not tell about {model!r}: {error.message()}; is a --header or --key-file missing?"
