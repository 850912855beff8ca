"""`docker compose exec server python3 -m clipserve_container.reload [MODEL...]`: serve what has been exported since.

Reloads each model, steps first, with Triton's repository API and this container's admin key. When a version does not
load, the version before it stays.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from clipserve_container.arguments import ADMIN_HEADER
from clipserve_container.check import report
from clipserve_container.local_http import open_url
from clipserve_container.repository import PublicModel, RepositoryError, choose_models, names_to_serve
from clipserve_container.settings import HTTP_PORT, SettingError, Settings

LOAD_SECONDS = 600.0  # TensorRT builds engines when it loads a model


class RepositoryApi:
    """Triton's repository API over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def load(self, name: str) -> str:
        """Load or reload a model. Returns Triton's error, or an empty string. After an error the old version serves."""
        request = urllib.request.Request(
            f"{self._url}/v2/repository/models/{name}/load",
            data=b"{}",
            headers={ADMIN_HEADER: self._key},
            method="POST",
        )
        try:
            with open_url(request, timeout=LOAD_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            try:
                return str(json.loads(body)["error"])
            except (ValueError, KeyError, TypeError):
                return body or f"status {error.code}"
        except OSError as error:
            return str(getattr(error, "reason", error))


def main(names: list[str]) -> int:
    """Load the named models, or all that are exported. Returns 1 when one did not load."""
    try:
        settings = Settings.from_environment(os.environ)
        models = choose_models(settings.repository, tuple(names) or settings.models)
        key = (settings.state / "admin_key").read_text()
    except (SettingError, RepositoryError, OSError) as error:
        return report([str(error)])
    api = RepositoryApi(f"http://127.0.0.1:{HTTP_PORT}", key)
    return reload(api, names_to_reload(settings.repository, models))


def reload(api: RepositoryApi, names: list[str]) -> int:
    """Load them, and print the result of each."""
    failed = False
    for name in names:
        problem = api.load(name)
        print(f"{name}: {problem or 'loaded'}")  # noqa: T201
        failed = failed or bool(problem)
    return int(failed)


def names_to_reload(repository: Path, models: list[PublicModel]) -> list[str]:
    """The models, and timelines, whose config repeats their options. Not the decode step, which all models share: it is
    part of the code, so a restart updates it.
    """
    return [name for name in names_to_serve(repository, models) if name != "decode"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
