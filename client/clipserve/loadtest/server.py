"""The server under test: its models, and the requests that the load test itself sends."""

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
from clipserve.connection import check_headers, choose_channel_options
from clipserve.loadtest.load_levels import LoadTestError

TIMEOUT_SECONDS = 30.0
DECODER = "decode"


@dataclass(frozen=True)
class Steps:
    """The steps of an ensemble.

    Attributes:
        clip: the output of the decode step that the network reads.
        network: the model that reads it.
        network_input: the name of the network's input.
    """

    clip: str
    network: str
    network_input: str


@dataclass(frozen=True)
class Server:
    """A running server and one model of it.

    Attributes:
        url: host:port of its gRPC port.
        metrics_url: HTTP address of its metrics; None: they are not read.
        headers: sent with every call, such as the admin key, by name in lower case.

    Raises InvalidRequest for headers that cannot be sent.
    """

    url: str
    model: str
    metrics_url: str | None = None
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", check_headers("headers", self.headers))

    @cached_property
    def client(self) -> Any:
        """A client of tritonclient, kept for the whole process."""
        return triton_grpc.InferenceServerClient(
            self.url, creds=self.tls.credentials() if self.tls else None, channel_args=choose_channel_options(self.url)
        )

    def open_classifier(self) -> VideoClassifier:
        """Open clipserve's own client."""
        return VideoClassifier(self.model, self.url, tls=self.tls, headers=self.headers)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the ensemble. Raises LoadTestError: no server answers, or it does not have the model."""
        return self._config(self.model)

    def _config(self, name: str) -> dict[str, Any]:
        try:
            answer = self.client.get_model_config(
                name, headers=dict(self.headers), as_json=True, client_timeout=TIMEOUT_SECONDS
            )
        except InferenceServerException as error:
            raise LoadTestError(describe_error(error, self.url, name)) from error
        return dict(answer["config"])

    @cached_property
    def steps(self) -> Steps:
        """The steps of the ensemble. Raises LoadTestError: the model is not an ensemble of clipserve."""
        steps = self.config.get("ensemble_scheduling", {}).get("step", [])
        if [step["model_name"] for step in steps[:1]] != [DECODER] or len(steps) != 2:
            raise LoadTestError(
                f"{self.model} is not an ensemble of a decode step and a network; --model takes a public model"
            )
        (network_input, tensor), *_ = steps[1]["input_map"].items()
        (clip,) = [output for output, made in steps[0]["output_map"].items() if made == tensor]
        return Steps(clip, steps[1]["model_name"], network_input)

    def decode(self, video: Path) -> npt.NDArray[np.uint8]:
        """Decode a video with the server's decode step: uint8 [V,T,S,S,3]. Raises LoadTestError."""
        sent = triton_grpc.InferInput("VIDEO", [1, 1], "BYTES")
        sent.set_data_from_numpy(np.array([[video.read_bytes()]], dtype=object))
        wanted = [triton_grpc.InferRequestedOutput(self.steps.clip)]
        try:
            answer = self.client.infer(
                DECODER, [sent], outputs=wanted, headers=dict(self.headers), client_timeout=TIMEOUT_SECONDS
            )
        except InferenceServerException as error:
            raise LoadTestError(f"the server cannot decode {video}: {error.message()}") from error
        clips: npt.NDArray[np.uint8] = answer.as_numpy(self.steps.clip)[0]
        return clips

    @contextmanager
    def decode_only_model(self) -> Iterator[str]:
        """Load an ensemble that only decodes; yields its name, and unloads it after the block.

        perf_analyzer requests all outputs of a model; of `decode` these are the clips for every network.

        Raises:
            LoadTestError: the server does not load the model.
        """
        name = f"{self.model}_decode_alone"
        headers = dict(self.headers)
        try:
            # With a file Triton does not look for the model in its repository. An ensemble reads no files.
            self.client.load_model(
                name,
                headers=headers,
                config=json.dumps(self._decode_only_config(name)),
                files={"file:1/made_by_loadtest": b"-"},
                client_timeout=TIMEOUT_SECONDS,
            )
        except InferenceServerException as error:
            raise LoadTestError(
                "to measure decode alone, the load test loads a model for it, and this server refuses that:"
                f" {error.message()}. The server needs --model-control-mode=explicit, and the load test needs its"
                " admin key, if it has one (--key-file); or leave `decode` out of --through"
            ) from error
        try:
            yield name
        finally:
            self._unload(name)

    def _decode_only_config(self, name: str) -> dict[str, Any]:
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
            self.client.unload_model(name, headers=dict(self.headers), client_timeout=TIMEOUT_SECONDS)
        except InferenceServerException:
            return  # the server has ended, and the model with it


def describe_error(error: InferenceServerException, url: str, model: str) -> str:
    """Say what a failed request for the config means."""
    status = str(error.status())
    if status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED")) and "restricted" not in str(error.message()):
        return f"no server answers at {url} ({error.message()}); --url takes host:port of the server's gRPC port"
    if status.endswith("NOT_FOUND"):
        return f"the server at {url} has no model {model!r}; --model takes one that is exported and loaded"
    return (
        f"the server at {url} refuses the config of {model!r}: {error.message()}; is a --header or --key-file missing?"
    )
