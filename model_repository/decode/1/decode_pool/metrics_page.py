"""What Triton itself publishes of its queues, read from its metrics port."""

from __future__ import annotations

import http.client
import os
import re
from collections import Counter
from urllib.parse import urlsplit

# Triton's default port. A server whose metrics are elsewhere says so in this variable.
VARIABLE, DEFAULT_URL = "CLIPSERVE_METRICS_URL", "http://127.0.0.1:8002/metrics"
TIMEOUT_SECONDS = 1.0
_WAITING = re.compile(r'^nv_inference_pending_request_count\{model="([^"]+)",[^}]*\} (\d+)', re.MULTILINE)


class MetricsPage:
    """The page at `url`; where none is given, at the address in the environment or Triton's own."""

    def __init__(self, url: str = "") -> None:
        self.url = url or os.environ.get(VARIABLE, "") or DEFAULT_URL
        self._place = urlsplit(self.url)

    def read_waiting(self) -> Counter[str]:
        """How many requests wait to be run, by the name of the model, over its versions.

        Raises:
            OSError: there is no such page.
        """
        # Not urllib: a proxy in the environment is for others.
        connection = http.client.HTTPConnection(
            self._place.hostname or "", self._place.port or 80, timeout=TIMEOUT_SECONDS
        )
        try:
            connection.request("GET", self._place.path)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise OSError(f"{self.url}: HTTP {answer.status}")
        waiting: Counter[str] = Counter()
        for model, count in _WAITING.findall(text):
            waiting[model] += int(count)
        return waiting
