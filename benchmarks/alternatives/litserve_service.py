"""LitServe: the same decoding and network as in the process pool, behind HTTP.

`python -m benchmarks.alternatives.litserve_service MODEL SETTING PORT` is its server.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import litserve
import torch

from benchmarks.alternatives.contestants import Classify, Scores, Setting
from benchmarks.alternatives.preprocessing import read_with_torchcodec
from benchmarks.alternatives.shared_model import SharedModel, load_eager, load_session

START_SECONDS, STOP_SECONDS, CALL_SECONDS = 120.0, 10.0, 300.0


class VideoApi(litserve.LitAPI):  # type: ignore[misc]
    """Takes JSON with the video in base64; returns the scores."""

    def __init__(self, model: str, setting: Setting) -> None:
        super().__init__()
        self.model, self.setting = SharedModel.from_json(model), setting

    def setup(self, device: str) -> None:
        """Load the network, once in each worker."""
        threads = self.setting["threads"]
        torch.set_num_threads(threads)
        if self.setting["network"] == "torch":
            self.network: Any = load_eager(self.model)
        else:
            session = load_session(self.model, threads=threads)
            self.network = lambda clip: torch.from_numpy(session.run(["SCORES"], {"CLIP": clip.numpy()})[0])

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        """Decode the clip."""
        content = base64.b64decode(request["video"])
        return read_with_torchcodec(content, self.model.spec.geometry, threads=self.setting["threads"])

    def predict(self, clip: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        with torch.inference_mode():
            scores: torch.Tensor = self.network(clip)[0]
        return scores

    def encode_response(self, scores: torch.Tensor) -> dict[str, list[float]]:
        """Make the response."""
        return {"scores": scores.tolist()}


@contextmanager
def open_service(model: SharedModel, setting: Setting) -> Iterator[Classify]:
    """Setting: network: torch or onnxruntime; workers: processes; threads: in each."""
    with socket.create_server(("127.0.0.1", 0)) as claim:
        port = claim.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.alternatives.litserve_service",
            model.to_json(),
            json.dumps(dict(setting)),
            str(port),
        ],
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
    )
    try:
        limits = httpx.Limits(max_connections=setting["concurrency"])
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=CALL_SECONDS, limits=limits) as client:
            wait_until_healthy(client, server)

            def classify(path: str) -> Scores:
                video = base64.b64encode(Path(path).read_bytes()).decode()
                answer = client.post("/predict", json={"video": video}).raise_for_status()
                return dict(enumerate(answer.json()["scores"]))

            yield classify
    finally:
        end_server(server)


def wait_until_healthy(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Wait for every worker's setup. Raises RuntimeError when it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"LitServe ended by itself with {server.returncode}")
        try:
            if client.get("/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"LitServe was not healthy after {START_SECONDS:.0f} s")


def end_server(server: subprocess.Popen[bytes]) -> None:
    """End it with its workers, as Ctrl-C would, and by force where that takes too long."""
    import signal

    import psutil

    if server.poll() is not None:
        return
    started = psutil.Process(server.pid).children(recursive=True)
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for process in started:
        if process.is_running():
            process.kill()


def main() -> None:
    """The command line above."""
    model, setting, port = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    server = litserve.LitServer(
        VideoApi(model, setting), accelerator="cpu", workers_per_device=setting["workers"], timeout=CALL_SECONDS
    )
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
