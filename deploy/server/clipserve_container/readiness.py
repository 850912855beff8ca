"""Whether every model that should be served is, each asked by name.

The server's own flag is not asked: it stays "ready" when the process of a Python model has died. Before 26.01 even the
model's own flag does, so those processes are looked for as well.
"""

from __future__ import annotations

import urllib.error
from pathlib import Path

from clipserve_container.local_http import open_url

SECONDS = 5.0
# The process that Triton starts for each instance of a Python model; its first argument is the model's file.
STUB = "triton_python_backend_stub"


class Readiness:
    """Of one Triton.

    url: of its HTTP port. names: the models that should be ready. repository: as Triton was given it.
    """

    def __init__(self, url: str, names: list[str], repository: Path, *, processes: Path = Path("/proc")) -> None:
        self._url, self._names, self._repository, self._processes = url, names, repository, processes
        self._stubs: set[str] = set()

    def look(self) -> dict[str, str]:
        """Each model, with why it is not ready; empty where it is."""
        models = {name: ask(f"{self._url}/v2/models/{name}/ready") for name in self._names}
        alive = find_stubs(self._repository, self._processes)
        for name in self._stubs - alive:
            models[name] = "its process died"
        if not any(models.values()):
            # Which models have a process is seen, not known: it depends on their backend.
            self._stubs = alive & set(self._names)
        return models


def ask(url: str) -> str:
    """Empty when the answer is 200, otherwise why not."""
    try:
        with open_url(url, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def find_stubs(repository: Path, processes: Path = Path("/proc")) -> set[str]:
    """The models that have a Python process that lives."""
    models = set()
    for process in processes.glob("[0-9]*"):
        try:
            program, *arguments = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue  # ended meanwhile
        # One that has died and was not waited for has no command line any more.
        if Path(program).name == STUB and arguments and arguments[0].startswith(f"{repository}/"):
            models.add(Path(arguments[0]).relative_to(repository).parts[0])
    return models
