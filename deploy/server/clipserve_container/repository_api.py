"""Triton's repository API over HTTP, with the admin key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from clipserve_container.arguments import ADMIN_HEADER

SECONDS = 600.0  # TensorRT builds an engine at load


class RepositoryApi:
    """load, unload and list; errors are Triton's own sentences."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def load(self, name: str) -> str:
        """Load or reload a model; empty when done, otherwise why not. An older version that serves goes on then."""
        return self._post(f"models/{name}/load")[0]

    def unload(self, name: str) -> str:
        """Refuse new requests to a model, and unload it when those under way are done; returns at once."""
        return self._post(f"models/{name}/unload")[0]

    def list_live(self) -> set[str] | None:
        """Names of the models that are loaded, or being loaded or unloaded; None when there is no answer."""
        error, body = self._post("index")
        if error:
            return None
        return {model["name"] for model in json.loads(body) if model.get("state", "UNAVAILABLE") != "UNAVAILABLE"}

    def _post(self, path: str) -> tuple[str, str]:
        request = urllib.request.Request(
            f"{self._url}/v2/repository/{path}", data=b"{}", headers={ADMIN_HEADER: self._key}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return "", answer.read().decode()
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            try:
                return str(json.loads(body)["error"]), ""
            except (ValueError, KeyError, TypeError):
                return body or f"status {error.code}", ""
        except OSError as error:
            return str(getattr(error, "reason", error)), ""
