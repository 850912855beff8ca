"""`docker compose exec server python3 -m clipserve_container.reload [MODEL...]`: serve what was exported since.

Loads each model anew, steps first, by Triton's repository API with this container's admin key. A version that does not
load leaves the one before it serving.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

from clipserve_container.arguments import ADMIN_HEADER
from clipserve_container.repository import PublicModel, RepositoryError, choose_models, names_to_load
from clipserve_container.settings import HTTP_PORT, SettingError, Settings

SECONDS = 600.0  # TensorRT builds an engine at load


def main(names: list[str]) -> int:
    """Load the models named, or all that are exported; 1 where one failed."""
    try:
        settings = Settings.from_environment(os.environ)
        models = choose_models(settings.repository, tuple(names) or settings.models)
    except (SettingError, RepositoryError) as error:
        print(f"clipserve: {error}", file=sys.stderr)  # noqa: T201
        return 1
    key = (settings.state / "admin_key").read_text()
    failed = 0
    for name in names_to_reload(models):
        problem = load(f"http://127.0.0.1:{HTTP_PORT}", name, key)
        print(f"{name}: {problem or 'loaded'}")  # noqa: T201
        failed += bool(problem)
    return 1 if failed else 0


def names_to_reload(models: list[PublicModel]) -> list[str]:
    """All but the decode step, which every model shares: it is part of the code, and a restart is what renews it."""
    return [name for name in names_to_load(models) if name != "decode"]


def load(url: str, name: str, key: str) -> str:
    """Empty when loaded, otherwise Triton's reason."""
    request = urllib.request.Request(
        f"{url}/v2/repository/models/{name}/load", data=b"{}", headers={ADMIN_HEADER: key}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")
        try:
            return str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError):
            return body or f"status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
