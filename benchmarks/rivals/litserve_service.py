"""LitServe: the same decoding and network as in the process pool, behind HTTP.

`python -m rivals.litserve_service GROUND SETTING PORT` is its server.
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

from rivals.lineup import Classify, Scores, Setting
from rivals.networks import Ground, load_eager, load_session
from rivals.pixels import read_with_torchcodec

START_SECONDS, STOP_SECONDS, CALL_SECONDS = 120.0, 10.0, 300.0


class VideoApi(litserve.LitAPI):  # type: ignore[misc]
    """JSON with the video in base64 -> the scores."""

    def __init__(self, ground: str, setting: Setting) -> None:
        super().__init__()
        self.ground, self.setting = Ground.from_json(ground), setting

    def setup(self, device: str) -> None:
        """Once in each worker."""
        threads = self.setting["threads"]
        torch.set_num_threads(threads)
        if self.setting["network"] == "torch":
            self.network: Any = load_eager(self.ground)
        else:
            session = load_session(self.ground, threads=threads)
            self.network = lambda clip: torch.from_numpy(session.run(["SCORES"], {"CLIP": clip.numpy()})[0])

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        """The clip."""
        content = base64.b64decode(request["video"])
        return read_with_torchcodec(content, self.ground.spec.geometry, threads=self.setting["threads"])

    def predict(self, clip: torch.Tensor) -> torch.Tensor:
        """The scores."""
        with torch.inference_mode():
            scores: torch.Tensor = self.network(clip)[0]
        return scores

    def encode_response(self, scores: torch.Tensor) -> dict[str, list[float]]:
        """What goes back."""
        return {"scores": scores.tolist()}


@contextmanager
def open_service(ground: Ground, setting: Setting) -> Iterator[Classify]:
    """network: torch or onnxruntime. workers: processes. threads: in each."""
    with socket.create_server(("127.0.0.1", 0)) as claim:
        port = claim.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "rivals.litserve_service", ground.to_json(), json.dumps(dict(setting)), str(port)],
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
    ground, setting, port = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    server = litserve.LitServer(
        VideoApi(ground, setting), accelerator="cpu", workers_per_device=setting["workers"], timeout=CALL_SECONDS
    )
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
