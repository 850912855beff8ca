"""Triton's repository API over HTTP, with the admin key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from clipserve_container.arguments import ADMIN_HEADER
from clipserve_container.local_http import open_url

SECONDS = 600.0  # TensorRT builds an engine at load


class RepositoryApi:
    """Errors are Triton's own sentences."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def load(self, name: str) -> str:
        """Load or reload a model; empty when done, otherwise why not. An older version that serves goes on then."""
        request = urllib.request.Request(
            f"{self._url}/v2/repository/models/{name}/load",
            data=b"{}",
            headers={ADMIN_HEADER: self._key},
            method="POST",
        )
        try:
            with open_url(request, timeout=SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            try:
                return str(json.loads(body)["error"])
            except (ValueError, KeyError, TypeError):
                return body or f"status {error.code}"
        except OSError as error:
            return str(getattr(error, "reason", error))
