"""What Triton itself publishes of its queues, read from its metrics port."""

from __future__ import annotations

import http.client
import os
import re
import socket
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

# Triton's default port. A server whose metrics are elsewhere says so in this variable.
VARIABLE, DEFAULT_URL = "CLIPSERVE_METRICS_URL", "http://127.0.0.1:8002/metrics"
TIMEOUT_SECONDS = 1.0  # for all of the page
# Another program's page can be endless; Triton's has 100 KiB with a hundred models.
MOST_BYTES = 16 * 2**20
_FAMILY = "nv_inference_pending_request_count"
_WAITING = re.compile(rf"^{_FAMILY}" r'\{model="([^"]+)",[^}]*\} (\d+)', re.MULTILINE)


class MetricsPage:
    """The page at `url`; where none is given, at the address in the environment or Triton's own."""

    def __init__(self, url: str = "") -> None:
        self.url = url or os.environ.get(VARIABLE, "") or DEFAULT_URL
        try:
            place = urlsplit(self.url)
            self._host, self._port, self._path = place.hostname or "", place.port or 80, place.path
        except ValueError as error:
            raise ValueError(f"{VARIABLE} is {self.url}, which is no address: {error}") from error

    def read_waiting(self) -> Counter[str]:
        """How many requests wait to be run, by the name of the model, over its versions.

        Raises:
            OSError: there is no such page, or it is another one.
        """
        # Not urllib: a proxy in the environment is for others.
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.sock = _connect(self._host, self._port)
            connection.request("GET", self._path)
            answer = connection.getresponse()
            text = answer.read(MOST_BYTES).decode(errors="replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise OSError(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise OSError(f"{self.url}: HTTP {answer.status}")
        if _FAMILY not in text:
            raise OSError(f"{self.url}: it does not tell {_FAMILY}, so it is not Triton's")
        waiting: Counter[str] = Counter()
        for model, count in _WAITING.findall(text):
            waiting[model] += int(count)
        return waiting


class _Socket(socket.socket):
    """One whose reads must all be over by a deadline: a timeout alone is for each of them."""

    deadline: float

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        """Raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*arguments, **options)


def _connect(host: str, port: int) -> _Socket:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    plain = socket.create_connection((host, port), TIMEOUT_SECONDS)
    made = _Socket(plain.family, plain.type, plain.proto, plain.detach())
    made.deadline = deadline
    made.settimeout(TIMEOUT_SECONDS)
    return made
