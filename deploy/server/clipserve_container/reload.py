"""`docker compose exec server python3 -m clipserve_container.reload [MODEL...]`: serve what was exported since.

Loads each model anew, steps first, by Triton's repository API with this container's admin key. A version that does not
load leaves the one before it serving.
"""

from __future__ import annotations

import os
import sys

from clipserve_container.check import report
from clipserve_container.repository import PublicModel, RepositoryError, choose_models, names_to_load
from clipserve_container.repository_api import RepositoryApi
from clipserve_container.settings import HTTP_PORT, SettingError, Settings


def main(names: list[str]) -> int:
    """Load the models named, or all that are exported; 1 where one failed."""
    try:
        settings = Settings.from_environment(os.environ)
        models = choose_models(settings.repository, tuple(names) or settings.models)
        key = (settings.state / "admin_key").read_text()
    except (SettingError, RepositoryError, OSError) as error:
        return report([str(error)])
    return reload(RepositoryApi(f"http://127.0.0.1:{HTTP_PORT}", key), models)


def reload(api: RepositoryApi, models: list[PublicModel]) -> int:
    """Load them and say how it went."""
    failed = False
    for name in names_to_reload(models):
        problem = api.load(name)
        print(f"{name}: {problem or 'loaded'}")  # noqa: T201
        failed = failed or bool(problem)
    return int(failed)


def names_to_reload(models: list[PublicModel]) -> list[str]:
    """All but the decode step, which every model shares: it is part of the code, and a restart is what renews it."""
    return [name for name in names_to_load(models) if name != "decode"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
